//! popcore's sessions on glommio's own sockets, for comparison.
//!
//! The session machine, the users, the cache of logins and the cache of listings
//! are popcore's; socket, reads, writes and waits are glommio's. There is no log, no
//! counter, no deadline and no drain, so what it costs is less than a whole server
//! on these sockets would. It speaks what the profiles poll and login need: a
//! session that asks for a message is a fault of the bench.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use popcore::auth::{Broker, DirectoryKind, DirectoryOptions, Options};
use popcore::limits;
use popcore::maildrop::{Location, LockGuard, Maildrops, Opened};
use popcore::proto::{LineSplitter, Output, Split};
use popcore::session::{Action, Channel, Outcome, Policy, Session, Step};

struct Shared {
    broker: Broker,
    maildrops: Maildrops,
    policy: Arc<Policy>,
    mail: PathBuf,
    from: SocketAddr,
}

/// Serves the users and mailboxes of `folder` on `cpu`; the address is printed.
pub(crate) fn serve(folder: &Path, cpu: usize) -> io::Result<()> {
    let options = Options {
        directories: vec![DirectoryOptions {
            kind: DirectoryKind::PasswdFile {
                path: folder.join("users"),
            },
        }],
        masters: Vec::new(),
        scram_secret: None,
        oauth: None,
        desks: vec![Some(cpu)],
        threads: NonZeroUsize::MIN,
    };
    let broker = Broker::start(&options).map_err(io::Error::other)?;
    let mail = folder.join("mail");
    let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu));
    let running = executor.spawn(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        println!("{address}");
        let shared = Rc::new(Shared {
            broker,
            maildrops: Maildrops::new(256 << 20),
            policy: Arc::new(Policy {
                hostname: "bench.example.net".into(),
                plaintext_without_tls: true,
                names: popcore::auth::NameRules::default(),
                mechanisms: popcore::sasl::Mechanism::ALL.into_iter().collect(),
                apop: false,
                tokens: popcore::sasl::TokenTerms::default(),
                idle: Duration::from_mins(10),
                login: Duration::from_mins(1),
                failure_delay: Duration::ZERO,
                login_delay: None,
                retention: None,
            }),
            mail,
            from: address,
        });
        loop {
            let stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            let shared = Rc::clone(&shared);
            // A client that is gone has ended its session.
            glommio::spawn_local(async move { drop(converse(&shared, stream).await) }).detach();
        }
    });
    let running = running.map_err(|error| io::Error::other(error.to_string()))?;
    let served = running.join();
    served.map_err(|error| io::Error::other(error.to_string()))?
}

async fn converse(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let mut out = Output::new(Vec::with_capacity(limits::REPLY_BUFFER));
    let channel = Channel::Clear { stls: false };
    let mut session = Session::new(
        Arc::clone(&shared.policy),
        channel,
        Instant::now(),
        &mut out,
    );
    let mut splitter = LineSplitter::new();
    let (mut input, mut taken) = (Vec::new(), 0);
    let mut maildrop = None;
    let mut step = Step::Continue;
    loop {
        step = match step {
            Step::Continue => {
                let mut left = &input[taken..];
                let before = left.len();
                let split = splitter.next(&mut left);
                taken += before - left.len();
                match split {
                    Split::Line(line) => session.handle_line(line, Instant::now(), &mut out),
                    Split::TooLong => session.handle_oversized_line(Instant::now(), &mut out),
                    Split::NeedMore => {
                        flush(&mut stream, &mut out).await?;
                        input.resize(limits::PROVIDED_BUFFER, 0);
                        let count = stream.read(&mut input).await?;
                        input.truncate(count);
                        taken = 0;
                        if count == 0 {
                            return Ok(());
                        }
                        Step::Continue
                    }
                }
            }
            Step::Flush => {
                flush(&mut stream, &mut out).await?;
                session.handle_flushed(Instant::now(), &mut out)
            }
            Step::Perform(action) => {
                let outcome = perform(shared, action, &mut maildrop).await;
                session.handle_outcome(outcome, Instant::now(), &mut out)
            }
            Step::Close(_) => {
                drop(maildrop);
                flush(&mut stream, &mut out).await?;
                return Ok(());
            }
        };
    }
}

async fn flush(stream: &mut TcpStream, out: &mut Output) -> io::Result<()> {
    if !out.is_empty() {
        stream.write_all(out.as_bytes()).await?;
        out.buffer_mut().clear();
    }
    Ok(())
}

async fn perform(shared: &Shared, action: Action, held: &mut Option<LockGuard>) -> Outcome {
    match action {
        Action::Authenticate(credentials) => {
            let candidate = shared.broker.recall(*credentials, shared.from.ip());
            let pending = shared.broker.authenticate(0, candidate);
            Outcome::Authenticated(pending.expect("room in the queue").await)
        }
        Action::OpenMaildrop(account) => {
            let path = shared.mail.join(account.user.to_string());
            let opened = match shared.maildrops.open_unchanged(&path) {
                Ok(Some(opened)) => Ok(opened),
                Ok(None) => {
                    let maildrops = shared.maildrops.clone();
                    let open = move || maildrops.open(&Location::beside(path));
                    glommio::executor().spawn_blocking(open).await
                }
                Err(in_use) => Err(in_use.into()),
            };
            Outcome::MaildropOpened(opened.map(|Opened { snapshot, lock }| {
                *held = Some(lock);
                snapshot
            }))
        }
        other => panic!("polls and logins do not ask for this: {other:?}"),
    }
}
