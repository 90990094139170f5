//! MD5-crypt (`$1$`), as FreeBSD made it in 1994: no library of it is kept any more,
//! and it will not change. It is here for users who bring it along; nobody should
//! store a new password like that.

use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

/// Octets of a salt that count.
pub(super) const SALT: usize = 8;

/// In which order the octets of the digest are written.
pub(super) const ORDER: [usize; 16] = [12, 6, 0, 13, 7, 1, 14, 8, 2, 15, 9, 3, 5, 10, 4, 11];

/// The digest, in the order in which it is computed.
pub(super) fn digest(password: &[u8], salt: &[u8]) -> Zeroizing<[u8; 16]> {
    let mut first = Md5::new_with_prefix(password);
    first.update(b"$1$");
    first.update(salt);
    let other = Md5::new_with_prefix(password)
        .chain_update(salt)
        .chain_update(password);
    let other = Zeroizing::new(<[u8; 16]>::from(other.finalize()));
    for piece in password.chunks(other.len()) {
        first.update(&other[..piece.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { b"\0" } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = Zeroizing::new(<[u8; 16]>::from(first.finalize()));
    for round in 0..1000 {
        let (begin, end) = if round % 2 == 1 {
            (password, &digest[..])
        } else {
            (&digest[..], password)
        };
        let mut next = Md5::new_with_prefix(begin);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(end);
        digest = Zeroizing::new(next.finalize().into());
    }
    digest
}
