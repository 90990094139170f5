//! An answer of the broker's, seen from both ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64ct::{Base64, Encoding as _};
use futures_channel::oneshot;

use crate::auth::cache::{Derived, Fingerprint};
use crate::auth::{Account, Refusal, ScramAnswer};

/// The answer to a login, once there is one. Dropping it withdraws the request.
#[derive(Debug)]
#[must_use = "dropping it withdraws the request"]
pub struct Pending<T = Account>(pub(super) Wait<T>);

#[derive(Debug)]
pub(super) enum Wait<T> {
    /// Taken when it has been told.
    Known(Option<Result<T, Refusal>>),
    Queued(oneshot::Receiver<Result<T, Refusal>>),
}

/// Where the answer goes.
pub(super) enum Reply {
    /// To a login.
    Login {
        fingerprint: Fingerprint,
        to: oneshot::Sender<Result<Account, Refusal>>,
    },
    /// To an exchange of SCRAM.
    Keys {
        /// What they are remembered by.
        of: Fingerprint,
        /// What they are derived of, once that is known, if they are.
        derived: Option<Derived>,
        to: oneshot::Sender<Result<ScramAnswer, Refusal>>,
    },
}

impl Reply {
    pub(super) fn is_canceled(&self) -> bool {
        match self {
            Self::Login { to, .. } => to.is_canceled(),
            Self::Keys { to, .. } => to.is_canceled(),
        }
    }

    /// The client may have left.
    pub(super) fn refuse(self, refusal: Refusal) {
        match self {
            Self::Login { to, .. } => drop(to.send(Err(refusal))),
            Self::Keys { to, .. } => drop(to.send(Err(refusal))),
        }
    }
}

impl<T: Unpin> Future for Pending<T> {
    type Output = Result<T, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Wait::Known(answer) => Poll::Ready(answer.take().expect("told once")),
            Wait::Queued(answer) => {
                let answer = Pin::new(answer).poll(cx);
                // A request that was dropped unanswered: the broker has stopped.
                answer.map(|answer| answer.unwrap_or(Err(Refusal::Unavailable)))
            }
        }
    }
}

/// A nonce of 144 random bits, printable.
pub(super) fn nonce() -> String {
    let mut random = [0; 18];
    getrandom::fill(&mut random).expect("the kernel has randomness (getrandom(2))");
    Base64::encode_string(&random)
}
