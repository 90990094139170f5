//! The blocks of 64 octets that the encoder and the counter take at once.
//!
//! A block becomes three masks of 64 bits (line feeds, carriage returns, dots at
//! their places), and two shifts and a few ands of those say before which octets
//! something must be inserted. That is [`Carry::insertions`], the same for all
//! instruction sets; they differ in how they make masks and write blocks:
//!
//! - AVX2 and NEON copy the block whole. For each octet that must be inserted they
//!   write it at its place and the rest of the text again behind it: each store
//!   overwrites what the one before wrote too far to the left, and what is too
//!   much at the right is overwritten by the next block.
//! - AVX-512 with VBMI2 expands half a block into a vector of what is inserted,
//!   by the mask of where text goes: no branch depends on where lines end, which
//!   in prose nobody can predict.
//!
//! Tried and not kept, because they were no faster here: pairs of octets
//! compressed by mask; whole blocks expanded with a short store for what they push
//! out; no branch for blocks without insertions until several came in a row.
//!
//! A kernel takes whole blocks and stops where reading or writing too far would
//! leave its buffers. The rest, and everything on other machines, is
//! [`Encoder`](super::Encoder)'s portable way, and the tests hold all of them to
//! the same octets.
//!
//! # Why this is sound
//!
//! A value of [`Avx2`], [`Avx512`] or [`Neon`] exists only where the processor was
//! found to have what the kernel's functions are compiled for, which makes calling
//! them sound. Within them, only loads and stores are unsafe; each stands below
//! the loop condition that proves it in bounds.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::MaybeUninit;
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use self::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use self::avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use self::neon::Neon;

/// Octets that are looked at together: a mask has a bit for each.
const BLOCK: usize = 64;

/// Input that must be there for a block to be taken: what is written again behind
/// an insertion is read as a whole block from up to the block's end.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const INPUT: usize = 2 * BLOCK;

/// Room that must be there for a block to be written: twice its octets at most,
/// and the last store of a whole block may begin behind those.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ROOM: usize = 3 * BLOCK + 2;

/// A way to encode and to count, and the proof that this machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Isa);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Kernel {
    /// The way that is there on every machine.
    pub const PORTABLE: Kernel = Kernel(Isa::Portable);

    /// The fastest way of this machine, chosen once.
    pub fn best() -> Kernel {
        static BEST: LazyLock<Kernel> =
            LazyLock::new(|| Kernel::available().last().unwrap_or(Kernel::PORTABLE));
        *BEST
    }

    /// All that this machine has, the slowest first.
    pub fn available() -> impl Iterator<Item = Kernel> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            Avx2::detect().map(Isa::Avx2),
            Avx512::detect().map(Isa::Avx512),
        ];
        #[cfg(target_arch = "aarch64")]
        let vector = [Neon::detect().map(Isa::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let vector: [Option<Isa>; 0] = [];
        std::iter::once(Isa::Portable)
            .chain(vector.into_iter().flatten())
            .map(Kernel)
    }

    /// For tables of results.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "NEON",
        }
    }

    /// Appends to `out`, up to its capacity, what becomes of as many whole blocks
    /// as input and room allow; returns how many octets of input those are.
    pub(super) fn encode(self, carry: Carry, input: &[u8], out: &mut Vec<u8>) -> usize {
        let Encoded { taken, written } = self.encode_into(carry, input, out.spare_capacity_mut());
        let length = out.len() + written;
        assert!(length <= out.capacity(), "a kernel overran its room");
        // SAFETY: the kernel has initialised `written` octets behind the old length.
        unsafe { out.set_len(length) };
        taken
    }

    fn encode_into(self, carry: Carry, input: &[u8], out: &mut [MaybeUninit<u8>]) -> Encoded {
        match self.0 {
            Isa::Portable => Encoded::default(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(avx2) => avx2.encode(carry, input, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(avx512) => avx512.encode(carry, input, out),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(neon) => neon.encode(carry, input, out),
        }
    }

    /// Counts what encoding would insert into as many whole blocks as there are.
    pub(super) fn count(self, carry: Carry, input: &[u8]) -> Counted {
        match self.0 {
            Isa::Portable => Counted::default(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(avx2) => avx2.count(carry, input),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(avx512) => avx512.count(carry, input),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(neon) => neon.count(carry, input),
        }
    }
}

/// What a kernel has encoded. All `written` octets of the output are initialised.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded {
    taken: usize,
    written: usize,
}

/// What a kernel has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) taken: usize,
    /// Line feeds without a carriage return.
    pub(super) bare: u64,
    /// There is a dot at the beginning of a line.
    pub(super) stuffed: bool,
}

/// What the octet before a block means for its first one; bits 0 or 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carry {
    pub(super) line_start: u64,
    pub(super) after_cr: u64,
}

/// Where in a block certain octets are; the first octet is the lowest bit.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy, Debug)]
struct Masks {
    line_feeds: u64,
    carriage_returns: u64,
    dots: u64,
}

/// Before which octets of a block something is inserted.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy, Debug)]
struct Insertions {
    /// Line feeds that lack a carriage return.
    bare: u64,
    /// Dots at the beginning of a line.
    stuffed: u64,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Carry {
    /// The insertions of the next block, and the carry behind it.
    #[inline]
    fn insertions(&mut self, masks: Masks) -> Insertions {
        let Masks {
            line_feeds,
            carriage_returns,
            dots,
        } = masks;
        let insertions = Insertions {
            bare: line_feeds & !(carriage_returns << 1 | self.after_cr),
            stuffed: dots & (line_feeds << 1 | self.line_start),
        };
        self.line_start = line_feeds >> (BLOCK - 1);
        self.after_cr = carriage_returns >> (BLOCK - 1);
        insertions
    }
}

/// What goes before an octet that something is inserted before.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
fn inserted(before: u8) -> u8 {
    if before == b'.' { b'.' } else { b'\r' }
}
