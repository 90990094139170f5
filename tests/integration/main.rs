//! The real binary, as its clients and its operator meet it.
//!
//! Every test starts a server of its own, with a configuration and maildrops in
//! a folder of its own and on an address of its own, so that all of them may run
//! at once. Nothing here waits for a time: what is awaited is a line, an octet, an
//! end, and the deadline behind it is only there to end a test that hangs.

mod addresses;
mod auth;
mod certificates;
mod chaos;
mod client;
mod delivery;
mod demo;
mod descriptors;
mod directories;
mod doctor;
mod issuer;
mod keeping;
mod kernel;
mod kernel_tls;
mod kill;
mod limits;
mod load;
mod lock;
mod mailbox;
mod maildrop;
mod model;
mod oauth;
mod observation;
mod octets;
mod passwd;
mod patience;
mod process;
mod progress;
mod random;
mod sasl;
mod scrape;
mod seccomp;
mod secrets;
mod segmentation;
mod server;
mod signer;
mod steering;
mod stop;
mod takeover;
mod tls;
mod tuning;
mod verify;
mod wire;
