//! AVX-512 with VBMI2: a block is a vector, and half a block becomes one.

use std::arch::x86_64::{
    __m256i, __m512i, _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cmpeq_epi8_mask,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_mask_expand_epi8, _mm512_mask_set1_epi8,
    _mm512_set1_epi8, _mm512_storeu_si512, _pdep_u64, _pext_u64,
};
use std::mem::MaybeUninit;

use super::{BLOCK, Carry, Counted, Encoded, INPUT, Insertions, Masks, ROOM};

/// The proof that the processor has AVX-512 F, BW and VBMI2, BMI2 and POPCNT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Avx512(());

const HALF: usize = BLOCK / 2;

impl Avx512 {
    pub(super) fn detect() -> Option<Avx512> {
        let found = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vbmi2")
            && std::is_x86_feature_detected!("bmi2")
            && std::is_x86_feature_detected!("popcnt");
        found.then_some(Avx512(()))
    }

    pub(super) fn encode(self, carry: Carry, input: &[u8], out: &mut [MaybeUninit<u8>]) -> Encoded {
        let Avx512(()) = self;
        // SAFETY: this value exists only where the processor has the features.
        unsafe { encode(carry, input, out) }
    }

    pub(super) fn count(self, carry: Carry, input: &[u8]) -> Counted {
        let Avx512(()) = self;
        // SAFETY: this value exists only where the processor has the features.
        unsafe { count(carry, input) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi2,popcnt")]
fn encode(mut carry: Carry, input: &[u8], out: &mut [MaybeUninit<u8>]) -> Encoded {
    let mut taken = 0;
    let mut written = 0;
    while input.len() - taken >= INPUT && out.len() - written >= ROOM {
        // SAFETY: INPUT octets follow `taken`.
        let text = unsafe { input.as_ptr().add(taken) };
        // SAFETY: ROOM octets follow `written`.
        let to = unsafe { out.as_mut_ptr().add(written) }.cast::<u8>();
        // SAFETY: a block can be read there.
        let block = unsafe { _mm512_loadu_si512(text.cast()) };
        let Insertions { bare, stuffed } = carry.insertions(masks(block));
        let all = bare | stuffed;
        let [low, high] = halves(all);
        taken += BLOCK;
        if all == 0 {
            // SAFETY: a block can be written there.
            unsafe { _mm512_storeu_si512(to.cast(), block) };
            written += BLOCK;
            continue;
        }
        let [dots_low, dots_high] = halves(stuffed);
        let text_low = _mm512_castsi512_si256(block);
        let text_high = _mm512_extracti64x4_epi64::<1>(block);
        // SAFETY: a block can be written there.
        unsafe { spread(text_low, to, low, dots_low) };
        // SAFETY: at most a block into ROOM octets.
        let to = unsafe { to.add(HALF + low.count_ones() as usize) };
        // SAFETY: behind the block at most that has been written there is room
        // for another.
        unsafe { spread(text_high, to, high, dots_high) };
        written += BLOCK + all.count_ones() as usize;
    }
    Encoded { taken, written }
}

/// The parts of a mask that belong to the halves of a block.
#[inline]
fn halves(mask: u64) -> [u32; 2] {
    let low = |mask: u64| u32::try_from(mask & u64::from(u32::MAX)).unwrap_or_default();
    [low(mask), low(mask >> HALF)]
}

/// Writes half a block with something inserted before the octets of `all`: a dot
/// before those of `stuffed`, a carriage return before the others.
///
/// # Safety
///
/// A block can be written at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi2")]
#[inline]
unsafe fn spread(half: __m256i, to: *mut u8, all: u32, stuffed: u32) {
    // Pairs of bits: what may be inserted, then the octet of the text.
    const TEXT: u64 = 0xAAAA_AAAA_AAAA_AAAA;
    let kept = TEXT | _pdep_u64(u64::from(all), !TEXT);
    let text = _pext_u64(TEXT, kept);
    let mut inserted = _mm512_set1_epi8(b'\r'.cast_signed());
    if stuffed != 0 {
        // Seldom enough to be guessed right.
        let dots = _pext_u64(_pdep_u64(u64::from(stuffed), !TEXT), kept);
        inserted = _mm512_mask_set1_epi8(inserted, dots, b'.'.cast_signed());
    }
    let spread = _mm512_mask_expand_epi8(inserted, text, _mm512_castsi256_si512(half));
    // SAFETY: a block can be written there; alignment is not asked for.
    unsafe { _mm512_storeu_si512(to.cast(), spread) };
}

#[target_feature(enable = "avx512f,avx512bw,popcnt")]
fn count(mut carry: Carry, input: &[u8]) -> Counted {
    let mut bare = 0;
    let mut stuffed = 0;
    let blocks = input.chunks_exact(BLOCK);
    let taken = input.len() - blocks.remainder().len();
    for text in blocks {
        // SAFETY: a chunk is a block; alignment is not asked for.
        let block = unsafe { _mm512_loadu_si512(text.as_ptr().cast()) };
        let insertions = carry.insertions(masks(block));
        bare += u64::from(insertions.bare.count_ones());
        stuffed |= insertions.stuffed;
    }
    Counted {
        taken,
        bare,
        stuffed: stuffed != 0,
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn masks(block: __m512i) -> Masks {
    let places = |octet: u8| _mm512_cmpeq_epi8_mask(block, _mm512_set1_epi8(octet.cast_signed()));
    Masks {
        line_feeds: places(b'\n'),
        carriage_returns: places(b'\r'),
        dots: places(b'.'),
    }
}
