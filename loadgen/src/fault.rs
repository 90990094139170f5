//! What can go wrong in a session, by kind.
//!
//! A kind is a stable name that scripts may depend on; the text beside it says
//! what was seen. A fault says whether the rest of the conversation can still
//! be understood: a wrong number leaves the framing intact, so the session goes
//! on and is counted as failed at its end; a lost framing ends it at once.

/// The kinds of fault, each with the stable name that reports use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The connection could not be made.
    Connect,
    /// No answer within the time-out.
    Timeout,
    /// The server closed the connection before the session was over.
    Closed,
    /// The connection broke with an error of the network.
    Reset,
    /// `-ERR` to the greeting, USER or PASS.
    LoginRefused,
    /// `-ERR` to any other command.
    Refused,
    /// A reply that begins with neither `+OK` nor `-ERR`, or whose numbers
    /// cannot be read.
    Nonsense,
    /// A reply line longer than RFC 2449 section 4 allows.
    LongReply,
    /// A line that ends in LF without CR.
    BareLf,
    /// Bytes that answer no command.
    ExtraData,
    /// STAT disagrees with what LIST or UIDL says.
    Stat,
    /// A row of LIST or UIDL that cannot be read or is out of order.
    Listing,
    /// A UIDL that is not 1 to 70 octets of 0x21 to 0x7E.
    UidlSyntax,
    /// Two messages with one UIDL.
    UidlDuplicate,
    /// A message whose octets are not what LIST announced.
    Octets,
    /// A line of a message that begins with a single dot.
    UnstuffedDot,
    /// A message that is none of those in the user's Maildir.
    Content,
    /// A UIDL became another while the message stayed, or a UIDL's message
    /// became another.
    UidlChanged,
    /// A message that nobody deleted is gone.
    Lost,
    /// A message that was deleted is back, or came twice.
    Doubled,
    /// TLS could not be agreed on, or broke.
    Tls,
    /// The server answered QUIT and kept the connection open.
    NoClose,
    /// The generator's own machine refused: descriptors, ports, memory.
    Local,
}

impl Kind {
    /// The name in reports and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::LoginRefused => "login-refused",
            Self::Refused => "refused",
            Self::Nonsense => "nonsense",
            Self::LongReply => "long-reply",
            Self::BareLf => "bare-lf",
            Self::ExtraData => "extra-data",
            Self::Stat => "stat",
            Self::Listing => "listing",
            Self::UidlSyntax => "uidl-syntax",
            Self::UidlDuplicate => "uidl-duplicate",
            Self::Octets => "octets",
            Self::UnstuffedDot => "unstuffed-dot",
            Self::Content => "content",
            Self::UidlChanged => "uidl-changed",
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Tls => "tls",
            Self::NoClose => "no-close",
            Self::Local => "local",
        }
    }
}

/// All kinds by name, for what is read back from a file.
pub fn kind_named(name: &str) -> Option<Kind> {
    use Kind::{
        BareLf, Closed, Connect, Content, Doubled, ExtraData, Listing, Local, LongReply, Lost,
        NoClose, Nonsense, Octets, Refused, Reset, Stat, Timeout, Tls, UidlChanged, UidlDuplicate,
        UidlSyntax, UnstuffedDot,
    };
    let all = [
        Connect,
        Timeout,
        Closed,
        Reset,
        Kind::LoginRefused,
        Refused,
        Nonsense,
        LongReply,
        BareLf,
        ExtraData,
        Stat,
        Listing,
        UidlSyntax,
        UidlDuplicate,
        Octets,
        UnstuffedDot,
        Content,
        UidlChanged,
        Lost,
        Doubled,
        Tls,
        NoClose,
        Local,
    ];
    all.into_iter().find(|kind| kind.name() == name)
}

/// One thing that went wrong, with what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Under what it is counted.
    pub kind: Kind,
    /// What was expected and what came.
    pub text: String,
}

impl Fault {
    /// A fault of this kind with this explanation.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

/// Bytes of the peer as one line of printable text, cut to a readable length.
pub fn readable(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let mut text = bytes[..bytes.len().min(SHOWN)].escape_ascii().to_string();
    if bytes.len() > SHOWN {
        text.push_str("...");
    }
    text
}
