//! Mail clients and a server of others against the popcore binary.
//!
//! Every program is the one that Debian ships, with the configuration a user
//! would write. Mail is made by the test, served by a server of its own, and
//! what arrives is compared octet for octet with what was made. Where a client
//! is known to change what it fetches, its module says what, and the expected
//! octets are derived from the source by that rule alone. A program that is
//! absent is a failure.
//!
//! Each client fetches twice and leaves the mail there, which shows that the
//! unique-ids hold, and then fetches and deletes, which empties the maildrop;
//! in clear, after STLS and over TLS from the first byte, as far as it can.

mod client;
mod coexistence;
mod compare;
mod curl;
mod directories;
mod dovecot;
mod fetchmail;
mod fuse;
mod getmail;
mod index;
#[path = "../integration/issuer.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod issuer;
mod messages;
mod migration;
mod mpop;
mod oauth;
mod openssl;
mod poplib;
mod program;
mod sasl;
mod sick_disk;
#[path = "../integration/signer.rs"]
mod signer;
mod site;
mod steps;
mod syscalls;
mod testssl;
