//! A maildrop that is opened, or not, for a user whose credentials were right.

use std::sync::Arc;
use std::time::Instant;

use crate::auth::UserName;
use crate::maildrop::{OpenError, Snapshot};
use crate::proto::Output;
use crate::proto::reply::{self, Code, Line};

use super::authorization::Authorization;
use super::transaction::Transaction;
use super::{State, Step, TurnedAway, whole_seconds};

pub(super) fn turned_away(user: UserName, why: TurnedAway, out: &mut Output) -> (State, Step) {
    match why {
        TurnedAway::TooSoon(left) => Line::err(out, Some(Code::LoginDelay))
            .text("the next login may be in ")
            .number(whole_seconds(left))
            .text(" seconds")
            .end(),
        TurnedAway::TooMany => {
            reply::err(out, Some(Code::InUse), "too many sessions of this user");
        }
    }
    (Authorization::after(user).into(), Step::Continue)
}

pub(super) fn opened(
    user: UserName,
    result: Result<Arc<Snapshot>, OpenError>,
    now: Instant,
    out: &mut Output,
) -> (State, Step) {
    let (code, text) = match result {
        Ok(snapshot) => {
            reply::ok(out, "logged in");
            return (Transaction::new(user, snapshot).into(), Step::Continue);
        }
        Err(OpenError::InUse(holder)) => {
            let age = now.saturating_duration_since(holder.since);
            Line::err(out, Some(Code::InUse))
                .text("another session has the maildrop open for ")
                .number(age.as_secs())
                .text(" seconds")
                .end();
            return (Authorization::after(user).into(), Step::Continue);
        }
        Err(OpenError::Temporary(_)) => (Code::SysTemp, "the maildrop cannot be opened now"),
        Err(OpenError::Permanent(_)) => (Code::SysPerm, "the maildrop cannot be opened"),
    };
    reply::err(out, Some(code), text);
    (Authorization::after(user).into(), Step::Continue)
}
