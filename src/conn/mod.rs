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

mod broken;
mod buffers;
mod deliver;
mod handshakes;
mod link;
mod login;
mod message;
mod open;
mod protection;
mod report;
mod rules;
mod takeover;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use zeroize::Zeroizing;

use crate::auth::throttle::Throttle;
use crate::auth::{Broker, Stamp};
use crate::config::TlsMode;
use crate::limits;
use crate::maildrop::{CommitReport, Departure, LockGuard, Maildrops, Snapshot, Template};
use crate::observe::{SessionIds, ShardWriter, Sparing, Where};
use crate::proto::{LineSplitter, MessageNumber, Output, Split};
use crate::ring::{Handle, Place, Ring};
use crate::session::{Action, Channel, End, Outcome, Session, Step};
use crate::shard::admission::{Admission, Seat, Visits};
use crate::shard::deadlines::{Alarm, Deadlines};
use crate::tls;

use self::broken::{Broken, HandshakeFault};
pub use self::buffers::Buffers;
use self::buffers::Purpose;
pub use self::deliver::Thresholds;
pub use self::handshakes::Handshakes;
use self::link::{Approach, Arrival, Farewell, Link};
use self::login::Seats;
use self::report::Report;
pub use self::rules::{CurrentRules, Rules};
pub use self::takeover::Takeover;

/// What all shards share; each part is sharded by key inside and touched once
/// or twice a session.
pub struct Services {
    /// Logins.
    pub broker: Broker,
    /// Maildrops: who has which open, and how they were last seen.
    pub maildrops: Maildrops,
    /// Where maildrops are.
    pub template: Template,
    /// Log lines of handshakes that failed.
    pub strangers: Sparing,
    /// Where their indexes are, unless beside them.
    pub index: Option<Template>,
    /// Who has how many sessions.
    pub admission: Admission,
    /// When users came.
    pub visits: Visits,
    /// Who failed to log in.
    pub throttle: Throttle,
    /// How maildrops are taken over from silent clients, where they may be.
    pub takeover: Option<Takeover>,
}

/// What the connections of one shard share.
pub struct Context {
    /// Which shard it is, from 0.
    pub shard: usize,
    /// The shard's ring.
    pub ring: Ring,
    /// The shard's deadlines.
    pub deadlines: Rc<Deadlines>,
    /// What the operator decided.
    pub rules: Arc<CurrentRules>,
    /// How long a client may take to read one buffer.
    pub write_stall: Duration,
    /// What all shards share.
    pub services: Arc<Services>,
    /// What TLS is made of, where there is any.
    pub tls: Option<tls::Current>,
    /// TLS handshakes under way.
    pub handshakes: Rc<Handshakes>,
    /// The shard's counters.
    pub counters: ShardWriter,
    /// Names for sessions.
    pub names: RefCell<SessionIds>,
    /// The shard's buffers.
    pub buffers: Buffers,
    /// How messages are taken from their files.
    pub thresholds: Thresholds,
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
    /// What it counts for, where connections of an address are counted.
    pub seat: Option<Seat>,
}

/// An action under way.
type Performing<'a> = Pin<Box<dyn Future<Output = Result<Outcome, Broken>> + 'a>>;

/// How a connection came to its end.
enum Finish {
    Ended(End),
    Broken(Broken),
}

impl Finish {
    fn farewell(&self) -> Farewell {
        match self {
            // Such a client is likely to send on, and a close beneath what arrives
            // would take the last reply from it.
            Finish::Ended(End::TooManyBadCommands | End::TooManyAuthFailures) => {
                Farewell::Lingering
            }
            Finish::Ended(_) | Finish::Broken(Broken::Closed | Broken::Shutdown) => Farewell::Said,
            Finish::Broken(Broken::Handshake(unsecured)) => match unsecured.why {
                HandshakeFault::NotTls => Farewell::Explained,
                HandshakeFault::Lost(_) => Farewell::None,
                _ => Farewell::Lingering,
            },
            Finish::Broken(Broken::Tls(_) | Broken::WrongProtocol) => Farewell::Lingering,
            // A message that was cut short must not look as if it were whole.
            Finish::Broken(
                Broken::Lost(_) | Broken::Stalled | Broken::Displaced | Broken::Message(_),
            ) => Farewell::None,
        }
    }
}

/// Serves one connection to its end. `place` is dropped when it has ended.
///
/// The future is what an idle session costs, and there are tens of thousands of
/// them: it is made of the connection itself, not of a function's arguments,
/// which a future would keep twice.
pub fn serve<P: 'static>(
    context: Rc<Context>,
    accepted: Accepted,
    place: P,
) -> impl Future<Output = ()> + use<P> {
    let mut connection = Connection::new(context, accepted);
    async move {
        let finish = connection.run().await;
        connection.end(&finish);
        connection.link.say_goodbye(finish.farewell()).await;
        connection.link.close();
        drop(place);
    }
}

/// A maildrop that a session holds.
struct Maildrop {
    snapshot: Arc<Snapshot>,
    /// Frees the maildrop however the session ends.
    lock: LockGuard,
    /// Messages that were fetched, where that is to be told when the session ends.
    #[expect(clippy::box_collection, reason = "most sessions have none")]
    retrieved: Option<Box<BTreeSet<MessageNumber>>>,
}

impl Maildrop {
    /// Does what the end of a session does, and lets go. BLOCKING where
    /// [`may_wait`](Self::may_wait).
    fn let_go(self, maildrops: &Maildrops, departure: Departure<'_>) -> CommitReport {
        let retrieved = self.retrieved.unwrap_or_default();
        maildrops.update(&self.snapshot, &retrieved, departure, SystemTime::now())
    }

    /// Whom work on it waits for.
    fn place(&self) -> Place {
        open::place(self.snapshot.is_local())
    }

    fn may_wait(&self, maildrops: &Maildrops, departure: Departure<'_>) -> bool {
        let due = || {
            let quits = matches!(departure, Departure::Quit(_));
            quits && maildrops.is_due(&self.snapshot, SystemTime::now())
        };
        self.lock.may_wait() || self.retrieved.is_some() || due()
    }
}

struct Connection {
    context: Rc<Context>,
    link: Link,
    session: Session,
    splitter: LineSplitter,
    /// What was received, of which `taken` octets are done with: passwords among
    /// others. Owns nothing while the connection waits.
    input: Zeroizing<Vec<u8>>,
    taken: u32,
    /// What is to be sent. Owns nothing while the connection waits.
    out: Output,
    maildrop: Option<Maildrop>,
    /// What the session counts for, where anything is counted.
    seats: Option<Box<Seats>>,
    report: Report,
    /// The handshake comes before the greeting.
    tls_first: bool,
}

impl Connection {
    fn new(context: Rc<Context>, accepted: Accepted) -> Connection {
        let begun = Instant::now();
        let Accepted {
            socket,
            remote,
            local,
            tls,
            alarm,
            seat,
        } = accepted;
        context.counters.session_opened();
        let at = Where {
            remote: remote.ip(),
            local: local.ip(),
            tls: false,
            id: context.names.borrow_mut().assign(),
        };
        let channel = match tls {
            TlsMode::None => Channel::Clear { stls: false },
            TlsMode::Starttls => Channel::Clear { stls: true },
            TlsMode::Implicit => Channel::Tls,
        };
        let mut out = Output::new(context.buffers.lend(Purpose::Reply));
        let policy = Arc::clone(context.rules.get().policy_for(at.remote));
        let stamp = policy.apop.then(Stamp::random);
        let session = Session::stamped(policy, channel, stamp, begun, &mut out);
        Connection {
            link: Link::new(Rc::clone(&context), socket, alarm),
            report: Report::new(at, begun),
            context,
            session,
            splitter: LineSplitter::new(),
            input: Zeroizing::default(),
            taken: 0,
            out,
            maildrop: None,
            seats: seat.map(|seat| Box::new(Seats::of_address(seat))),
            tls_first: tls == TlsMode::Implicit,
        }
    }

    async fn run(&mut self) -> Finish {
        if self.tls_first {
            self.shrink();
        }
        if self.tls_first
            && let Err(broken) = Box::pin(self.handshake(Approach::Implicit)).await
        {
            return Finish::Broken(broken);
        }
        match self.converse().await {
            Ok(end) => Finish::Ended(end),
            Err(broken) => Finish::Broken(broken),
        }
    }

    /// Takes the connection into TLS. What the session knew of lines is gone.
    async fn handshake(&mut self, approach: Approach) -> Result<(), Broken> {
        let result = if (self.taken as usize) < self.input.len() {
            // Not one command that came in clear may be taken for one that came
            // through TLS (CVE-2011-0411 and its many heirs).
            Err(HandshakeFault::Injected.into())
        } else {
            self.link.secure(approach, self.session.deadline()).await
        };
        report::handshake(&self.context.counters, &result);
        let done = result?;
        if let Some(client) = done.client {
            self.session.vouch_for(client);
        }
        self.session.bind(done.bindings);
        self.input = done.early.into();
        self.taken = 0;
        self.splitter = LineSplitter::new();
        self.report.at.tls = true;
        Ok(())
    }

    /// Talks with the client until one side ends it.
    async fn converse(&mut self) -> Result<End, Broken> {
        let mut step = Step::Continue;
        loop {
            step = match step {
                Step::Continue => self.next_line().await?,
                Step::Flush => {
                    self.flush().await?;
                    // A listing that did not fit into a reply is a long one.
                    self.make_room(Purpose::Window);
                    self.session.handle_flushed(Instant::now(), &mut self.out)
                }
                Step::Perform(action) => {
                    if !matches!(action, Action::Send { .. }) {
                        self.shrink();
                    }
                    let outcome = self.perform_unless_closing(action).await?;
                    if self.out.as_bytes().len() > limits::REPLY_ROOM
                        && self.out.room() < limits::REPLY_ROOM
                    {
                        self.flush().await?;
                    }
                    self.make_room(Purpose::Reply);
                    self.session
                        .handle_outcome(outcome, Instant::now(), &mut self.out)
                }
                Step::Close(end) => {
                    self.report.command_ends(&self.context.counters);
                    // Free before the client hears that the session is over: it
                    // may come back at once.
                    let quits = matches!(end, End::Quit | End::NotAllRemoved);
                    self.let_go_of_maildrop(quits).await;
                    let taken = self.link.begin_last(self.out.as_bytes())?;
                    self.out.buffer_mut().drain(..taken);
                    self.flush().await?;
                    return Ok(end);
                }
            };
        }
    }

    /// Frees the maildrop, by way of the pool where that may wait.
    async fn let_go_of_maildrop(&mut self, quits: bool) {
        let Some(maildrop) = self.maildrop.take() else {
            return;
        };
        let departure = if quits {
            Departure::Quit(&[])
        } else {
            Departure::Lost
        };
        let maildrops = &self.context.services.maildrops;
        if maildrop.may_wait(maildrops, departure) {
            let maildrops = maildrops.clone();
            let place = maildrop.place();
            let work = move || maildrop.let_go(&maildrops, departure);
            // What no client asked for is told to the operator alone.
            let _ = Box::pin(self.context.ring.blocking(place, work)).await;
        }
    }

    /// Feeds the next line, waiting for it where there is none.
    async fn next_line(&mut self) -> Result<Step, Broken> {
        // An AUTH with its responses is one command.
        if !self.session.expects_response() {
            self.report.command_ends(&self.context.counters);
            self.withdraw();
        }
        if self.out.room() < limits::REPLY_ROOM {
            self.flush().await?;
        }
        self.make_room(Purpose::Reply);
        let mut input = &self.input[self.taken as usize..];
        let before = input.len();
        let limit = self.session.line_limit();
        let split = self.splitter.next_within(&mut input, limit);
        self.taken += u32::try_from(before - input.len()).expect("of one piece");
        match split {
            Split::Line(line) => {
                let now = Instant::now();
                if self.session.expects_response() {
                    self.report.command_goes_on(now);
                } else {
                    self.report.command_begins(line, now);
                }
                Ok(self.session.handle_line(line, now, &mut self.out))
            }
            Split::TooLong => {
                self.context.counters.command_error();
                let now = Instant::now();
                Ok(self.session.handle_oversized_line(now, &mut self.out))
            }
            Split::NeedMore => {
                self.input = Zeroizing::default();
                self.taken = 0;
                self.flush().await?;
                match self.link.wait(self.session.deadline()).await? {
                    Arrival::Bytes(bytes) => {
                        // Within a line any octet may come.
                        if !self.splitter.is_within_line() && self.link.is_wrong_protocol(&bytes) {
                            return Err(Broken::WrongProtocol);
                        }
                        self.input = bytes.into();
                        Ok(Step::Continue)
                    }
                    Arrival::Deadline => Ok(self.session.handle_timeout(Instant::now())),
                }
            }
        }
    }

    /// Sends what there is and gives the buffer back. What waits for the socket
    /// is boxed: it is as large as all of an idle connection's future beside it.
    async fn flush(&mut self) -> Result<(), Broken> {
        let mut buffer = self.take_output();
        if !buffer.is_empty() || self.link.is_behind() {
            buffer = Box::pin(self.link.send(buffer)).await?;
        }
        self.context.buffers.take_back(buffer);
        Ok(())
    }

    /// Keeps so much of the output and gives the buffer back.
    fn keep(&mut self, part: Range<usize>) {
        let kept = self.out.as_bytes()[part].to_vec();
        let buffer = self.take_output();
        self.out = Output::new(kept);
        self.context.buffers.take_back(buffer);
    }

    /// What stands in the output, which owns nothing then.
    fn take_output(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.out, Output::new(Vec::new())).into_buffer()
    }

    /// Has room for a reply in the output, and in it what was there before.
    fn make_room(&mut self, purpose: Purpose) {
        if self.out.room() < limits::REPLY_ROOM {
            self.replace_output(purpose);
        }
    }

    /// Moves the output into another buffer.
    fn replace_output(&mut self, purpose: Purpose) {
        let mut buffer = self.context.buffers.lend(purpose);
        buffer.extend_from_slice(self.out.as_bytes());
        let before = std::mem::replace(&mut self.out, Output::new(buffer));
        self.context.buffers.take_back(before.into_buffer());
    }

    /// Gives the buffer back and keeps but the replies in it: an action may take
    /// long, and as many sessions as there are may wait for one at a time.
    fn shrink(&mut self) {
        self.keep(0..self.out.as_bytes().len());
    }

    /// Does what the session asks for, unless the server closes first. What is to
    /// be removed is removed: the client was told that it would be.
    async fn perform_unless_closing(&mut self, action: Action) -> Result<Outcome, Broken> {
        let patient = matches!(action, Action::Commit(_));
        let watch = Rc::clone(self.link.watch());
        let mut performing = self.perform(action);
        poll_fn(|context| {
            if let Poll::Ready(outcome) = performing.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            match watch.poll_shutdown(context) {
                Poll::Ready(()) if !patient => Poll::Ready(Err(Broken::Shutdown)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Does what the session asks for. Each action is boxed by itself, and so no
    /// larger than it is: ten thousand clients that log in at the same time wait
    /// in as many of the smallest.
    fn perform(&mut self, action: Action) -> Performing<'_> {
        match action {
            Action::Authenticate(credentials) => Box::pin(self.authenticate(*credentials)),
            Action::FindKeys(question) => Box::pin(self.find_keys(*question)),
            Action::Note(noted) => Box::pin(ready(Ok(self.conclude(&noted.0, noted.1)))),
            Action::OpenMaildrop(account) => Box::pin(self.open(*account)),
            Action::Send {
                message,
                body_lines,
            } => Box::pin(self.deliver(message, body_lines)),
            Action::Commit(deletions) => Box::pin(self.commit(deletions)),
            Action::Pause(delay) => Box::pin(self.pause(delay)),
            Action::StartTls => Box::pin(self.start_tls()),
        }
    }

    async fn pause(&mut self, delay: Duration) -> Result<Outcome, Broken> {
        self.flush().await?;
        self.link.pause(Instant::now() + delay).await?;
        Ok(Outcome::Paused)
    }

    async fn start_tls(&mut self) -> Result<Outcome, Broken> {
        if self.taken as usize == self.input.len() {
            self.flush().await?;
        }
        self.handshake(Approach::Stls).await?;
        Ok(Outcome::TlsStarted)
    }

    /// Lets go of everything but the link, and says how the session was.
    fn end(&mut self, finish: &Finish) {
        let maildrops = &self.context.services.maildrops;
        if let Some(maildrop) = self.maildrop.take()
            && maildrop.may_wait(maildrops, Departure::Lost)
        {
            // The client is not there any more: nobody waits for this.
            let (maildrops, place) = (maildrops.clone(), maildrop.place());
            self.context.ring.detached(place, move || {
                // Nothing was marked that could have failed.
                let _ = maildrop.let_go(&maildrops, Departure::Lost);
            });
        }
        self.leaves();
        self.report
            .ends(&self.context, &self.session.summary(), finish);
        let buffer = self.take_output();
        self.context.buffers.take_back(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl FnOnce(Rc<Context>, Accepted, Rc<()>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_is_small() {
        // The connection itself is about 470 octets, 168 of them the session; the
        // rest is what the future keeps between two steps. The bound keeps task
        // and future within the allocator's class of 896 octets.
        let whole = size(serve);
        assert!(whole <= 832, "{whole} octets");
    }

    fn delivery<F: Future>(_: impl FnOnce(&'static mut Connection) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_delivery_that_waits_for_its_client_is_small() {
        let number = MessageNumber::from_index(0).expect("the first");
        let whole = delivery(|connection| connection.deliver(number, None));
        assert!(whole <= 1280, "{whole} octets");
    }
}
