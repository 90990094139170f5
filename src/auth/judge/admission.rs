//! What is decided once it is proved who somebody is: from where, and whether at all.

use std::net::IpAddr;
use std::time::Instant;

use crate::auth::directory::Profile;
use crate::auth::{Account, Network, Refusal, UserName};

/// Where a user may log in from; `None`: from anywhere.
pub(in crate::auth) type Networks = Option<Box<[Network]>>;

/// A user who may log in, and from where.
pub(in crate::auth) struct Admission {
    pub(in crate::auth) account: Account,
    pub(in crate::auth) networks: Networks,
    /// When it ends, whatever else holds; `None`: it does not by itself.
    pub(in crate::auth) until: Option<Instant>,
}

impl Admission {
    /// Whether the user may log in from this address.
    pub(in crate::auth) fn allows(&self, from: IpAddr) -> bool {
        allow(&self.networks, from)
    }

    /// Whether it holds then.
    pub(in crate::auth) fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Whether a user of these networks may log in from this address.
pub(super) fn allow(networks: &Networks, from: IpAddr) -> bool {
    let networks = networks.as_deref();
    networks.is_none_or(|networks| networks.iter().any(|n| n.contains(from)))
}

/// What is decided once the password was right.
pub(super) fn admit(
    name: UserName,
    user: Profile,
    from: IpAddr,
    until: Option<Instant>,
) -> Result<Admission, Refusal> {
    let admission = Admission {
        account: Account {
            user: user.name.map_or(name, |called| *called),
            home: user.home,
            mail: user.mail,
            limits: user.limits,
        },
        networks: user.networks,
        until,
    };
    if !admission.allows(from) {
        let user = &admission.account.user;
        tracing::info!(%user, rip = %from, "login refused: address not in allow_nets");
        return Err(Refusal::Rejected);
    }
    match user.disabled {
        Some(notice) => Err(Refusal::Disabled(notice)),
        None => Ok(admission),
    }
}
