//! One connection: it moves bytes between the socket and the session.
//!
//! The session decides, the connection does: it finds lines and feeds them,
//! sends what the session wrote, performs the action the session asks for and
//! reports what became of it. While an action is pending no line is fed.
//!
//! A connection that waits for its client owns no buffer: what was received has
//! been used up, what was to be sent has been sent, and the buffers are back in
//! the shard's pool. What goes on at greater length (a message, a login, a
//! handshake) is boxed, so that the many that wait are small.

mod buffers;
mod deliver;
mod link;
mod open;
mod report;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;

use crate::auth::{Broker, Credentials, Refusal};
use crate::config::TlsMode;
use crate::limits;
use crate::maildrop::{LockGuard, Maildrops, Snapshot, Template};
use crate::observe::{SessionIds, ShardWriter, Where};
use crate::proto::{LineSplitter, Output, Split};
use crate::ring::{Handle, Ring};
use crate::session::{Action, Channel, End, Outcome, Policy, Session, Step};
use crate::shard::deadlines::{Alarm, Deadlines};

pub use self::buffers::Buffers;
use self::link::{Arrival, Broken, Link};
use self::report::Report;

/// What all shards share; each part is sharded by key inside and touched once
/// or twice a session.
pub struct Services {
    /// Logins.
    pub broker: Broker,
    /// Maildrops: who has which open, and how they were last seen.
    pub maildrops: Maildrops,
    /// Where maildrops are.
    pub template: Template,
}

/// What the connections of one shard share.
pub struct Context {
    /// The shard's ring.
    pub ring: Ring,
    /// The shard's deadlines.
    pub deadlines: Rc<Deadlines>,
    /// What the operator decided.
    pub policy: Arc<Policy>,
    /// What all shards share.
    pub services: Arc<Services>,
    /// The certificate, where there is one.
    pub tls: Option<Arc<ServerConfig>>,
    /// The shard's counters.
    pub counters: ShardWriter,
    /// Names for sessions.
    pub names: RefCell<SessionIds>,
    /// The shard's buffers.
    pub buffers: Buffers,
}

/// A connection as its listener accepted it.
pub struct Accepted {
    /// The socket.
    pub socket: Handle,
    /// The client's address.
    pub remote: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// What the listener says of TLS.
    pub tls: TlsMode,
    /// The connection's deadline and its order to close.
    pub alarm: Alarm,
}

/// How a connection came to its end.
enum Finish {
    Ended(End),
    Broken(Broken),
}

/// Serves one connection to its end.
pub async fn serve(context: Rc<Context>, accepted: Accepted) {
    let begun = Instant::now();
    let Accepted {
        socket,
        remote,
        local,
        tls,
        alarm,
    } = accepted;
    context.counters.session_opened();
    let id = context.names.borrow_mut().assign();
    let at = Where {
        remote: remote.ip(),
        local: local.ip(),
        tls: false,
        id,
    };
    let mut link = Link::new(Rc::clone(&context), socket, alarm);
    let mut report = Report::new(at, begun);
    let mut early = Vec::new();
    if tls == TlsMode::Implicit {
        match handshake(&context, &mut link, begun + context.policy.login).await {
            Ok(clear) => {
                report.at.tls = true;
                early = clear;
            }
            Err(broken) => {
                report.stranger(&context, &Finish::Broken(broken));
                link.close(false).await;
                return;
            }
        }
    }
    let channel = match tls {
        TlsMode::None => Channel::Clear { stls: false },
        TlsMode::Starttls => Channel::Clear { stls: true },
        TlsMode::Implicit => Channel::Tls,
    };
    let mut out = Output::new(context.buffers.lend());
    let session = Session::new(Arc::clone(&context.policy), channel, begun, &mut out);
    let mut connection = Connection {
        context,
        link,
        session,
        splitter: LineSplitter::new(),
        input: early,
        taken: 0,
        out,
        maildrop: None,
        report,
    };
    let finish = match connection.converse().await {
        Ok(end) => Finish::Ended(end),
        Err(broken) => Finish::Broken(broken),
    };
    connection.end(&finish).await;
}

async fn handshake(
    context: &Context,
    link: &mut Link,
    deadline: Instant,
) -> Result<Vec<u8>, Broken> {
    let result = Box::pin(link.secure(deadline)).await;
    report::handshake(&context.counters, &result);
    result
}

/// A maildrop that a session holds.
struct Maildrop {
    snapshot: Arc<Snapshot>,
    /// Frees the maildrop however the session ends.
    _lock: LockGuard,
}

struct Connection {
    context: Rc<Context>,
    link: Link,
    session: Session,
    splitter: LineSplitter,
    /// What was received, of which `taken` octets are done with. Owns nothing
    /// while the connection waits.
    input: Vec<u8>,
    taken: usize,
    /// What is to be sent. Owns nothing while the connection waits.
    out: Output,
    maildrop: Option<Maildrop>,
    report: Report,
}

impl Connection {
    /// Talks with the client until one side ends it.
    async fn converse(&mut self) -> Result<End, Broken> {
        let mut step = Step::Continue;
        loop {
            step = match step {
                Step::Continue => self.next_line().await?,
                Step::Flush => {
                    self.flush().await?;
                    self.make_room();
                    self.session.handle_flushed(Instant::now(), &mut self.out)
                }
                Step::Perform(action) => {
                    let outcome = self.perform(action).await?;
                    if self.out.room() < limits::REPLY_ROOM {
                        self.flush().await?;
                        self.make_room();
                    }
                    self.session
                        .handle_outcome(outcome, Instant::now(), &mut self.out)
                }
                Step::Close(end) => {
                    self.report.command_ends(&self.context.counters);
                    // Free before the client hears that the session is over: it
                    // may come back at once.
                    self.maildrop = None;
                    self.flush().await?;
                    return Ok(end);
                }
            };
        }
    }

    /// Feeds the next line, waiting for it where there is none.
    async fn next_line(&mut self) -> Result<Step, Broken> {
        self.report.command_ends(&self.context.counters);
        if self.out.room() < limits::REPLY_ROOM {
            self.flush().await?;
        }
        self.make_room();
        let mut input = &self.input[self.taken..];
        let before = input.len();
        let split = self.splitter.next(&mut input);
        self.taken += before - input.len();
        match split {
            Split::Line(line) => {
                let now = Instant::now();
                self.report.command_begins(line, now);
                Ok(self.session.handle_line(line, now, &mut self.out))
            }
            Split::TooLong => {
                self.context.counters.command_error();
                let now = Instant::now();
                Ok(self.session.handle_oversized_line(now, &mut self.out))
            }
            Split::NeedMore => {
                self.input = Vec::new();
                self.taken = 0;
                self.flush().await?;
                match self.link.wait(self.session.deadline()).await? {
                    Arrival::Bytes(bytes) => {
                        self.input = bytes;
                        Ok(Step::Continue)
                    }
                    Arrival::Deadline => Ok(self.session.handle_timeout(Instant::now())),
                }
            }
        }
    }

    /// Sends what there is and gives the buffer back.
    async fn flush(&mut self) -> Result<(), Broken> {
        let mut buffer = std::mem::replace(&mut self.out, Output::new(Vec::new())).into_buffer();
        if !buffer.is_empty() {
            buffer = self.link.send(buffer).await?;
        }
        self.context.buffers.take_back(buffer);
        Ok(())
    }

    /// Borrows a buffer for replies where there is none.
    fn make_room(&mut self) {
        if self.out.room() < limits::REPLY_ROOM {
            debug_assert!(self.out.is_empty(), "flushed before");
            self.out = Output::new(self.context.buffers.lend());
        }
    }

    async fn perform(&mut self, action: Action) -> Result<Outcome, Broken> {
        match action {
            Action::Authenticate(credentials) => Ok(self.authenticate(credentials).await),
            Action::OpenMaildrop(account) => Ok(Box::pin(self.open(account)).await),
            Action::Send {
                message,
                body_lines,
            } => Box::pin(self.deliver(message, body_lines)).await,
            Action::Commit(deletions) => Ok(Box::pin(self.commit(deletions)).await),
            Action::Pause(delay) => {
                self.flush().await?;
                self.link.pause(Instant::now() + delay).await?;
                Ok(Outcome::Paused)
            }
            Action::StartTls => {
                if self.taken < self.input.len() {
                    // Not one command that came in clear may be taken for one
                    // that came through TLS (CVE-2011-0411 and its many heirs).
                    return Err(Broken::Injection);
                }
                self.flush().await?;
                self.splitter = LineSplitter::new();
                let deadline = self.session.deadline();
                self.input = handshake(&self.context, &mut self.link, deadline).await?;
                self.taken = 0;
                self.report.at.tls = true;
                Ok(Outcome::TlsStarted)
            }
        }
    }

    async fn authenticate(&mut self, credentials: Credentials) -> Outcome {
        let begun = Instant::now();
        let user = credentials.user.clone();
        let from = self.report.at.remote;
        let verdict = match self.context.services.broker.authenticate(credentials, from) {
            Ok(pending) => pending.await,
            Err(_full) => Err(Refusal::Unavailable),
        };
        self.report
            .login(&self.context.counters, &user, &verdict, begun);
        Outcome::Authenticated(verdict)
    }

    /// Closes the connection and says how it was.
    async fn end(mut self, finish: &Finish) {
        self.maildrop = None;
        self.report
            .ends(&self.context, &self.session.summary(), finish);
        let buffer = std::mem::replace(&mut self.out, Output::new(Vec::new())).into_buffer();
        self.context.buffers.take_back(buffer);
        self.link.close(matches!(finish, Finish::Ended(_))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl FnOnce(Rc<Context>, Accepted) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_is_small() {
        let whole = size(serve);
        println!(
            "{whole} connection {} session {} link {} report {}",
            size_of::<Connection>(),
            size_of::<Session>(),
            size_of::<Link>(),
            size_of::<Report>()
        );
        assert!(whole <= 1024, "{whole} octets");
    }
}
