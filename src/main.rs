//! The popcore binary.
fn main() {}
