//! NEON: a block is four vectors.

use std::arch::aarch64::{
    uint8x16_t, vandq_u8, vceqq_u8, vdupq_n_u8, vgetq_lane_u64, vld1q_u8, vpaddq_u8,
    vreinterpretq_u64_u8, vst1q_u8,
};
use std::mem::MaybeUninit;

use super::{BLOCK, Carry, Counted, Encoded, INPUT, Masks, ROOM, inserted};

/// The proof that the processor has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neon(());

type Block = [uint8x16_t; 4];

/// Octets of a vector.
const VECTOR: usize = BLOCK / 4;

/// What each lane of a vector counts for in a mask of eight lanes.
static WEIGHTS: [u8; VECTOR] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

impl Neon {
    pub(super) fn detect() -> Option<Neon> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }

    pub(super) fn encode(self, carry: Carry, input: &[u8], out: &mut [MaybeUninit<u8>]) -> Encoded {
        let Neon(()) = self;
        // SAFETY: this value exists only where the processor has the feature.
        unsafe { encode(carry, input, out) }
    }

    pub(super) fn count(self, carry: Carry, input: &[u8]) -> Counted {
        let Neon(()) = self;
        // SAFETY: this value exists only where the processor has the feature.
        unsafe { count(carry, input) }
    }
}

#[target_feature(enable = "neon")]
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
        while pending != 0 {
            // SAFETY: `pending` is of this block, and `to` went on by one for each
            // bit it has lost.
            unsafe { insert(text, to, pending.trailing_zeros() as usize) };
            // SAFETY: at most a block into the ROOM octets.
            to = unsafe { to.add(1) };
            pending &= pending - 1;
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
/// `at` is below BLOCK; INPUT octets can be read at `text`, and `at` and BLOCK + 1
/// more can be written at `to`.
#[target_feature(enable = "neon")]
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

#[target_feature(enable = "neon")]
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

#[target_feature(enable = "neon")]
#[inline]
fn masks(block: Block) -> Masks {
    Masks {
        line_feeds: places(block, b'\n'),
        carriage_returns: places(block, b'\r'),
        dots: places(block, b'.'),
    }
}

/// Where an octet is in a block: lanes that hold it keep their weight, and adding
/// neighbours three times makes eight lanes one octet of the mask.
#[target_feature(enable = "neon")]
#[inline]
fn places(block: Block, octet: u8) -> u64 {
    let wanted = vdupq_n_u8(octet);
    // SAFETY: as many octets can be read as a vector has.
    let weights = unsafe { vld1q_u8(WEIGHTS.as_ptr()) };
    let [a, b, c, d] = block.map(|vector| vandq_u8(vceqq_u8(vector, wanted), weights));
    let sums = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
    let sums = vpaddq_u8(sums, sums);
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(sums))
}

/// # Safety
///
/// A block can be read at `from`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load(from: *const u8) -> Block {
    std::array::from_fn(|part| {
        // SAFETY: the part is within the block.
        let from = unsafe { from.add(part * VECTOR) };
        // SAFETY: a part of the block; alignment is not asked for.
        unsafe { vld1q_u8(from) }
    })
}

/// # Safety
///
/// A block can be written at `to`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn store(to: *mut u8, block: Block) {
    for (part, vector) in block.into_iter().enumerate() {
        // SAFETY: the part is within the block.
        let to = unsafe { to.add(part * VECTOR) };
        // SAFETY: a part of the block; alignment is not asked for.
        unsafe { vst1q_u8(to, vector) };
    }
}
