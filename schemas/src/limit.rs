//! Sizes and times that everybody must agree on.
//!
//! A limit that only one part knows stands in that part. Durations are milliseconds, sizes are bytes.

/// Longest command text.
pub const COMMAND_TEXT_BYTES: usize = 64 * 1024;
/// Largest encoded command (the exact bytes of its spec).
pub const SPEC_BYTES: usize = 96 * 1024;
/// Longest name of a principal, and of whom it speaks for.
pub const PRINCIPAL_BYTES: usize = 128;
/// Longest host name or address of an SSH target.
pub const SSH_HOST_BYTES: usize = 255;
/// Most hosts between a machine and an SSH target.
pub const SSH_JUMPS: usize = 4;
/// Largest value of a credential, as JSON: a private key of any length in use, with its certificate.
pub const CREDENTIAL_VALUE_BYTES: usize = 24 * 1024;
/// Most credentials that one relay keeps.
pub const CREDENTIALS: usize = 1000;
/// Largest list of what a relay keeps, before it is put into its envelope.
pub const INVENTORY_BYTES: usize = 176 * 1024;
/// Most host keys that one command brings or takes.
pub const HOST_KEYS: usize = 256;
/// Longest line of a host key.
pub const HOST_KEY_BYTES: usize = 4096;
/// Longest `purpose`.
pub const PURPOSE_BYTES: usize = 1024;
/// Longest idempotency key: that many printable ASCII characters.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// Longest selector text.
pub const SELECTOR_BYTES: usize = 4096;
/// Most targets of one command.
pub const TARGETS: usize = 10_000;
/// Most grants of one part; a command with no more of them has one part.
pub const PART_GRANTS: usize = 1000;
/// Largest encoded part of a command that has several.
pub const PART_BYTES: usize = 512 * 1024;
/// Most parts of one command: 10 hold [`TARGETS`] grants, and some more do where grants are so long that bytes decide.
pub const PARTS: u32 = 16;
/// Most offers in one mailbox.
pub const OFFERS: usize = 64;
/// Largest sum of encoded offers in one mailbox.
pub const OFFERS_BYTES: usize = 160 * 1024;
/// Largest encoded mailbox.
pub const MAILBOX_BYTES: usize = 240 * 1024;
/// Most cancels in one mailbox: one per slot and waiting claim is plenty.
pub const CANCELS: usize = 256;
/// Largest message a relay may publish (enforced by its JWT).
pub const RELAY_PAYLOAD_BYTES: usize = 256 * 1024;
/// Largest message on the broker.
pub const BROKER_PAYLOAD_BYTES: usize = 1024 * 1024;
/// Largest fact (claim, rejection, withdrawal, start, exit, lost) including inline output.
pub const FACT_BYTES: usize = 128 * 1024;
/// Longest text for people, and longest code, in a fact that is shown; what is longer is cut.
pub const FACT_TEXT_BYTES: usize = 512;
/// Longest name of a signal: `SIGRTMIN+15` has 11.
pub const SIGNAL_BYTES: usize = 32;
/// Largest heartbeat.
pub const HEARTBEAT_BYTES: usize = 16 * 1024;
/// Largest authors document.
pub const AUTHORS_BYTES: usize = 256 * 1024;
/// Largest record in the `state` bucket.
pub const RECORD_BYTES: usize = 512 * 1024;
/// Output carried by the exit itself, both streams together, when the run ended before its first flush.
pub const INLINE_OUTPUT_BYTES: usize = 32 * 1024;
/// Largest output chunk.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// Output chunks in flight per run: with [`CHUNK_BYTES`] 1 MiB, which fills any link that was measured.
pub const CHUNKS_IN_FLIGHT: usize = 8;
/// Output that is kept past the cut, both streams together.
pub const TAIL_BYTES: u64 = 1024 * 1024;

/// Shortest and longest `timeout_ms`.
pub const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1..=172_800_000;
/// `timeout_ms` when none is given.
pub const DEFAULT_TIMEOUT_MS: u64 = 30_000;
/// `expires_in_ms` when none is given: a day.
pub const DEFAULT_EXPIRES_IN_MS: u64 = 24 * HOUR_MS;
/// Longest `expires_in_ms`: a week. RUN keeps nine days, so a register outlives every offer of it.
pub const MAX_EXPIRES_IN_MS: u64 = 7 * DAY_MS;
/// `max_output` when none is given.
pub const DEFAULT_MAX_OUTPUT: u64 = 128 * 1024 * 1024;
/// Largest `max_output`.
pub const MAX_MAX_OUTPUT: u64 = 4 * 1024 * 1024 * 1024;
/// The bridge withdraws an offer this long after `expires_at`; the relay is silent from `expires_at` on.
pub const EXPIRY_GRACE_MS: u64 = 2_000;
/// A claimed run without an exit is `lost` this long after claim time + `timeout_ms`: 30 s for the start,
/// 60 s for ending the processes and for reporting.
pub const LOST_GRACE_MS: u64 = 90_000;
/// Time between two heartbeats (± 10 %).
pub const HEARTBEAT_MS: u64 = 10_000;
/// A machine is stale when it was not heard for longer than this.
pub const STALE_MS: u64 = 25_000;
/// A machine is offline when it was not heard for longer than this.
pub const OFFLINE_MS: u64 = 60_000;
/// Longest validity of an authors document.
pub const AUTHORS_VALID_MS: u64 = 90 * DAY_MS;
/// A signed request older or newer than this is refused.
pub const REQUEST_SKEW_MS: u64 = 5 * 60_000;
/// No first answer in this time means that there is no bridge.
pub const FIRST_ANSWER_MS: u64 = 5_000;
/// An open feed speaks at least this often.
pub const FEED_ALIVE_MS: u64 = 5_000;
/// A feed that is silent for this long is opened anew.
pub const FEED_SILENCE_MS: u64 = 12_000;
/// Credit of a feed: output bytes that may be on their way unread.
pub const FEED_CREDIT_BYTES: u64 = 1024 * 1024;

/// One hour.
pub const HOUR_MS: u64 = 3_600_000;
/// One day.
pub const DAY_MS: u64 = 24 * HOUR_MS;
