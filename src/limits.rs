//! Every bound in popcore, in one place, with its reason.
//!
//! A bound that a client hits gives it a clear reply, or holds it back, and moves
//! a counter. The assertions at the end hold the bounds that lean on each
//! other.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Longest command line in octets, its CRLF included (RFC 2449, section 4).
pub const COMMAND_LINE: usize = 255;

/// Longest single-line reply in octets, its CRLF included (RFC 2449, section 4).
pub const REPLY_LINE: usize = 512;

/// Room in the output buffer, in octets, below which no command is handled:
/// every reply that is not a listing or a message fits into it.
pub const REPLY_ROOM: usize = 1024;

/// Most octets a client may have sent ahead of the replies it has been given.
/// More stay in the socket, where they hold the client back.
pub const PIPELINED: usize = 16 * 1024;

/// Entries a shard can queue between two system calls; more wait their turn.
pub const SUBMISSION_QUEUE: u32 = 1024;

/// Completions the kernel can post between two turns of a shard; more wait in
/// its overflow list, which costs a system call more.
pub const COMPLETION_QUEUE: u32 = 8192;

/// Completions a shard dispatches before the tasks they woke may run.
pub const COMPLETIONS_A_TURN: usize = 1024;

/// Octets of the buffers that replies are written into: those of a poll of an
/// ordinary maildrop fit, and a burst of connections costs little.
pub const REPLY_BUFFER: usize = 4 * 1024;

/// Octets of the buffers that messages and long listings go through.
pub const WINDOW: usize = 32 * 1024;

/// Reply buffers a shard keeps for its next connections: 4 MiB.
pub const POOLED_REPLY_BUFFERS: usize = 1024;

/// Windows a shard keeps for its next messages: 2 MiB.
pub const POOLED_WINDOWS: usize = 64;

/// How long a client may take to read one buffer of what is sent to it.
pub const WRITE_STALL: Duration = Duration::from_mins(1);

/// TLS handshakes under way at a time on a shard: at some ten kibioctets each,
/// 40 MiB that strangers may hold.
pub const HANDSHAKES: usize = 4096;

/// How long a TLS handshake may take: two or three journeys of a packet, ten
/// times over on the worst of lines.
pub const HANDSHAKE: Duration = Duration::from_secs(20);

/// Age from which a handshake may be given up for a new one where there are too
/// many: a packet that was lost and sent again twice has arrived by then.
pub const HANDSHAKE_STALLED: Duration = Duration::from_secs(3);

/// Octets that a client may send in its handshake: a hello of two kibioctets and
/// a chain of certificates, and sixteen times what that takes.
pub const HANDSHAKE_OCTETS: usize = 64 * 1024;

/// Least octets of a file of ticket keys: a secret of 256 bits.
pub const TICKET_SECRET_LEAST: usize = 32;

/// Most octets of a file of ticket keys; those of other servers have 48 or 80.
pub const TICKET_SECRET_MOST: usize = 1024;

/// Shortest lifetime of a ticket: keys change that often, and each change is a
/// new configuration for every shard.
pub const TICKET_LIFETIME_LEAST: Duration = Duration::from_secs(2);

/// Least time between two looks at the files of certificates and keys.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(1);

/// Most time between two looks at them, for file systems that do not tell of what
/// other machines change: a certificate is renewed days before its end.
pub const CERTIFICATE_ROUND: Duration = Duration::from_mins(5);

/// Octets of a file of certificates or keys that are read: a thousand
/// certificates.
pub const PEM_FILE: u64 = 1 << 21;

/// Octets that a TLS record takes beside its text: 22 with TLS 1.3, 29 with
/// TLS 1.2 and AES-GCM (RFC 5288), and more than any suite needs.
pub const RECORD_OVERHEAD: usize = 64;

/// Text of one buffer of records: two records of the greatest length.
pub const RECORDS_TEXT: usize = WINDOW;

/// Octets of the buffers that records leave in.
pub const RECORDS: usize = RECORDS_TEXT + 4 * RECORD_OVERHEAD;

/// Records that one key of AES-GCM seals: 2^24.5 are safe (RFC 8446, section 5.5).
pub const RECORDS_OF_A_KEY: u64 = 1 << 24;

/// How long, and over how many octets, a connection that has been ended waits
/// for its client to hear of it: a close while octets arrive makes the kernel
/// answer with a reset, which destroys what the client has not read.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// See [`FAREWELL`].
pub const FAREWELL_OCTETS: usize = 64 * 1024;

/// Least limit of open files with which a server starts: twice that with which one
/// of two shards was seen to start and to serve nobody.
pub const DESCRIPTORS: u64 = 48;

/// Threads of a shard for what may wait on a disk: listings and removals.
pub const POOL_THREADS: NonZeroUsize = NonZeroUsize::new(4).expect("not 0");

/// Rounds of ready tasks in one turn of a shard's ring: a task that answers wakes
/// another one at most once or twice, and tasks that never rest must not keep the
/// ring from its turn.
pub const ROUNDS_A_TURN: u32 = 4;

/// How long a ring waits after the kernel has refused its submissions (it is short
/// of memory) and nothing has come of those that it has.
pub const RING_REST: Duration = Duration::from_millis(5);

/// glommio's preemption timer, in whose place each turn of the ring stands: for
/// ever, as the kernel counts. glommio parks for good when it fires at the wrong
/// moment (`ring::driver`).
pub const PREEMPTION: Duration = Duration::from_secs(u32::MAX as u64);

/// Buffers a shard provides to the kernel for receiving.
pub const PROVIDED_BUFFERS: u16 = 256;

/// Octets of each provided buffer: a command is a few dozen, a TLS hello some
/// hundreds to two thousand.
pub const PROVIDED_BUFFER: usize = 4 * 1024;

const _: () = assert!(HANDSHAKE.as_secs() > HANDSHAKE_STALLED.as_secs());
const _: () = assert!(HANDSHAKE_OCTETS > PIPELINED);
const _: () = assert!(RECORDS_TEXT.is_multiple_of(16 * 1024));
const _: () = assert!(COMPLETION_QUEUE >= 2 * SUBMISSION_QUEUE);
const _: () = assert!(REPLY_BUFFER >= 2 * REPLY_ROOM);
const _: () = assert!(WINDOW > REPLY_BUFFER);
const _: () = assert!(PIPELINED >= PROVIDED_BUFFER);
/// Longest unique-id in octets (RFC 1939, section 7, UIDL).
pub const UNIQUE_ID: usize = 70;

/// Most digits of a decimal `u64`.
pub const DECIMAL: usize = 20;

/// The end of a multi-line reply: a dot and CRLF, in octets.
pub const TERMINATOR: usize = 3;

/// Most octets that `Encoder::finish` writes: a missing line end, then the
/// terminator.
pub const MESSAGE_END: usize = 2 + TERMINATOR;

/// Longest row of a listing with the terminator that may follow it. A row is
/// begun only with this much room, so that the terminator always leaves in one
/// write with the row before it: clients hang on one that comes alone.
pub const LISTING_ROW: usize = DECIMAL + 1 + UNIQUE_ID + 2 + TERMINATOR;

/// Commands a session may get wrong before it is closed. Clients probe for a
/// few extensions; a scanner that speaks another protocol sends a stream.
pub const BAD_COMMANDS: u8 = 20;

/// Logins that may fail on one connection before it is closed: enough for
/// a mistyped password, too few for guessing.
pub const FAILED_LOGINS: u8 = 3;

/// Longest user name in octets: what fits into one path component (`NAME_MAX`
/// of limits.h), and above what a command line can carry.
pub const USER_NAME: usize = 255;

/// Longest password in octets. Above what a command line can carry, so that it
/// cuts nobody off; bounded because SHA-crypt's cost grows with the square of it.
pub const PASSWORD: usize = 1024;

/// Longest text in octets that a directory has for a user who may not log in:
/// it fits into a reply beside the code before it.
pub const NOTICE: usize = 200;

/// Logins that wait for an auth thread. With a costly hash (60 ms) and two
/// threads the last of them waits half a minute, about as long as a client
/// does; what is beyond is told to come back.
pub const AUTH_QUEUE: usize = 1024;

/// Good logins that are remembered. An entry is about 300 octets with its name and
/// paths, so that all of them are at most 80 MiB; who polls every five minutes at
/// 800 logins a second is still in it.
pub const AUTH_CACHE: usize = 256 * 1024;

/// Largest passwd-file in octets: some ten million users. Offsets into it are
/// 32 bits wide, and it is held in memory, at a reload twice.
pub const PASSWD_FILE: usize = 1 << 30;

/// Faults of one passwd-file that are reported in full; the others are counted.
pub const PASSWD_FILE_FAULTS: usize = 50;

/// Most memory in KiB that one ARGON2 hash may ask for, per auth thread.
pub const ARGON2_KIB: u32 = 1 << 20;

/// Most passes that one ARGON2 hash may ask for.
pub const ARGON2_PASSES: u32 = 64;

/// Most rounds that one SHA-crypt hash may ask for: several seconds of an auth
/// thread, 1,000 times the usual.
pub const SHA_CRYPT_ROUNDS: u32 = 5_000_000;

/// Highest bcrypt cost: about a minute of an auth thread.
pub const BCRYPT_COST: u32 = 20;

const _: () = assert!(USER_NAME >= COMMAND_LINE);
const _: () = assert!(PASSWORD >= COMMAND_LINE);
const _: () = assert!(NOTICE + 64 <= REPLY_LINE);
const _: () = assert!(PASSWD_FILE <= u32::MAX as usize);
const _: () = assert!(REPLY_ROOM >= 2 * REPLY_LINE);
const _: () = assert!(REPLY_LINE + LISTING_ROW <= REPLY_ROOM);
const _: () = assert!(
    UNIQUE_ID >= DECIMAL,
    "a LIST row is no longer than a UIDL row"
);
const _: () = assert!(FAILED_LOGINS < BAD_COMMANDS);
/// Longest name of a file or directory, in octets: `NAME_MAX` of Linux, held
/// here so that a snapshot keeps a name's length in one octet.
pub const FILE_NAME: usize = 255;

/// Longest path of a maildrop, in octets: `PATH_MAX` of Linux less what new/ or
/// cur/ and the longest file name add to it.
pub const MAILDROP_PATH: usize = 4096 - FILE_NAME - 6;

/// Most messages in a maildrop: ten times what the largest known mailboxes hold,
/// and few enough that one user's files cannot take the server's memory.
pub const MAILDROP_MESSAGES: usize = 2_000_000;

/// Memory of all cached snapshots together, in octets: about 3 million messages,
/// so some 150,000 maildrops of 20 messages.
pub const SNAPSHOT_CACHE: usize = 256 << 20;

/// Parts of the snapshot cache: enough that 64 cores seldom meet.
pub const SNAPSHOT_CACHE_PARTS: usize = 64;

/// Parts of the lock table, for the same reason.
pub const LOCK_TABLE_PARTS: usize = 64;

/// Files that the locks of maildrops are spread over: see `maildrop/lock/place.rs`.
pub const LOCK_FILES: usize = 256;

/// Listings in a row that bring nothing new after which a maildrop that never
/// stands still is believed to have been seen whole. One listing that races with
/// renames at full speed loses a given message in a few of a hundred cases.
pub const QUIET_LISTINGS: u32 = 12;

/// Listings of one open altogether, so that one that keeps finding new messages
/// ends.
pub const LISTINGS: u32 = 200;

/// Largest list of an earlier server's unique-ids, in octets: a line is some 100
/// octets, and a maildrop has at most [`MAILDROP_MESSAGES`].
pub const UIDL_LIST: u64 = 256 << 20;

/// Digests of a maildrop that were announced for a second file of a name and are
/// kept so that none is announced again. Two files of one name are a fault of the
/// program that made them; this many take 24 KiB of an index.
pub const RETIRED_UNIQUE_IDS: usize = 1024;

/// Messages of a maildrop that are remembered after they went, so that no other one
/// is announced as they were: more than a user gets in a day. In the index alone,
/// some 6 KiB.
pub const GONE_MESSAGES: usize = 64;

const _: () = assert!(FILE_NAME <= u8::MAX as usize);
// Positions in a snapshot's names are 32 bits wide.
const _: () = assert!(MAILDROP_MESSAGES * (FILE_NAME + UNIQUE_ID + 1) <= u32::MAX as usize);
const _: () = assert!(QUIET_LISTINGS < LISTINGS);

/// Largest configuration file in octets: a thousand times an ordinary one.
pub const CONFIGURATION: u64 = 1 << 20;

/// Longest duration a configuration may name. A week is longer than any session
/// should live; the bound keeps sums of an instant and a duration from overflow.
pub const LONGEST_DURATION: Duration = Duration::from_hours(7 * 24);

/// Longest time for which deleted messages are kept aside: a year. Sooner or later
/// what a user deleted is to be gone.
pub const LONGEST_UNDELETE: Duration = Duration::from_hours(366 * 24);

/// How long a login waits for a silent session to give way (`maildrop.takeover`): it
/// takes two turns of a shard.
pub const TAKEOVER_ANSWER: Duration = Duration::from_secs(2);

/// Shortest autologout of an authenticated session (RFC 1939, section 3).
pub const SHORTEST_IDLE: Duration = Duration::from_mins(10);

/// Most shards a configuration may ask for: more than the cores of any machine
/// Linux runs on, and still a number of threads that it can start.
pub const SHARDS: usize = 8192;

/// Octets of a peer's user name that a log line shows. Real names are shorter;
/// escaped, the line stays well below the 2,048 octets that syslog keeps.
pub const LOGGED_NAME: usize = 256;

/// Time in which one address leaves no more than one log line of a failed
/// handshake.
pub const STRANGER_LINE: Duration = Duration::from_secs(1);

/// Addresses that are remembered for that; more leave no lines.
pub const STRANGERS: usize = 4096;

/// Time in which one listener leaves no more than one log line of a shortage, which
/// it meets five times a second for as long as that lasts.
pub const SHORTAGE_LINE: Duration = Duration::from_mins(1);

/// Octets of log lines that wait for the log's thread: a second of the sessions
/// of a large server, should the disk pause.
pub const LOG_SPOOL: usize = 8 << 20;

/// How long the end of the process waits for a log that cannot be written.
pub const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Octets of that buffer which are kept after a burst.
pub const LOG_KEPT: usize = 256 << 10;

const _: () = assert!(4 * LOGGED_NAME < 2048);

/// Connections to the administrator's listener at one time: a monitoring system
/// holds one or two; the rest is room for an operator and for mistakes.
pub const ADMIN_CONNECTIONS: usize = 16;

/// How long a connection to the administrator's listener may take to send the
/// head of a request.
pub const ADMIN_HEADER: Duration = Duration::from_secs(10);

/// Longest head of a request to the administrator's listener, in octets.
pub const ADMIN_HEAD: usize = 8192;
