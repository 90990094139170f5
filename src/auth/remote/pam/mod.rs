//! Users of the system: PAM, Pluggable Authentication Modules.
//!
//! Modules block, for as long as they like, so each question has a thread of the look-up
//! runtime to itself, as many at a time as the directory has `connections`. A module that
//! hangs keeps its thread and its place, not the login, which the time-out answers; so
//! hanging modules take no more threads than that, and with all of them gone the
//! directory fails and is left in peace.
//!
//! PAM says whether a password is right (auth) and whether its user may log in
//! (account). Where a user is proved already, by a certificate or by a master user's
//! password, the account stage is asked alone, for users that the system knows. The home
//! is that of `getpwnam(3)`, for users that have one.

mod library;

use std::ffi::{CString, c_int};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use nix::unistd::User as SystemUser;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use self::library::{Code, NoStart, Subject, Transaction};
use super::{Answer, Attributes, Question};
use crate::auth::credentials::Ask;
use crate::auth::directory::Failure;

/// A service of PAM, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PamOptions {
    /// The name of the service: a file in the folder.
    pub service: CString,
    /// Where the file is; in the system's folders where it is none.
    pub folder: Option<PathBuf>,
    /// How many users are asked about at a time.
    pub connections: u32,
}

impl fmt::Display for PamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PAM, service {}", self.service.to_string_lossy())
    }
}

/// A service of PAM that is asked for users.
pub(super) struct Pam {
    options: PamOptions,
    /// Threads that no module keeps.
    room: Arc<Semaphore>,
}

/// Numbers of `security/_pam_types.h`.
mod code {
    use std::ffi::c_int;

    pub(super) const PERM_DENIED: c_int = 6;
    pub(super) const AUTH_ERR: c_int = 7;
    pub(super) const CRED_INSUFFICIENT: c_int = 8;
    pub(super) const AUTHINFO_UNAVAIL: c_int = 9;
    pub(super) const USER_UNKNOWN: c_int = 10;
    pub(super) const MAXTRIES: c_int = 11;
    pub(super) const NEW_AUTHTOK_REQD: c_int = 12;
    pub(super) const ACCT_EXPIRED: c_int = 13;
    pub(super) const CRED_UNAVAIL: c_int = 15;
    pub(super) const CRED_EXPIRED: c_int = 16;
    pub(super) const CRED_ERR: c_int = 17;
    pub(super) const CONV_ERR: c_int = 19;
    pub(super) const AUTHTOK_ERR: c_int = 20;
    pub(super) const AUTHTOK_RECOVERY_ERR: c_int = 21;
    pub(super) const AUTHTOK_LOCK_BUSY: c_int = 22;
    pub(super) const TRY_AGAIN: c_int = 24;
    pub(super) const AUTHTOK_EXPIRED: c_int = 27;
    pub(super) const CONV_AGAIN: c_int = 30;
    pub(super) const INCOMPLETE: c_int = 31;
}

impl Pam {
    pub(super) fn new(options: &PamOptions) -> Self {
        Self {
            options: options.clone(),
            room: Arc::new(Semaphore::new(options.connections as usize)),
        }
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let password = match &question.ask {
            Ask::Password(password) => match CString::new(password.as_bytes()) {
                Ok(text) => Some(Zeroizing::new(text)),
                // No module could be told it.
                Err(_) => return Ok(Answer::Rejected),
            },
            // A token has been verified before anybody is asked about its user.
            Ask::Known | Ask::Token(_) => None,
            // It keeps what is stored to itself.
            Ask::Keys(_) | Ask::Apop(_) => return Ok(Answer::Rejected),
        };
        let Ok(user) = CString::new(question.name.as_bytes()) else {
            return Ok(Answer::Unknown);
        };
        let folder = self.options.folder.as_ref().map(|folder| {
            CString::new(folder.as_os_str().as_bytes()).expect("the configuration has no NUL")
        });
        let subject = Subject {
            service: self.options.service.clone(),
            folder,
            user,
            password,
        };
        let host = CString::new(question.from.to_canonical().to_string()).expect("an address");
        let place = Arc::clone(&self.room).acquire_owned().await;
        let place = place.expect("it is never closed");
        let asked = spawn_blocking(move || {
            let answer = ask(subject, &host);
            drop(place);
            answer
        });
        asked
            .await
            .unwrap_or_else(|_| Err(Failure::Refused("a module panicked".to_owned())))
    }
}

/// BLOCKING.
fn ask(subject: Subject, host: &std::ffi::CStr) -> Result<Answer, Failure> {
    let user = subject.user.clone();
    let is_proved = subject.password.is_none();
    let entry = || {
        // A name that is no UTF-8 is no user's of the system.
        let name = user.to_str().ok()?;
        SystemUser::from_name(name).ok().flatten()
    };
    if is_proved && entry().is_none() {
        return Ok(Answer::Unknown);
    }
    let mut transaction = Transaction::start(subject).map_err(|error| match error {
        NoStart::Library(why) => Failure::Refused(why),
        NoStart::Code(code) => refused(code),
    })?;
    transaction.describe(host, c"popcore").map_err(refused)?;
    if !is_proved && let Err(code) = transaction.authenticate() {
        return authentication(code);
    }
    let mut attributes = Attributes::default();
    if let Err(code) = transaction.account() {
        match account(code)? {
            Verdict::Disabled(notice) => attributes.disabled = Some(notice.to_owned()),
            Verdict::Unknown => return Ok(Answer::Unknown),
            Verdict::Rejected => return Ok(Answer::Rejected),
        }
    }
    // Mail lies under the name that logged in.
    if transaction.user().map_err(refused)? != user.as_bytes() {
        let why = "a module of PAM has made another user of it";
        return Ok(Answer::Faulty(why.to_owned()));
    }
    let home = entry().and_then(|entry| entry.dir.into_os_string().into_string().ok());
    attributes.home = home.filter(|home| home.starts_with('/'));
    Ok(Answer::Accepted(attributes))
}

/// What it means that the auth stage ended like this. What speaks of this user is no
/// failure of the directory: whoever could make one would have it left in peace for all.
fn authentication(Code(number): Code) -> Result<Answer, Failure> {
    match number {
        code::USER_UNKNOWN => Ok(Answer::Unknown),
        code::AUTH_ERR
        | code::PERM_DENIED
        | code::CRED_INSUFFICIENT
        | code::MAXTRIES
        | code::NEW_AUTHTOK_REQD
        | code::ACCT_EXPIRED
        | code::CRED_EXPIRED
        | code::CRED_ERR
        | code::AUTHTOK_ERR
        | code::AUTHTOK_RECOVERY_ERR
        | code::AUTHTOK_EXPIRED => Ok(Answer::Rejected),
        code::CONV_ERR | code::CONV_AGAIN | code::INCOMPLETE => Ok(Answer::Faulty(
            "a module of PAM asks for more than a password".to_owned(),
        )),
        number => Err(failed(number, "auth")),
    }
}

/// What becomes of a user whose password was right.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Disabled(&'static str),
    Unknown,
    Rejected,
}

/// What it means that the account stage ended like this.
fn account(Code(number): Code) -> Result<Verdict, Failure> {
    match number {
        code::ACCT_EXPIRED => Ok(Verdict::Disabled("This account has expired")),
        code::NEW_AUTHTOK_REQD | code::AUTHTOK_EXPIRED | code::CRED_EXPIRED => {
            Ok(Verdict::Disabled("The password has expired; set a new one"))
        }
        code::PERM_DENIED | code::CRED_INSUFFICIENT | code::MAXTRIES => {
            Ok(Verdict::Disabled("This account may not log in here now"))
        }
        code::AUTH_ERR | code::CRED_ERR | code::AUTHTOK_ERR | code::AUTHTOK_RECOVERY_ERR => {
            Ok(Verdict::Rejected)
        }
        code::USER_UNKNOWN => Ok(Verdict::Unknown),
        number => Err(failed(number, "account")),
    }
}

/// A stage that says nothing of the user.
fn failed(number: c_int, stage: &str) -> Failure {
    let text = format!("the {stage} stage of PAM ended with {number}");
    match number {
        code::AUTHINFO_UNAVAIL | code::CRED_UNAVAIL | code::AUTHTOK_LOCK_BUSY | code::TRY_AGAIN => {
            Failure::Unreachable(format!("{text}: a module cannot reach its source"))
        }
        _ => Failure::Refused(format!("{text}, see _pam_types.h and the system's log")),
    }
}

fn refused(Code(number): Code) -> Failure {
    Failure::Refused(format!("PAM does not start: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_speaks_of_the_user_or_of_the_directory() {
        let rejected = [6, 7, 8, 11, 12, 13, 16, 17, 20, 21, 27];
        for number in rejected {
            assert!(
                matches!(authentication(Code(number)), Ok(Answer::Rejected)),
                "{number}"
            );
        }
        assert!(matches!(authentication(Code(10)), Ok(Answer::Unknown)));
        for number in [19, 30, 31] {
            let told = authentication(Code(number));
            assert!(matches!(told, Ok(Answer::Faulty(_))), "{number}");
        }
        for number in [9, 15, 22, 24] {
            let told = authentication(Code(number));
            assert!(matches!(told, Err(Failure::Unreachable(_))), "{number}");
            let told = account(Code(number));
            assert!(matches!(told, Err(Failure::Unreachable(_))), "{number}");
        }
        for number in [1, 2, 3, 4, 5, 14, 18, 23, 25, 26, 28, 29, 99] {
            let told = authentication(Code(number));
            assert!(matches!(told, Err(Failure::Refused(_))), "{number}");
            assert!(
                matches!(account(Code(number)), Err(Failure::Refused(_))),
                "{number}"
            );
        }
        for number in [7, 17, 20, 21] {
            assert_eq!(account(Code(number)), Ok(Verdict::Rejected), "{number}");
        }
        assert_eq!(account(Code(10)), Ok(Verdict::Unknown));
        for number in [6, 8, 11, 12, 13, 16, 27] {
            assert!(
                matches!(account(Code(number)), Ok(Verdict::Disabled(_))),
                "{number}"
            );
        }
    }
}
