//! The administrator's HTTP listener: `/metrics` and `/healthz`.
//!
//! It runs on a thread of its own with a runtime of its own, so that a scrape,
//! however slow, costs the shards no more than the reads of their counters.
//! Connections and request heads are bounded, and nothing a client sends is
//! stored: there is no body that popcore would read.

mod answer;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::config::AdminOptions;
use crate::limits;

/// How long the listener rests after it failed to accept, so that a lack of
/// descriptors does not make it spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Whether sessions are welcome, for `/healthz`.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// From now on `/healthz` says that the server is draining, so that a load
    /// balancer sends no more clients.
    pub fn drain(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn draining(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the listener shows.
#[derive(Clone)]
pub struct Sources {
    /// Writes the text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The state for `/healthz`.
    pub health: Health,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// Why the listener could not be started.
#[derive(Debug)]
pub enum AdminError {
    /// The address cannot be listened on.
    Bind(SocketAddr, io::Error),
    /// The thread or its runtime cannot be made.
    Start(io::Error),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, error) => write!(
                f,
                "admin.listen: {address} cannot be listened on: {error}; give it a free address \
                 of this host, or remove [admin]"
            ),
            Self::Start(error) => write!(
                f,
                "the admin thread cannot be started: {error}; raise the limits on threads and \
                 open files, or remove [admin]"
            ),
        }
    }
}

impl std::error::Error for AdminError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(_, error) | Self::Start(error) => Some(error),
        }
    }
}

/// The running listener. Dropping it stops it.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl AdminHandle {
    /// The address it listens on, with the port the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked; metrics were not served since");
        }
    }
}

/// Binds the address and serves it from a new thread.
pub fn start(options: AdminOptions, sources: Sources) -> Result<AdminHandle, AdminError> {
    let bind = |error| AdminError::Bind(options.listen, error);
    let listener = TcpListener::bind(options.listen).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(AdminError::Start)?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(AdminError::Start)?
    };
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, sources, &stopped)))
        .map_err(AdminError::Start)?;
    Ok(AdminHandle {
        address,
        stop,
        thread: Some(thread),
    })
}

/// Accepts until told to stop; connections still open then are closed.
async fn serve(listener: tokio::net::TcpListener, sources: Sources, stop: &Notify) {
    let slots = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            // A connection beyond the bound waits in the kernel's backlog.
            let slot = Arc::clone(&slots).acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let sources = sources.clone();
                    connections.spawn(async move {
                        converse(stream, sources).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener cannot accept; it rests a moment");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = stop.notified() => {}
        () = accept => {}
    }
    connections.shutdown().await;
}

/// Serves one connection until it ends. How it ends is the client's business.
async fn converse(stream: TcpStream, sources: Sources) {
    let service = service_fn(move |request| {
        let answer = answer::answer(&request, &sources);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEADER)
        .max_buf_size(limits::ADMIN_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an admin connection failed");
    }
}

#[cfg(test)]
mod tests;
