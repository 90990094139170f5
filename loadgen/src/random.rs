//! Numbers that look random and come again with the same seed (`SplitMix64`).

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to below 1.
    #[allow(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds exactly"
    )]
    pub fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number from 0 to below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let number = self.number() % end as u64;
        usize::try_from(number).expect("below an usize")
    }

    /// A number from 1 to `last`, which is not 0. The bias of the remainder is
    /// below 2^-32, too small to matter here.
    fn up_to(&mut self, last: u32) -> u32 {
        let number = self.number() % u64::from(last) + 1;
        u32::try_from(number).expect("at most last")
    }

    /// Writes `wanted` different numbers from 1 to `last` to `chosen`, or all
    /// of them where there are fewer. Floyd's algorithm: no list of `last`
    /// numbers is made.
    pub fn choose(&mut self, last: u32, wanted: u32, chosen: &mut Vec<u32>) {
        chosen.clear();
        let wanted = wanted.min(last);
        for highest in last - wanted + 1..=last {
            let number = self.up_to(highest);
            let fresh = !chosen.contains(&number);
            chosen.push(if fresh { number } else { highest });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_numbers_differ_and_repeat_with_the_seed() {
        for (last, wanted) in [(20, 5), (5, 5), (3, 5), (0, 5), (7, 0), (100_000, 50)] {
            let mut numbers = Vec::new();
            Random::new(7).choose(last, wanted, &mut numbers);
            let mut again = Vec::new();
            Random::new(7).choose(last, wanted, &mut again);
            assert_eq!(numbers, again);
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), wanted.min(last) as usize, "{last} {wanted}");
            assert!(numbers.iter().all(|n| (1..=last).contains(n)));
        }
    }

    #[test]
    fn every_number_is_chosen_sooner_or_later() {
        let mut random = Random::new(1);
        let mut seen = [false; 20];
        let mut numbers = Vec::new();
        for _ in 0..200 {
            random.choose(20, 5, &mut numbers);
            for number in &numbers {
                seen[*number as usize - 1] = true;
            }
        }
        assert_eq!(seen, [true; 20]);
    }
}
