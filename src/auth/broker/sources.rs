//! The directories, made ready to be asked.

use std::sync::Arc;

use crate::auth::directory::LoadReport;
use crate::auth::judge::Source;
use crate::auth::passwd_file::PasswdFile;
use crate::auth::remote::Remote;
use crate::auth::{DirectoryError, DirectoryKind, DirectoryOptions};

/// Makes the directories ready to be asked. To be called in the look-up runtime's context.
pub(super) fn open(all: &[DirectoryOptions]) -> Result<Vec<Source>, DirectoryError> {
    let open = |directory: &DirectoryOptions| match &directory.kind {
        DirectoryKind::PasswdFile { path } => {
            let (file, report) = PasswdFile::open(path)?;
            log(&report);
            Ok(Source::Here(Box::new(file)))
        }
        DirectoryKind::Static { users } => {
            let (file, report) = PasswdFile::of_lines(users, "static");
            log(&report);
            Ok(Source::Here(Box::new(file)))
        }
        DirectoryKind::Away(options) => Ok(Source::Away(Arc::new(Remote::new(options)))),
    };
    all.iter().map(open).collect()
}

/// Tells the log what was loaded.
pub(super) fn log(report: &LoadReport) {
    for fault in &report.faults {
        tracing::warn!("{fault}");
    }
    let untold = report.fault_count - report.faults.len();
    if untold > 0 {
        tracing::warn!("{untold} further faults of this kind are not told");
    }
    let LoadReport { users, locked, .. } = report;
    tracing::info!(users, locked, memory = report.memory, "directory loaded");
}
