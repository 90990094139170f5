//! The binding of libpam: a transaction from its start to its end.
//!
//! The library is looked for when the first directory asks for it, by its soname, and is
//! not linked: popcore builds without its headers and runs where it is absent. The
//! wrappers on crates.io (`nonstick`, `pam-client`, `pam`) all link it, and what is used
//! here are six functions. It is never unloaded: modules leave threads and handlers
//! behind that cannot be taken back.
//!
//! Source of signatures and numbers: `security/_pam_types.h` and `security/pam_appl.h`
//! of Linux-PAM, `pam_start(3)`, `pam_conv(3)`, `pam_set_item(3)`. `pam_start_confdir` is there
//! since Linux-PAM 1.4 (2020).
//!
//! Invariants: a handle is used by one thread at a time (a [`Transaction`] is taken by
//! value or `&mut`), is ended once, and what its conversation points to outlives it.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::LazyLock;

use libloading::Library;
use zeroize::Zeroizing;

/// What a function of PAM returned that did not go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) c_int);

/// Numbers of `security/_pam_types.h`.
mod number {
    use std::ffi::c_int;

    pub(super) const SUCCESS: c_int = 0;
    pub(super) const BUF_ERR: c_int = 5;
    pub(super) const CONV_ERR: c_int = 19;

    pub(super) const ITEM_USER: c_int = 2;
    pub(super) const ITEM_TTY: c_int = 3;
    pub(super) const ITEM_RHOST: c_int = 4;
    pub(super) const ITEM_FAIL_DELAY: c_int = 10;

    pub(super) const PROMPT_ECHO_OFF: c_int = 1;
    pub(super) const PROMPT_ECHO_ON: c_int = 2;
    pub(super) const ERROR_MSG: c_int = 3;
    pub(super) const TEXT_INFO: c_int = 4;

    /// `PAM_DISALLOW_NULL_AUTHTOK`: a user without a password does not log in.
    pub(super) const DISALLOW_NULL: c_int = 1;
    /// `PAM_SILENT`: nobody would read what modules say.
    pub(super) const SILENT: c_int = 0x8000;
    /// `PAM_MAX_NUM_MSG`
    pub(super) const MOST_MESSAGES: usize = 32;
}

type Handle = *mut c_void;

/// `struct pam_message`
#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`
#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Messages = *mut *const Message;
type Converse = extern "C" fn(c_int, Messages, *mut *mut Response, *mut c_void) -> c_int;

/// `struct pam_conv`
#[repr(C)]
struct Conversation {
    converse: Converse,
    answers: *mut c_void,
}

type Start = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Conversation,
    *const c_char,
    *mut Handle,
) -> c_int;
type Stage = unsafe extern "C" fn(Handle, c_int) -> c_int;
type SetItem = unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int;
type GetItem = unsafe extern "C" fn(*const c_void, c_int, *mut *const c_void) -> c_int;

/// The functions that are used.
struct Functions {
    start: Start,
    set_item: SetItem,
    get_item: GetItem,
    authenticate: Stage,
    account: Stage,
    end: Stage,
}

static FUNCTIONS: LazyLock<Result<Functions, String>> = LazyLock::new(|| open("libpam.so.0"));

fn open(name: &str) -> Result<Functions, String> {
    let missing = |error: libloading::Error| {
        format!("{error}; install Linux-PAM 1.4 or newer (Debian: libpam0g)")
    };
    // SAFETY: what runs when libpam is loaded are the initialisers of a library that is
    // made to be loaded by any program.
    let library = unsafe { Library::new(name) }.map_err(missing)?;
    /// A function, whose type is that of the field it is for.
    macro_rules! find {
        ($name:literal) => {
            // SAFETY: the type is the function's signature in security/pam_appl.h.
            *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(missing)?
        };
    }
    let functions = Functions {
        start: find!("pam_start_confdir"),
        set_item: find!("pam_set_item"),
        get_item: find!("pam_get_item"),
        authenticate: find!("pam_authenticate"),
        account: find!("pam_acct_mgmt"),
        end: find!("pam_end"),
    };
    // It stays for as long as the process does, and with it what was found in it.
    std::mem::forget(library);
    Ok(functions)
}

/// What modules are told when they ask.
struct Answers {
    user: CString,
    password: Option<Zeroizing<CString>>,
}

/// Whom a transaction is about, and where its service is.
pub(super) struct Subject {
    pub(super) service: CString,
    /// The folder of the file of the service; the system's where it is none.
    pub(super) folder: Option<CString>,
    pub(super) user: CString,
    pub(super) password: Option<Zeroizing<CString>>,
}

/// A transaction that was started and has not ended.
pub(super) struct Transaction {
    functions: &'static Functions,
    handle: Handle,
    /// Of a `Box` that the conversation points to.
    answers: *mut Answers,
    last: c_int,
}

/// Why there is no transaction.
#[derive(Debug)]
pub(super) enum NoStart {
    /// There is no libpam, or one that is too old.
    Library(String),
    /// It says so.
    Code(Code),
}

impl Transaction {
    pub(super) fn start(subject: Subject) -> Result<Self, NoStart> {
        let functions = FUNCTIONS.as_ref();
        let functions = functions.map_err(|error| NoStart::Library(error.clone()))?;
        let Subject {
            service,
            folder,
            user,
            password,
        } = subject;
        let answers = Box::into_raw(Box::new(Answers {
            user: user.clone(),
            password,
        }));
        let conversation = Conversation {
            converse,
            answers: answers.cast(),
        };
        let mut handle = ptr::null_mut();
        let folder = folder.as_deref().map_or(ptr::null(), CStr::as_ptr);
        let (service, user) = (service.as_ptr(), user.as_ptr());
        // SAFETY: texts end with NUL and outlive the call, which copies them and the
        // conversation; what that points to is freed after the transaction.
        let code = unsafe {
            (functions.start)(
                service,
                user,
                &raw const conversation,
                folder,
                &raw mut handle,
            )
        };
        let transaction = Self {
            functions,
            handle,
            answers,
            last: code,
        };
        if code != number::SUCCESS || handle.is_null() {
            return Err(NoStart::Code(Code(code)));
        }
        Ok(transaction)
    }

    /// Tells the modules where the client is, what it came by, and not to wait after a
    /// wrong password: whoever is told of it does that.
    pub(super) fn describe(&mut self, host: &CStr, tty: &CStr) -> Result<(), Code> {
        self.set(number::ITEM_RHOST, host.as_ptr().cast())?;
        self.set(number::ITEM_TTY, tty.as_ptr().cast())?;
        let delay: extern "C" fn(c_int, c_uint, *mut c_void) = no_delay;
        self.set(number::ITEM_FAIL_DELAY, delay as *const c_void)
    }

    fn set(&mut self, item: c_int, value: *const c_void) -> Result<(), Code> {
        // SAFETY: the handle is one of a transaction that has not ended; the value is a
        // text that ends with NUL, which is copied, or for PAM_FAIL_DELAY a function.
        let code = unsafe { (self.functions.set_item)(self.handle, item, value) };
        self.note(code)
    }

    /// The auth stage: whether the password is right. BLOCKING.
    pub(super) fn authenticate(&mut self) -> Result<(), Code> {
        let flags = number::SILENT | number::DISALLOW_NULL;
        // SAFETY: the handle is one of a transaction that has not ended.
        let code = unsafe { (self.functions.authenticate)(self.handle, flags) };
        self.note(code)
    }

    /// The account stage: whether the user may log in. BLOCKING.
    pub(super) fn account(&mut self) -> Result<(), Code> {
        let flags = number::SILENT | number::DISALLOW_NULL;
        // SAFETY: the handle is one of a transaction that has not ended.
        let code = unsafe { (self.functions.account)(self.handle, flags) };
        self.note(code)
    }

    /// Who the modules say it is.
    pub(super) fn user(&mut self) -> Result<Vec<u8>, Code> {
        let mut text: *const c_void = ptr::null();
        let item = number::ITEM_USER;
        // SAFETY: the handle is one of a transaction that has not ended.
        let code = unsafe { (self.functions.get_item)(self.handle, item, &raw mut text) };
        self.note(code)?;
        if text.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: it is the handle's own text, which ends with NUL and stays until the
        // item is set again.
        let text = unsafe { CStr::from_ptr(text.cast()) };
        Ok(text.to_bytes().to_vec())
    }

    fn note(&mut self, code: c_int) -> Result<(), Code> {
        self.last = code;
        if code == number::SUCCESS {
            Ok(())
        } else {
            Err(Code(code))
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: the handle was made by pam_start and is not used again.
            let _ = unsafe { (self.functions.end)(self.handle, self.last) };
        }
        // SAFETY: it came from a Box, and the transaction that pointed to it has ended.
        drop(unsafe { Box::from_raw(self.answers) });
    }
}

/// `PAM_FAIL_DELAY`: no wait.
extern "C" fn no_delay(_: c_int, _: c_uint, _: *mut c_void) {}

/// Answers what modules ask (`pam_conv(3)`). It cannot panic.
extern "C" fn converse(
    count: c_int,
    messages: Messages,
    responses: *mut *mut Response,
    answers: *mut c_void,
) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    if !(1..=number::MOST_MESSAGES).contains(&count) {
        return number::CONV_ERR;
    }
    // SAFETY: it is what the transaction was started with, which has not ended.
    let answers = unsafe { &*answers.cast::<Answers>() };
    // SAFETY: PAM passes an array of so many pointers.
    let messages = unsafe { std::slice::from_raw_parts(messages, count) };
    // SAFETY: sizes are not zero; PAM frees it, or what is below does.
    let made = unsafe { libc::calloc(count, size_of::<Response>()) }.cast::<Response>();
    if made.is_null() {
        return number::BUF_ERR;
    }
    // SAFETY: so many were just allocated; all zero, each is a null text and a zero.
    let replies = unsafe { std::slice::from_raw_parts_mut(made, count) };
    for (message, reply) in messages.iter().zip(replies.iter_mut()) {
        // SAFETY: PAM passes pointers to messages.
        let style = unsafe { &**message }.style;
        let text = match style {
            number::PROMPT_ECHO_OFF => answers.password.as_ref().map(|text| text.as_ptr()),
            number::PROMPT_ECHO_ON => Some(answers.user.as_ptr()),
            number::ERROR_MSG | number::TEXT_INFO => continue,
            _ => None,
        };
        if let Some(text) = text {
            // SAFETY: a text that ends with NUL.
            reply.text = unsafe { libc::strdup(text) };
        }
        if reply.text.is_null() {
            take_back(replies);
            // SAFETY: it was allocated above, and nobody was told of it.
            unsafe { libc::free(made.cast()) };
            return number::CONV_ERR;
        }
    }
    // SAFETY: PAM passes where the answers go.
    unsafe { *responses = made };
    number::SUCCESS
}

/// Overwrites and frees the texts of answers that are not given.
fn take_back(replies: &mut [Response]) {
    for reply in replies {
        if reply.text.is_null() {
            continue;
        }
        // SAFETY: it is a text of strdup, which ends with NUL.
        let length = unsafe { libc::strlen(reply.text) };
        // SAFETY: so many octets belong to it.
        let octets = unsafe { std::slice::from_raw_parts_mut(reply.text.cast::<u8>(), length) };
        zeroize::Zeroize::zeroize(octets);
        // SAFETY: it was allocated by strdup and is not used again.
        unsafe { libc::free(reply.text.cast()) };
        reply.text = ptr::null_mut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(password: Option<&CStr>) -> Answers {
        Answers {
            user: c"joe".to_owned(),
            password: password.map(|text| Zeroizing::new(text.to_owned())),
        }
    }

    /// What is answered to prompts of these styles, as a module would see it.
    fn asked(styles: &[c_int], answers: &mut Answers) -> Result<Vec<Option<String>>, c_int> {
        let messages: Vec<Message> = styles
            .iter()
            .map(|style| Message {
                style: *style,
                text: c"prompt".as_ptr(),
            })
            .collect();
        let mut pointers: Vec<*const Message> = messages.iter().map(ptr::from_ref).collect();
        let count = c_int::try_from(styles.len()).expect("few");
        let mut replies = ptr::null_mut();
        let to = ptr::from_mut(answers).cast();
        let code = converse(count, pointers.as_mut_ptr(), &raw mut replies, to);
        if code != number::SUCCESS {
            assert!(replies.is_null());
            return Err(code);
        }
        // SAFETY: so many answers were given.
        let given = unsafe { std::slice::from_raw_parts_mut(replies, styles.len()) };
        let read = |reply: &Response| {
            assert_eq!(reply.code, 0);
            if reply.text.is_null() {
                return None;
            }
            // SAFETY: a text that ends with NUL.
            let text = unsafe { CStr::from_ptr(reply.text) };
            Some(text.to_str().expect("ASCII").to_owned())
        };
        let texts = given.iter().map(read).collect();
        take_back(given);
        // SAFETY: the conversation allocated it, and it is not used again.
        unsafe { libc::free(replies.cast()) };
        Ok(texts)
    }

    #[test]
    fn prompts_are_answered_and_words_are_not() {
        let mut known = answers(Some(c"two words"));
        let styles = [
            number::PROMPT_ECHO_OFF,
            number::TEXT_INFO,
            number::PROMPT_ECHO_ON,
            number::ERROR_MSG,
        ];
        let some = |text: &str| Some(text.to_owned());
        let expected = vec![some("two words"), None, some("joe"), None];
        assert_eq!(asked(&styles, &mut known), Ok(expected));
    }

    #[test]
    fn what_cannot_be_answered_is_an_error() {
        let mut unknown = answers(None);
        let prompts = [number::PROMPT_ECHO_ON, number::PROMPT_ECHO_OFF];
        assert_eq!(asked(&prompts, &mut unknown), Err(number::CONV_ERR));
        let mut known = answers(Some(c"x"));
        assert_eq!(asked(&[], &mut known), Err(number::CONV_ERR));
        assert_eq!(asked(&[99], &mut known), Err(number::CONV_ERR));
        let many = [number::TEXT_INFO; number::MOST_MESSAGES + 1];
        assert_eq!(asked(&many, &mut known), Err(number::CONV_ERR));
    }

    #[test]
    fn a_machine_without_the_library_says_what_to_install() {
        let error = open("libpam-that-is-absent.so.0").err().expect("absent");
        assert!(error.contains("install Linux-PAM"), "{error}");
    }
}
