//! What a number of sessions asks of the kernel.
//!
//! Each number is derived here, once; `tuning/README.md` gives the same derivations
//! in words, and `tuning/sysctl.d/60-popcore.conf` is what [`Sizes::sysctl_file`]
//! makes of [`GUIDE`] sessions.

use std::fmt::Write as _;

use super::machine::Machine;
use super::sysctl::{self, Installed};

/// Sessions that the files of the guide are made for.
pub const GUIDE: u64 = 100_000;

/// Most sessions that sizes are derived for: a hundred times what one node was made
/// for, and far from where sums overflow.
pub const MOST: u64 = 100_000_000;

/// Descriptors beside those of sessions: listeners, rings, files of the process.
const OWN_DESCRIPTORS: u64 = 500;

/// Descriptors of a session: its socket, and a lock or the message that is sent.
const DESCRIPTORS: u64 = 2;

/// The listen queue that kernels since 5.4 allow by themselves.
const QUEUE: u64 = 4096;

/// Part of the sessions that may knock within one pause of a shard: those of a
/// network that was away and came back.
const RETURNING: u64 = 10;

/// `fs.nr_open` as kernels have it, `linux/fs.h`.
const NR_OPEN: u64 = 1 << 20;

/// Octets of locked memory that an executor of glommio asks for.
pub const LOCKED: u64 = 512 << 10;

/// Numbers derived from a number of sessions at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    sessions: u64,
}

impl Sizes {
    /// Those of so many sessions at a time, [`MOST`] at most.
    pub fn of(sessions: u64) -> Self {
        Self {
            sessions: sessions.min(MOST),
        }
    }

    /// The sessions.
    pub fn sessions(self) -> u64 {
        self.sessions
    }

    /// Files that the process may have open.
    pub fn descriptors(self) -> u64 {
        (DESCRIPTORS * self.sessions + OWN_DESCRIPTORS).next_power_of_two()
    }

    /// The most that a process may be allowed to have open.
    pub fn nr_open(self) -> u64 {
        self.descriptors().max(NR_OPEN)
    }

    /// Files that all processes together may have open.
    pub fn file_max(self) -> u64 {
        2 * self.descriptors()
    }

    /// Connections that wait to be accepted, at each shard.
    pub fn queue(self) -> u64 {
        (self.sessions / RETURNING).next_power_of_two().max(QUEUE)
    }

    /// Connections that the kernel tracks, where it does: those that are open, and as
    /// many again in each of the two minutes for which ended ones are kept.
    pub fn tracked(self) -> u64 {
        (4 * self.sessions).next_power_of_two().max(1 << 16)
    }

    /// The file for `/etc/sysctl.d`, of a machine if there is one: no value that it has
    /// is made smaller.
    pub fn sysctl_file(self, machine: Option<&Machine>) -> String {
        let mut text = format!(
            "# Kernel settings for a popcore node of {} sessions at a time.\n\
             # Made by: popcore doctor --sizes {}\n\
             # tuning/README.md has the derivations, the costs, and what was measured.\n\
             # In the unit: LimitNOFILE={} and LimitMEMLOCK={} for each CPU.\n",
            self.sessions,
            self.sessions,
            self.descriptors(),
            LOCKED
        );
        if machine.is_none() {
            text += "# Made for any machine: where one has more of something already, the command \
                     makes\n# a file that keeps it.\n";
        }
        for line in sysctl::installed(self, machine) {
            let Installed {
                key, value, why, ..
            } = line;
            // sysctl.d(5): a key that fails is passed over in silence.
            let dash = if line.may_be_absent { "-" } else { "" };
            writeln!(text, "\n# {why}").expect("a String");
            if let Some(enough) = line.would_do {
                writeln!(
                    text,
                    "# {enough} would do; this machine has more, which is kept"
                )
                .expect("a String");
            }
            writeln!(text, "{dash}{key} = {value}").expect("a String");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_the_guide() {
        let sizes = |sessions| {
            let sizes = Sizes::of(sessions);
            let open = (sizes.descriptors(), sizes.nr_open(), sizes.file_max());
            (open, sizes.queue(), sizes.tracked())
        };
        assert_eq!(sizes(10_000), ((32_768, 1 << 20, 65_536), 4096, 65_536));
        assert_eq!(
            sizes(100_000),
            ((262_144, 1 << 20, 524_288), 16_384, 524_288)
        );
        assert_eq!(
            sizes(1_000_000),
            ((1 << 21, 1 << 21, 1 << 22), 131_072, 1 << 22)
        );
        assert_eq!(Sizes::of(u64::MAX), Sizes::of(MOST));
    }

    /// The unit and the limits of a login give the same, and enough.
    #[test]
    fn the_limits_to_install_are_enough_and_the_same() {
        let unit = include_str!("../../tuning/popcore.service");
        let login = include_str!("../../tuning/limits.d/60-popcore.conf");
        let of_unit = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name));
        let of_login = |name: &str| {
            let row = login.lines().find(|line| line.contains(name));
            let number = row.and_then(|row| row.split_whitespace().last());
            number.and_then(|number| number.parse::<u64>().ok())
        };
        let files = of_unit("LimitNOFILE=").and_then(|number| number.parse().ok());
        assert_eq!(files, of_login(" nofile "));
        assert!(files >= Some(Sizes::of(GUIDE).descriptors()));
        let mebioctets = of_unit("LimitMEMLOCK=").and_then(|text| text.strip_suffix('M'));
        let mebioctets: u64 = mebioctets
            .and_then(|number| number.parse().ok())
            .expect("MiB");
        assert_eq!(Some(mebioctets * 1024), of_login(" memlock "));
        assert!(mebioctets << 20 >= 1024 * LOCKED);
    }

    /// What is installed is what was made, so that neither is edited alone.
    #[test]
    fn the_file_to_install_is_the_one_that_is_made() {
        let installed = include_str!("../../tuning/sysctl.d/60-popcore.conf");
        assert_eq!(installed, Sizes::of(GUIDE).sysctl_file(None));
    }

    #[test]
    fn what_a_machine_has_is_never_made_smaller() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("proc/sys/fs");
        std::fs::create_dir_all(&file).expect("own folder");
        let made = |running: &str| {
            std::fs::write(file.join("nr_open"), running).expect("own folder");
            Sizes::of(1_000_000).sysctl_file(Some(&Machine::at(folder.path())))
        };
        // What systemd sets at boot.
        let more = made("1073741816");
        assert!(more.contains("\nfs.nr_open = 1073741816\n"), "{more}");
        assert!(more.contains("\n# 2097152 would do;"), "{more}");
        let less = made("1048576");
        assert!(less.contains("\nfs.nr_open = 2097152\n"), "{less}");
        assert!(!less.contains("would do"), "{less}");
    }
}
