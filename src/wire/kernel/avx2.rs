//! AVX2: a block is two vectors.

use std::arch::x86_64::{
    __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
    _mm256_storeu_si256,
};
use std::mem::MaybeUninit;

use super::{BLOCK, Carry, Counted, Encoded, INPUT, Masks, ROOM, inserted};

/// The proof that the processor has AVX2, BMI1 and POPCNT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Avx2(());

const HALF: usize = BLOCK / 2;

#[derive(Clone, Copy)]
struct Block(__m256i, __m256i);

impl Avx2 {
    pub(super) fn detect() -> Option<Avx2> {
        let found = std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("bmi1")
            && std::is_x86_feature_detected!("popcnt");
        found.then_some(Avx2(()))
    }

    pub(super) fn encode(self, carry: Carry, input: &[u8], out: &mut [MaybeUninit<u8>]) -> Encoded {
        let Avx2(()) = self;
        // SAFETY: this value exists only where the processor has the features.
        unsafe { encode(carry, input, out) }
    }

    pub(super) fn count(self, carry: Carry, input: &[u8]) -> Counted {
        let Avx2(()) = self;
        // SAFETY: this value exists only where the processor has the features.
        unsafe { count(carry, input) }
    }
}

#[target_feature(enable = "avx2,bmi1,popcnt")]
fn encode(mut carry: Carry, input: &[u8], out: &mut [MaybeUninit<u8>]) -> Encoded {
    let mut taken = 0;
    let mut written = 0;
    while input.len() - taken >= INPUT && out.len() - written >= ROOM {
        // SAFETY: INPUT octets follow `taken`.
        let text = unsafe { input.as_ptr().add(taken) };
        // SAFETY: ROOM octets follow `written`.
        let mut to = unsafe { out.as_mut_ptr().add(written) }.cast::<u8>();
        // SAFETY: INPUT octets follow `text`, of which a block is half.
        let block = unsafe { load(text) };
        let insertions = carry.insertions(masks(block));
        let mut pending = insertions.bare | insertions.stuffed;
        let count = pending.count_ones() as usize;
        // SAFETY: ROOM octets follow `to`.
        unsafe { store(to, block) };
        if pending != 0 {
            // Two without asking whether there are two: with none left, the place
            // is the block's end, and the store goes where the next block will.
            for _ in 0..2 {
                // SAFETY: `pending` is of this block, and `to` went on by one for
                // each bit it has lost, and by one more here at most.
                unsafe { insert(text, to, pending.trailing_zeros() as usize) };
                // SAFETY: at most a block and one into the ROOM octets.
                to = unsafe { to.add(1) };
                pending &= pending.wrapping_sub(1);
            }
            while pending != 0 {
                // SAFETY: as above.
                unsafe { insert(text, to, pending.trailing_zeros() as usize) };
                // SAFETY: as above.
                to = unsafe { to.add(1) };
                pending &= pending - 1;
            }
        }
        taken += BLOCK;
        written += BLOCK + count;
    }
    Encoded { taken, written }
}

/// Writes what is inserted before octet `at` of the block at `text`, and then the
/// text from there.
///
/// # Safety
///
/// `at` is at most BLOCK; INPUT octets can be read at `text`, and `at` and
/// BLOCK + 1 more can be written at `to`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn insert(text: *const u8, to: *mut u8, at: usize) {
    // SAFETY: `at` and a block behind it are within the INPUT octets.
    let rest = unsafe { text.add(at) };
    // SAFETY: as the caller promises.
    let to = unsafe { to.add(at) };
    // SAFETY: at least a block can be read there.
    let octet = unsafe { *rest };
    // SAFETY: at least a block can be read there.
    let block = unsafe { load(rest) };
    // SAFETY: an octet and a block can be written there.
    unsafe { *to = inserted(octet) };
    // SAFETY: the octet before it was just written, and a block more can be.
    let behind = unsafe { to.add(1) };
    // SAFETY: a block can be written there.
    unsafe { store(behind, block) };
}

#[target_feature(enable = "avx2,bmi1,popcnt")]
fn count(mut carry: Carry, input: &[u8]) -> Counted {
    let mut bare = 0;
    let mut stuffed = 0;
    let blocks = input.chunks_exact(BLOCK);
    let taken = input.len() - blocks.remainder().len();
    for text in blocks {
        // SAFETY: a chunk is a block.
        let block = unsafe { load(text.as_ptr()) };
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

#[target_feature(enable = "avx2")]
#[inline]
fn masks(block: Block) -> Masks {
    Masks {
        line_feeds: places(block, b'\n'),
        carriage_returns: places(block, b'\r'),
        dots: places(block, b'.'),
    }
}

/// Where an octet is in a block.
#[target_feature(enable = "avx2")]
#[inline]
fn places(Block(low, high): Block, octet: u8) -> u64 {
    let wanted = _mm256_set1_epi8(octet.cast_signed());
    let half = |half| _mm256_movemask_epi8(_mm256_cmpeq_epi8(half, wanted)).cast_unsigned();
    u64::from(half(low)) | u64::from(half(high)) << HALF
}

/// # Safety
///
/// A block can be read at `from`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load(from: *const u8) -> Block {
    // SAFETY: the first half of the block; alignment is not asked for.
    let low = unsafe { _mm256_loadu_si256(from.cast()) };
    // SAFETY: the second half is within the block.
    let from = unsafe { from.add(HALF) };
    // SAFETY: the second half of the block.
    let high = unsafe { _mm256_loadu_si256(from.cast()) };
    Block(low, high)
}

/// # Safety
///
/// A block can be written at `to`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn store(to: *mut u8, Block(low, high): Block) {
    // SAFETY: the first half of the block; alignment is not asked for.
    unsafe { _mm256_storeu_si256(to.cast(), low) };
    // SAFETY: the second half is within the block.
    let to = unsafe { to.add(HALF) };
    // SAFETY: the second half of the block.
    unsafe { _mm256_storeu_si256(to.cast(), high) };
}
