//! `popcore serve`: a server as the configuration says.

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::server;

pub(super) fn run(path: &Path) -> ExitCode {
    // Everything that can be wrong with the settings is said before the first
    // socket is opened: a half-started server is harder to understand.
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    match server::run(&config, |_| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("popcore: {error}");
            ExitCode::FAILURE
        }
    }
}
