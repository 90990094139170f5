//! Who is in a maildrop's directories, as one number: the sum of a keyed hash of each
//! message's file name, folder and inode. Two that are equal are of the same files, but for
//! a chance of one in 2^64, since the key is drawn at random for each process and nobody
//! can choose names for their hashes.
//!
//! A sum, because listings come in no order, and because what came or went is added to it
//! and taken away without a look at all the others.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::{Add, AddAssign};
use std::sync::LazyLock;

use super::snapshot::Folder;

/// The hash of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark(u64);

impl Mark {
    pub(super) fn of(name: &[u8], folder: Folder, inode: u64) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = KEY.build_hasher();
        hasher.write_u64(inode);
        hasher.write_u8(match folder {
            Folder::New => 0,
            Folder::Cur => 1,
        });
        // It comes last, so nothing need say where it ends.
        hasher.write(name);
        Self(hasher.finish())
    }
}

/// How many files there are, and who.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) files: usize,
    sum: u64,
}

impl AddAssign<Mark> for Census {
    fn add_assign(&mut self, mark: Mark) {
        self.files += 1;
        self.sum = self.sum.wrapping_add(mark.0);
    }
}

impl Add for Census {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            sum: self.sum.wrapping_add(other.sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_count_and_everything_else_does() {
        type File = (&'static [u8], Folder, u64);
        let files: [File; 3] = [
            (b"1.a", Folder::New, 7),
            (b"2.b:2,S", Folder::Cur, 8),
            (b"3.c", Folder::New, 9),
        ];
        let census = |files: &[File]| {
            let mut census = Census::default();
            for (name, folder, inode) in files {
                census += Mark::of(name, *folder, *inode);
            }
            census
        };
        let whole = census(&files);
        let [a, b, c] = files;
        assert_eq!(census(&[c, a, b]), whole);
        assert_eq!(census(&[c]) + census(&[b, a]), whole);
        let others: [[File; 3]; 4] = [
            [(b"1.b", Folder::New, 7), b, c],
            [(b"1.a", Folder::Cur, 7), b, c],
            [(b"1.a", Folder::New, 6), b, c],
            [b, b, c],
        ];
        for other in others {
            assert_ne!(census(&other), whole);
        }
    }
}
