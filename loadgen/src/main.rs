//! Load generator for any POP3 server.
fn main() {}
