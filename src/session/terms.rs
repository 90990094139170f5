//! What a session's connection, its client and the operator allow.

use std::time::Duration;

use crate::auth::{Stamp, UserName};
use crate::maildrop::Retention;
use crate::proto::reply::LoginDelayTold;
use crate::sasl::{Bindings, Mechanism, Mechanisms};

use super::{Channel, LoginDelay, Policy, whole_seconds};

/// What decides which commands are taken.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) policy: &'a Policy,
    pub(super) channel: Channel,
    pub(super) peer: Option<&'a Peer>,
}

/// What is known of a client beside what it says.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The name that its certificate vouches for, verified.
    pub(super) certificate: Option<Box<str>>,
    /// What an exchange can be bound to; nothing once the user is logged in.
    pub(super) bindings: Bindings,
    /// What the greeting offered APOP by.
    pub(super) stamp: Option<Stamp>,
    /// The master user who is logged in for the user.
    pub(super) master: Option<UserName>,
    /// How long the user who is logged in has to wait between two logins, where the
    /// directory says so.
    pub(super) login_delay: Option<Duration>,
}

impl<'a> Terms<'a> {
    pub(super) fn certificate(self) -> Option<&'a str> {
        self.peer.and_then(|peer| peer.certificate.as_deref())
    }

    pub(super) fn stamp(self) -> Option<&'a Stamp> {
        self.peer.and_then(|peer| peer.stamp.as_ref())
    }

    pub(super) fn bindings(self) -> Option<&'a Bindings> {
        let bindings = self.peer.map(|peer| &peer.bindings);
        bindings.filter(|bindings| bindings.is_bound())
    }

    pub(super) fn passwords_are_taken(self) -> bool {
        self.channel == Channel::Tls || self.policy.plaintext_without_tls
    }

    /// What AUTH takes on this connection now.
    pub(super) fn mechanisms(self) -> Mechanisms {
        let can_work = |mechanism: Mechanism| match mechanism {
            Mechanism::External => self.certificate().is_some(),
            Mechanism::ScramSha256Plus => self.bindings().is_some(),
            mechanism => !mechanism.tells_secret() || self.passwords_are_taken(),
        };
        self.policy.mechanisms.filter(can_work)
    }

    /// The same for every user, so that both states tell it (RFC 2449, section 6.7).
    pub(super) fn expire(self) -> Option<u16> {
        self.policy.retention.map(Retention::days)
    }

    /// Before the login: the longest that any user has, and whether that differs.
    pub(super) fn login_delay(self) -> Option<LoginDelayTold> {
        let LoginDelay { usual, longest } = self.policy.login_delay?;
        Some(LoginDelayTold {
            seconds: whole_seconds(longest),
            differs: usual != longest,
        })
    }

    /// After the login: that of the user.
    pub(super) fn own_login_delay(self) -> Option<LoginDelayTold> {
        let LoginDelay { usual, longest } = self.policy.login_delay?;
        let own = self.peer.and_then(|peer| peer.login_delay);
        let delay = own.map_or(usual, |own| own.min(longest));
        (!delay.is_zero()).then_some(LoginDelayTold {
            seconds: whole_seconds(delay),
            differs: false,
        })
    }

    pub(super) fn stls_is_taken(self) -> bool {
        self.channel == Channel::Clear { stls: true }
    }
}
