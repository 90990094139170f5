//! `kind = "pam"`

use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::{Section, Site, connections};
use crate::auth::{PamOptions, Protocol};

/// The service unless it is said.
const SERVICE: &str = "popcore";

/// Where Linux-PAM looks for services (`pam.conf(5)`).
const FOLDERS: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];

pub(super) fn pam(section: &mut Section<'_>, site: Site<'_>) -> Option<Protocol> {
    let connections = connections(section);
    let folder = section.take::<String>("folder");
    let wrong = section.was_given("folder") && folder.is_none();
    let folder = folder.map(|field| site.base.join(field.value));
    let place = section.place("service");
    let service = match section.take::<String>("service") {
        Some(field) => field.value,
        None if section.was_given("service") => return None,
        None => SERVICE.to_owned(),
    };
    let is_name =
        !service.is_empty() && !service.contains(['/', '\0']) && !service.starts_with('.');
    let folders: Vec<PathBuf> = match &folder {
        Some(folder) => vec![folder.clone()],
        None => FOLDERS.iter().map(PathBuf::from).collect(),
    };
    let has_file = |folder: &PathBuf| folder.join(&service).is_file();
    // Without a service of its own PAM takes "other", which denies everybody.
    if !is_name || !(folders.iter().any(has_file) || in_one_file(folder.as_deref())) {
        let problem = format!("{service:?} is not a file in {}", folders[0].display());
        let remedy = "write the service's file there, such as \"auth required pam_unix.so\" and \
                      \"account required pam_unix.so\"";
        section.file().reject(&place, problem, remedy);
        return None;
    }
    if wrong {
        return None;
    }
    Some(Protocol::Pam(PamOptions {
        service: CString::new(service).ok()?,
        folder,
        connections: connections?,
    }))
}

/// Whether services stand in the one file of old.
fn in_one_file(folder: Option<&Path>) -> bool {
    folder.is_none() && Path::new("/etc/pam.conf").is_file() && !Path::new(FOLDERS[0]).is_dir()
}
