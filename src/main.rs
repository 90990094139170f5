//! The popcore binary: a thin start of the library's command line.

use std::process::ExitCode;

/// Shards allocate and free small objects at a high rate, each on its own
/// thread; mimalloc keeps that local to the thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    popcore::cli::run()
}
