//! Bounds of the protocol, each with a name and a unit. What an operator may choose is a setting, not a limit.

/// Longest name of a rule, an edge or an account, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Largest rendered configuration of a rule, in bytes (protocol.md section 3; more is `TOO_LARGE`).
pub const MAX_RENDERED_BYTES: usize = 64 * 1024;
/// Largest envelope on the wire, in bytes: a rendered rule, escaped as a JSON string within a JSON string, fits.
pub const MAX_ENVELOPE_BYTES: usize = 512 * 1024;
/// Longest detail of a result, a fault or a rejection, in bytes.
pub const MAX_DETAIL_BYTES: usize = 1024;
/// Rules that one edge holds at the most.
pub const MAX_RULES_PER_EDGE: usize = 200;
/// Removed rules whose highest generation an edge remembers; the one removed first is forgotten first.
pub const MAX_TOMBSTONES: usize = 1_000;
/// Rules told in one page of an inventory.
pub const INVENTORY_PAGE_RULES: usize = 50;
/// Other addresses of a remote broker that a rule names at the most.
pub const MAX_FALLBACK_URLS: usize = 7;
/// Application protocols that a rule offers at the most.
pub const MAX_ALPN: usize = 8;
/// Longest text of certificates, or of a private key, of a rule, in bytes.
pub const MAX_PEM_BYTES: usize = 24 * 1024;
/// Secrets that one `set` carries at the most.
pub const MAX_SECRETS_PER_RULE: usize = 8;

/// Seconds between two heartbeats of an edge, unless the welcome says otherwise.
pub const HEARTBEAT_S: u32 = 60;
/// An edge that was silent for this many tenths of a heartbeat is stale.
pub const STALE_AFTER_TENTHS: i64 = 25;
/// Milliseconds that a stale edge has to answer a ping.
pub const PONG_TIMEOUT_MS: i64 = 10_000;
/// Milliseconds within which an edge says `received`.
pub const RECEIVED_TIMEOUT_MS: i64 = 10_000;
/// Milliseconds between `received` and `result`.
pub const RESULT_TIMEOUT_MS: i64 = 60_000;
/// Milliseconds after which an operation of an edge that went offline fails, unless it was queued.
pub const OFFLINE_GRACE_MS: i64 = 60_000;
/// Milliseconds for which the latest desired state of an offline edge is kept.
pub const QUEUE_TTL_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// How often a transient failure is tried again before it counts as failed.
pub const MAX_TRANSIENT_TRIES: u32 = 5;
/// First pause between two tries after a transient failure, in milliseconds; it doubles.
pub const TRANSIENT_PAUSE_MS: i64 = 10_000;
/// Longest pause between two tries, in milliseconds.
pub const TRANSIENT_PAUSE_MAX_MS: i64 = 300_000;
/// Take-overs of one edge within [`TAKEOVER_WINDOW_MS`] that raise `DUPLICATE_EDGE`.
pub const MAX_TAKEOVERS: usize = 4;
/// Milliseconds over which take-overs are counted.
pub const TAKEOVER_WINDOW_MS: i64 = 300_000;
/// How far an edge may have seen an epoch above the controller's own, in milliseconds, for an operator to confirm it: a
/// year. Epochs are wall clocks of controllers; one further ahead is an error or a lie.
pub const MAX_EPOCH_LEAD_MS: u64 = 366 * 24 * 3_600 * 1_000;
/// How far a generation that an edge names may be above the controller's own, for an operator to confirm it. An action a
/// second for thirty years does not come so far; one further ahead is an error or a lie, and leaves no room above it.
pub const MAX_GENERATION_LEAD: u64 = 1 << 30;
/// Where the wall clock is behind, a controller's epoch rises by 1 to so much at random, in milliseconds: processes that were
/// started from copies of one store come to different epochs.
pub const EPOCH_SPREAD_MS: u64 = 1 << 16;
/// Least milliseconds between two hellos that an edge says because of a gap.
pub const HELLO_PAUSE_MS: i64 = 5_000;
/// Milliseconds between two hellos without cause (plus or minus a fifth).
pub const HELLO_EVERY_MS: i64 = 15 * 60 * 1_000;
/// Run state changes within a minute above which they are told as flapping.
pub const FLAPPING_PER_MINUTE: usize = 6;

/// Longest topic name or filter, in bytes. MQTT allows 65,535.
pub const MAX_TOPIC_BYTES: usize = 1024;
/// Most levels of a topic name or filter.
pub const MAX_TOPIC_LEVELS: usize = 32;
/// Largest text of a rule (TOML, YAML or JSON) that is read, in bytes.
pub const MAX_RULE_TEXT_BYTES: usize = 256 * 1024;
/// Forwards and subscriptions that one rule has at the most, together.
pub const MAX_ROUTES_PER_RULE: usize = 64;
/// Filters that one forward or subscription leaves out at the most.
pub const MAX_EXCLUDES_PER_ROUTE: usize = 16;
/// Variables that one rule declares at the most.
pub const MAX_VARS_PER_RULE: usize = 32;
/// Longest value of a variable, in bytes.
pub const MAX_VAR_VALUE_BYTES: usize = 128;
/// Longest client id at the remote broker after variables are filled in, in bytes.
pub const MAX_CLIENT_ID_BYTES: usize = 256;
/// Longest user name or password of the remote broker, in bytes.
pub const MAX_CREDENTIAL_BYTES: usize = 1024;
/// Longest name of a remote host, in bytes (RFC 1035).
pub const MAX_HOST_BYTES: usize = 253;
/// Least and most seconds of a rule's keep-alive; the most is what the MQTT field holds.
pub const KEEP_ALIVE_S: std::ops::RangeInclusive<u64> = 5..=65_535;
/// Least and most bytes of a rule's queue.
pub const QUEUE_BYTES: std::ops::RangeInclusive<u64> = (64 * 1024)..=(64 * 1024 * 1024 * 1024);
/// Least and most messages per second of a rule's drain limit.
pub const DRAIN_MESSAGES: std::ops::RangeInclusive<u64> = 1..=1_000_000;
/// Least and most bytes per second of a rule's drain limit.
pub const DRAIN_BYTES: std::ops::RangeInclusive<u64> = 1024..=(64 * 1024 * 1024 * 1024);
/// Least and most seconds for which a rule's queue keeps a message.
pub const QUEUE_AGE_S: std::ops::RangeInclusive<u64> = 10..=(366 * 24 * 3_600);
/// Least and most seconds for which an edge probes a changed rule before it commits it.
pub const VERIFY_S: std::ops::RangeInclusive<u64> = 5..=120;
/// Problems that are told at once at the most; what lies beyond is counted.
pub const MAX_PROBLEMS: usize = 100;
/// Longest `tid` of a command of another system, in bytes.
pub const MAX_TID_BYTES: usize = 64;
/// Largest command of another system, in bytes.
pub const MAX_COMMAND_BYTES: usize = 8 * 1024;
/// Placements that one acknowledgement of a list holds at the most.
pub const MAX_LISTED: usize = 50;
