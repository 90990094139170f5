//! Every bound in popcore, in one place, with its reason.
//!
//! A bound that a client hits gives it a clear reply, or holds it back, and moves
//! a counter. The assertions at the end hold the bounds that lean on each
//! other.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Longest command line in octets, its CRLF included (RFC 2449, section 4), but for AUTH.
pub const COMMAND_LINE: usize = 255;

/// Longest response of a SASL exchange in octets, base64 with its CRLF, and longest line of
/// AUTH, which may have the first in it: a token of
/// 16 KiB with what stands around it. Such lines come before any login, so that more
/// is memory for anybody who asks.
pub const SASL_LINE: usize = 24 * 1024;

/// Longest token of a bearer, in octets.
pub const TOKEN: usize = 16 * 1024;

/// Longest `auth.oauth.scope` in octets, and longest `auth.oauth.openid_configuration`:
/// both fit into a challenge, with what stands around them.
pub const TOKEN_SCOPE: usize = 256;

/// See [`TOKEN_SCOPE`].
pub const TOKEN_CONFIGURATION: usize = 384;

/// Least time between two reads of an issuer's keys because a token names one that is not
/// there, which anybody's token can, and between two that fail.
pub const TOKEN_KEYS_PAUSE: Duration = Duration::from_secs(30);

/// Questions about tokens that are under way at a time at an introspection service.
pub const INTROSPECTIONS: u32 = 16;

/// Longest challenge of a SASL exchange in octets, before it is base64: SCRAM's
/// with the longest nonces and salt. In base64 it fits into a reply's room.
pub const CHALLENGE: usize = 720;

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

/// Octets of a message that leave before other sessions have their turn: some 50 us
/// of encoding and sending.
pub const SLICE: usize = 128 * 1024;

/// Octets of a mapped message that are brought into memory at a time.
pub const STRETCH: usize = 256 * 1024;

/// Octets of output below which no further text is put behind what is there.
pub const SMALLEST_PIECE: usize = 2 * 1024;

/// Octets of text that wait for the terminator where it does not fit behind them.
pub const KEPT_BACK: usize = 64;

/// Stored octets from which on messages that are encoded are mapped, unless the
/// configuration says otherwise: where reads and mappings crossed between 256 KiB and
/// 1 MiB on a two-core machine. `benches/paths.rs` measures it on yours.
pub const MAP_TEXT_FROM: u64 = 1 << 20;

/// The same for messages whose stored octets are those of the wire.
pub const MAP_WIRE_FROM: u64 = 256 << 10;

/// How long a client may take nothing of a mapped message before the mapping is let
/// go of; what is left of the message is read.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Octets that the kernel takes for a client that does not read, beyond what the
/// network has already been given: a thousand of them hold 128 MiB at most.
pub const UNSENT: u32 = 128 * 1024;

/// Reply buffers a shard keeps for its next connections: 4 MiB.
pub const POOLED_REPLY_BUFFERS: usize = 1024;

/// Windows a shard keeps for its next messages: 2 MiB.
pub const POOLED_WINDOWS: usize = 64;

/// How long a client may take to read one buffer of what is sent to it.
pub const WRITE_STALL: Duration = Duration::from_mins(1);

/// TLS handshakes under way at a time on a shard: at some ten kibioctets each 40 MiB
/// that strangers hold, and at worst, where all send a hello of [`HANDSHAKE_OCTETS`]
/// but for its end, 256 MiB for [`HANDSHAKE`].
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

/// Threads of the process for what waits for a file system of another machine, or for
/// one that nobody knows yet: as many sessions can wait for one at a time, and others
/// queue behind those.
pub const FAR_THREADS: NonZeroUsize = NonZeroUsize::new(64).expect("not 0");

/// Kernel threads of a shard's ring that may wait for files at a time: those of far
/// file systems must leave some for local disks.
pub const FILE_WORKERS: u32 = 128;

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

const _: () = assert!(CHALLENGE.div_ceil(3) * 4 + "+ \r\n".len() <= REPLY_ROOM);
const _: () = assert!((SASL_LINE - 2) / 4 * 3 >= TOKEN + 2 * USER_NAME);
const _: () = assert!(TOKEN_SCOPE + TOKEN_CONFIGURATION + 72 <= CHALLENGE);
const _: () = assert!(HANDSHAKE.as_secs() > HANDSHAKE_STALLED.as_secs());
const _: () = assert!(HANDSHAKE_OCTETS > PIPELINED);
const _: () = assert!(RECORDS_TEXT.is_multiple_of(16 * 1024));
const _: () = assert!(COMPLETION_QUEUE >= 2 * SUBMISSION_QUEUE);
const _: () = assert!(REPLY_BUFFER >= 2 * REPLY_ROOM);
const _: () = assert!(WINDOW > REPLY_BUFFER);
const _: () = assert!(PATIENCE.as_nanos() < WRITE_STALL.as_nanos());
const _: () = assert!(WINDOW > REPLY_ROOM + REPLY_LINE + MESSAGE_END + SMALLEST_PIECE);
// Text becomes twice as long at most.
const _: () = assert!(SMALLEST_PIECE / 2 > KEPT_BACK);
const _: () = assert!(SLICE >= WINDOW && STRETCH >= SLICE);
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

/// Look-ups under way in directories that are away, those that wait for a connection
/// included: a second of the logins of a large server, at some kibioctets each.
pub const LOOKUPS: usize = 1024;

/// Pause between two lines of the log that say of a directory that too many ask it.
pub const CROWDED_PAUSE: Duration = Duration::from_mins(1);

/// Longest time that a login may wait for one directory: clients give up sooner.
pub const LONGEST_LOOKUP: Duration = Duration::from_mins(1);

/// How often a look-up is tried where connections break: a server that was started anew
/// has closed all that there were.
pub const LOOKUP_TRIES: u32 = 3;

/// Pause before the second try; each later one doubles it.
pub const LOOKUP_PAUSE: Duration = Duration::from_millis(50);

/// Stored passwords that wait to be replaced by stronger ones: a second or two of the
/// one thread that makes them.
pub const RENEWALS: usize = 64;

/// Failures in a row after which a directory is left in peace.
pub const DIRECTORY_FAILURES: u32 = 5;

/// For how long, at first.
pub const DIRECTORY_REST_LEAST: Duration = Duration::from_secs(1);

/// For how long at most: so much longer than it has to, a directory that is back is
/// without logins.
pub const DIRECTORY_REST_MOST: Duration = Duration::from_secs(30);

/// Most connections to one directory.
pub const DIRECTORY_CONNECTIONS: u32 = 256;

/// How long a connection to a database may have rested and is used without being tried.
pub const CONNECTION_TRUSTED: Duration = Duration::from_secs(1);

/// Most octets of a web service's answer about one user; some hundreds are usual.
pub const WEB_BODY: usize = 64 * 1024;

/// How long a connection to a web service is kept for the next question.
pub const WEB_IDLE: Duration = Duration::from_secs(30);

/// KiB of a file of `SQLite` that each connection to it keeps in memory: more than all of
/// the upper pages of an index of ten million names.
pub const SQLITE_CACHE_KIB: u32 = 16 * 1024;

/// How long a look-up waits for another program that writes to a file of `SQLite`.
pub const SQLITE_BUSY: Duration = Duration::from_secs(1);

/// Stored passwords of a directory that is away that are kept to be verified in place of
/// those of users who do not exist: enough that their costs are spread as the users' are.
pub const DECOYS: usize = 64;

/// Names whose good logins are remembered. The half of them that came last is there in any
/// case, so that a million users who poll by turns are, with room for what the parts of the
/// table differ by. An entry is some 350 octets with its name and paths, which are taken as
/// users come.
pub const AUTH_CACHE: usize = 10 << 18;

/// Good logins of one name that are remembered: the tokens or passwords of so many clients.
pub const AUTH_CACHE_OF_A_NAME: usize = 4;

/// Bad logins that are remembered for a moment: those of clients with an old password.
/// An entry is about 80 octets.
pub const AUTH_CACHE_BAD: usize = 64 * 1024;

/// Slow hashes that are not computed a second time: those of all good logins, and as
/// many again for bad ones. An entry is about 36 octets.
pub const AUTH_CACHE_HASHES: usize = 2 * AUTH_CACHE;

/// Users whose keys of SCRAM are remembered for the time when their directory is away: as
/// many as other good logins. An entry is about 500 octets.
pub const AUTH_CACHE_KEYS: usize = AUTH_CACHE;

/// Addresses, and users in a network, whose failed logins are remembered: 3 MiB. What a
/// flood adds has failed once; those who failed more often are kept.
pub const THROTTLED: usize = 64 * 1024;

/// Failed logins that an address has for nothing, since many users can be behind it.
pub const FREE_FAILURES: u32 = 4;

/// Guesses of an address that may be under way at a time if somebody has logged in from it
/// of late: those of a NAT whose users all come at once, each for the tens of milliseconds
/// that a directory or a hash takes. An account of one's own buys that many guesses, and
/// then as many minutes of the longest waits.
pub const GUESSES_OF_KNOWN_ADDRESS: u32 = 32;

/// The same of a user who has logged in from the same address of late: clients that open
/// two connections at once, and one that has left an exchange open.
pub const GUESSES_OF_KNOWN_USER: u32 = 3;

/// Logins that wait until others of the same address, or of the same user in a network,
/// have come out: all the users of a large NAT.
pub const GUESSES_IN_LINE: usize = 1024;

/// The time in which one failed login of an address, or of a user in a network, is
/// forgotten.
pub const FAILURE_FORGOTTEN: Duration = Duration::from_mins(1);

/// How long an address, and a user there, is known for a login: a few polls of any client.
pub const ADDRESS_KNOWN: Duration = Duration::from_hours(1);

/// How long after a session its user may come back within the delay between logins, to
/// delete what it fetched: clients that do so do it at once.
pub const LOGIN_DELAY_RETURN: Duration = Duration::from_secs(30);

/// Largest file of networks in octets: a million of them.
pub const NETWORK_LIST: u64 = 32 << 20;

/// Addresses that are remembered because somebody logged in from there, and users there:
/// 6 MiB.
pub const KNOWN_ADDRESSES: usize = 256 * 1024;

/// Users of whom it is remembered when they came: 16 MiB. It is touched only where
/// `limits.login_delay` or `limits.poll_interval` is set.
pub const VISITS: usize = 256 * 1024;

/// Parts of the table of sessions: enough that 64 cores seldom meet.
pub const SEAT_PARTS: usize = 256;

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

/// Most rounds that one PBKDF2 hash, or SCRAM, may ask for: several seconds of an auth
/// thread.
pub const PBKDF2_ROUNDS: u32 = 10_000_000;

/// Longest salt that SCRAM may have, in octets: four times the usual.
pub const SCRAM_SALT: usize = 64;

/// Highest bcrypt cost: about a minute of an auth thread.
pub const BCRYPT_COST: u32 = 20;

const _: () = assert!(USER_NAME >= COMMAND_LINE);
const _: () = assert!(PASSWORD >= COMMAND_LINE);
const _: () = assert!(DIRECTORY_REST_LEAST.as_secs() < DIRECTORY_REST_MOST.as_secs());
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

/// Octets of messages that are read to see whether they are those of before under other
/// names, where most of a maildrop's would be: what a first login reads of any maildrop,
/// in a second or two from memory. What is not read is judged by its file's time.
pub const GUARD_READS: u64 = 1 << 30;

const _: () = assert!(FILE_NAME <= u8::MAX as usize);
// Positions in a snapshot's names are 32 bits wide.
/// Octets of an index that are read: of each message that a maildrop may have a name, a
/// unique-id and some numbers, twice, since an index grows to that before it is written
/// anew. What stands behind them is damage.
pub const INDEX: u64 = 2 * (MAILDROP_MESSAGES * (FILE_NAME + UNIQUE_ID + 64)) as u64;

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
