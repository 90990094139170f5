//! Maildrops: Maildir on the disk to the table of messages that a session sees.
//!
//! [`Template`] says where a user's maildrop lies. [`open`] reads it, on a pool
//! thread, into a [`Snapshot`]; [`index`] keeps one on the disk and [`SnapshotCache`]
//! those in use in memory, and
//! [`current_without_blocking`] tells on a shard whether one still holds, so that
//! an unchanged maildrop costs no listing and no trip to the pool. [`LockTable`]
//! gives a maildrop to one session of the process at a time, and a lock file to one
//! process. [`Maildrops`] puts these together: it opens a maildrop for a session and, by
//! [`Rules`], does what the session's end does to it; [`undelete`] brings back what was
//! deleted.
//!
//! A maildrop holds files of popcore's own beside new/ and cur/: `popcore.index` ([`index`]);
//! `popcore.cutoff`, how far an earlier server's lists of unique-ids count (`earlier::cutoff`);
//! `popcore.lock`, where locks are not elsewhere; `popcore.deleted`, by
//! `maildrop.undelete`; and for a moment `popcore.index.accept`, by which an operator accepts
//! other unique-ids.
//!
//! Invariants: nothing outside a maildrop is opened, whatever lies in it; a
//! session's snapshot never changes; two messages never share a UIDL; what blocks
//! says so in capitals and runs on the pool.

mod announce;
mod arrivals;
mod aside;
mod belongings;
mod cache;
mod census;
mod columns;
mod commit;
mod earlier;
mod entries;
mod error;
mod guard;
pub mod index;
pub mod inspect;
mod listing;
mod lock;
mod maildrops;
mod message;
mod name;
pub mod plan;
mod retention;
mod roll;
mod scan;
mod seen;
mod snapshot;
mod stamps;
mod survey;
mod table;
mod template;
mod uidl;
mod undelete;
mod update;

pub use cache::SnapshotCache;
pub use commit::remove;
pub use earlier::{Format, FormatError, Sources, SourcesError};
pub use error::{CommitReport, Fault, FaultKind, MessageError, OpenError};
pub use listing::probe;
pub use lock::{Berth, Holder, InUse, LockGuard, LockTable};
pub use maildrops::{Counters, Elsewhere, Location, Maildrops, Opened};
pub use name::{Moment, Name};
pub use retention::{Retention, RetentionError};
pub use scan::{canonical, locate, open};
pub use snapshot::{Builder, Folder, Snapshot, StoredForm};
pub use stamps::{Freshness, Stamps, Standing, current, current_without_blocking};
pub use template::{NameError, Template, TemplateError};
pub use undelete::{Undeleted, undelete};
pub use update::{Departure, Rules};
