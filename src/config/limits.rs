//! `[limits]`, all of which a reload reads again.

use std::path::Path;
use std::time::Duration;

use super::file::{PeriodText, Section};
use super::{LimitOptions, server};
use crate::auth::{ListError, Network, NetworkSet, Prefixes};
use crate::limits;
use crate::shard::admission::{SessionLimits, VisitLimits};

/// The longest wait of a login unless it is said: half of the time that most clients
/// wait for a server.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

pub(super) fn limits(mut section: Section<'_>, base: &Path) -> Option<LimitOptions> {
    let idle = at_least(
        &mut section,
        "idle",
        limits::SHORTEST_IDLE,
        limits::SHORTEST_IDLE,
        "is below ten minutes, the shortest autologout RFC 1939 allows",
        "set it to \"10m\" or more, or remove it",
    );
    let login = at_least(
        &mut section,
        "login",
        Duration::from_mins(1),
        Duration::from_secs(1),
        "leaves a client no time to log in",
        "set it to \"1s\" or more, such as \"60s\"",
    );
    let (address, network) = (address(&mut section), network(&mut section));
    let sessions = sessions(&mut section);
    let longest_delay = server::period(&mut section, "longest_failure_delay", LONGEST_DELAY);
    let visits = visits(&mut section);
    let exempt = exempt(&mut section);
    let block_list = section.take::<String>("block_list").map(|field| {
        let (path, place) = field.split();
        let path = base.join(path);
        // It is read again where it is used; here its faults have a line.
        let remedy = "name a file with a network in each line";
        match NetworkSet::load(&path) {
            Ok(_) => {}
            Err(ListError::Unreadable { source, .. }) => {
                section.file().unreadable(&place, &path, &source, remedy);
            }
            Err(error) => section.file().reject(&place, error.to_string(), remedy),
        }
        path
    });
    section.finish();
    Some(LimitOptions {
        idle: idle?,
        login: login?,
        write_stall: limits::WRITE_STALL,
        sessions: SessionLimits {
            address: address?,
            ..sessions?
        },
        network: network?,
        longest_failure_delay: longest_delay?,
        visits: visits?,
        exempt: exempt?,
        block_list,
    })
}

/// What makes one address.
fn address(section: &mut Section<'_>) -> Option<Prefixes> {
    let usual = Prefixes::ADDRESS;
    let v6 = number(section, "address_prefix_ipv6", usual.v6, 1..=128);
    Some(Prefixes { v6: v6?, ..usual })
}

/// What makes one network.
fn network(section: &mut Section<'_>) -> Option<Prefixes> {
    let usual = Prefixes::NETWORK;
    let v4 = number(section, "network_prefix_ipv4", usual.v4, 1..=32);
    let v6 = number(section, "network_prefix_ipv6", usual.v6, 1..=128);
    Some(Prefixes { v4: v4?, v6: v6? })
}

fn sessions(section: &mut Section<'_>) -> Option<SessionLimits> {
    let per_address = number(section, "sessions_per_address", 0, 0..=u32::MAX);
    let per_user = number(section, "sessions_per_user", 1, 0..=u32::MAX);
    let both = number(section, "sessions_per_user_and_address", 0, 0..=u32::MAX);
    let reserved = number(section, "reserved_share", 25, 0..=90);
    Some(SessionLimits {
        per_address: per_address?,
        per_user: per_user?,
        per_user_and_address: both?,
        reserved: reserved?,
        ..SessionLimits::NONE
    })
}

fn visits(section: &mut Section<'_>) -> Option<VisitLimits> {
    let login_delay = server::period(section, "login_delay", Duration::ZERO);
    let place = section.place("longest_login_delay");
    let longest = server::period(section, "longest_login_delay", Duration::ZERO);
    if let (Some(usual), Some(longest)) = (login_delay, longest)
        && !longest.is_zero()
        && longest < usual
    {
        let remedy = "set it to a longer time, or remove it";
        section
            .file()
            .reject(&place, "is shorter than login_delay", remedy);
        return None;
    }
    let poll_interval = server::period(section, "poll_interval", Duration::ZERO);
    let poll_burst = number(section, "poll_burst", 10, 1..=1_000_000);
    Some(VisitLimits {
        login_delay: login_delay?,
        longest_login_delay: longest?,
        poll_interval: poll_interval?,
        poll_burst: poll_burst?,
    })
}

fn exempt(section: &mut Section<'_>) -> Option<Vec<Network>> {
    let Some(field) = section.take::<Vec<String>>("exempt") else {
        return Some(Vec::new());
    };
    let mut all_right = true;
    let read = |text: &String| {
        let network = text.parse::<Network>().map_err(|error| {
            all_right = false;
            let remedy = "write networks as [\"192.0.2.0/24\", \"2001:db8::/32\"]";
            section
                .file()
                .reject(&field.place, error.to_string(), remedy);
        });
        network.ok()
    };
    let networks = field.value.iter().filter_map(read).collect();
    all_right.then_some(networks)
}

/// A duration that has a least value.
fn at_least(
    section: &mut Section<'_>,
    name: &'static str,
    default: Duration,
    least: Duration,
    problem: &str,
    remedy: &str,
) -> Option<Duration> {
    let file = section.file();
    let Some(field) = section.take::<PeriodText>(name) else {
        return Some(default);
    };
    let (period, place) = server::read_period(file, field)?;
    if period < least {
        file.reject(&place, problem, remedy);
        return None;
    }
    Some(period)
}

/// A whole number within bounds.
fn number<T>(
    section: &mut Section<'_>,
    name: &'static str,
    default: T,
    within: std::ops::RangeInclusive<T>,
) -> Option<T>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    let Some(field) = section.take::<u64>(name) else {
        return Some(default);
    };
    let value = T::try_from(field.value).ok();
    let value = value.filter(|value| within.contains(value));
    if value.is_none() {
        let problem = format!("is {}, which is out of bounds", field.value);
        let remedy = format!(
            "set it to a number from {} to {}",
            within.start(),
            within.end()
        );
        section.file().reject(&field.place, problem, remedy);
    }
    value
}
