//! One row for every flag: name, kind, default, effect, help.
//!
//! Names and defaults are etcd's, from its 3.5 to its 3.7 line, so that manifests written for any
//! of them start this server. A flag that cannot be honoured is either harmless to ignore (one
//! warning) or refused. How rows are read is `args.rs`.

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// Its value when nobody gives one.
    pub default: &'static str,
    /// What giving it does.
    pub effect: Effect,
    /// One sentence for the help; empty to leave the flag out of it.
    pub help: &'static str,
    /// The heading it stands under in the help.
    pub group: &'static str,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; the bare flag means `true`.
    Bool,
    /// A whole number that may be negative.
    Int,
    /// A whole number.
    Uint,
    /// A whole number below 2^32.
    Uint32,
    /// Go's notation for a duration.
    Duration,
    /// Anything.
    Text,
    /// A whole number or a duration.
    Retention,
    /// URLs, comma-separated, at least one.
    Urls,
    /// URLs, comma-separated, or nothing.
    OptionalUrls,
    /// `name=url,name=url`, or nothing.
    Cluster,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `gate=true,gate=false`.
    Gates,
    /// A flag of the past: its value does not matter and may be absent.
    Ignored,
}

/// What giving a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What its help says.
    Works,
    /// The same as another flag.
    Alias(&'static str),
    /// Nothing, and why; a value other than the default is warned about.
    None(&'static str),
    /// Nothing, in etcd as here; always warned about.
    Removed,
    /// A value other than the default stops the program: ignoring it would be unsafe.
    Refused(&'static str),
}

/// The row of a flag.
pub fn find(flags: &'static [Flag], name: &str) -> Option<&'static Flag> {
    flags.iter().find(|flag| flag.name == name)
}

use Effect::{Alias, None, Refused, Removed, Works};
use Kind::{
    Bool, Cluster, Duration, Gates, Ignored, Int, OneOf, OptionalUrls, Retention, Text, Uint,
    Uint32, Urls,
};

const NOT_BUILT: &str = "it is not built yet";
const NO_NEED: &str = "there is nothing to set in this server";
const PINGS: &str = "clients may ping as often as they like";
const ALWAYS_REUSED: &str = "listeners always set SO_REUSEADDR";
const NO_DISCOVERY_V2: &str = "discovery by the v2 API does not exist in this server, \
    give --initial-cluster or --discovery-token with --discovery-endpoints";
const NO_V2: &str = "the v2 API does not exist in this server";
const NO_PROXY: &str = "the v2 proxy does not exist in this server";
const NO_SELF: &str = "this member does not connect to itself";

const fn row(
    group: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    effect: Effect,
    help: &'static str,
) -> Flag {
    Flag { name, kind, default, effect, help, group }
}

/// The flags of `holdfast dev`.
pub const DEVELOPMENT: &[Flag] = &[
    row("", "members", Uint32, "3", Works, "Members of the cluster."),
    row("", "data-dir", Text, "holdfast-dev", Works, "Folder that holds the members' data."),
    row("", "base-port", Uint32, "2379", Works, "First port; a member takes two."),
];

/// The flags of the server.
#[rustfmt::skip] // one line a flag, as a table is read
pub const SERVER: &[Flag] = &[
    row("Member", "name", Text, "default", Works, "Human-readable name of this member."),
    row("Member", "data-dir", Text, "", Works, "Folder that holds everything this member keeps (default ${name}.etcd)."),
    row("Member", "wal-dir", Text, "", Works, "Folder of the write-ahead log, when apart from the data."),
    row("Member", "snapshot-count", Uint, "10000", Works, "Entries between two checkpoints, at least, if they are not many bytes."),
    row("Member", "snapshot-catchup-entries", Uint, "5000", Works, "Entries kept behind a checkpoint for slow members, at most."),
    row("Member", "heartbeat-interval", Uint, "100", Works, "Milliseconds between a leader's heartbeats."),
    row("Member", "election-timeout", Uint, "1000", Works, "Milliseconds without a heartbeat until an election; at least 5 heartbeats."),
    row("Member", "initial-election-tick-advance", Bool, "true", None(NO_NEED), "Shorten the first election timeout."),
    row("Member", "listen-peer-urls", Urls, "http://localhost:2380", Works, "URLs to listen on for other members."),
    row("Member", "listen-client-urls", Urls, "http://localhost:2379", Works, "URLs to listen on for clients, gRPC and HTTP."),
    row("Member", "listen-client-http-urls", OptionalUrls, "", Works, "URLs for HTTP clients; the client URLs then serve gRPC alone."),
    row("Member", "max-snapshots", Uint, "5", None(NO_NEED), "Snapshot files to keep."),
    row("Member", "max-wals", Uint, "5", None(NO_NEED), "Log files to keep."),
    row("Member", "memory-mlock", Bool, "false", None(NOT_BUILT), "Keep all pages in memory."),
    row("Member", "quota-backend-bytes", Int, "0", Works, "Bytes the data may take: 0 means 2 GiB, a negative number no limit."),
    row("Member", "block-cache-bytes", Uint, "67108864", Works, "Bytes of values kept in memory (Holdfast only)."),
    row("Member", "backend-bbolt-freelist-type", OneOf(&["map", "array"]), "map", None(NO_NEED), "Kind of free list."),
    row("Member", "backend-batch-interval", Duration, "0s", None(NO_NEED), "Longest time between backend commits."),
    row("Member", "backend-batch-limit", Int, "0", None(NO_NEED), "Operations between backend commits."),
    row("Member", "max-txn-ops", Uint32, "128", Works, "Operations permitted in a transaction."),
    row("Member", "max-request-bytes", Uint32, "1572864", Works, "Bytes permitted in a request."),
    row("Member", "max-concurrent-streams", Uint32, "4294967295", Works, "Streams permitted on a client connection."),
    row("Member", "grpc-keepalive-min-time", Duration, "5s", None(PINGS), "Shortest interval at which a client may ping."),
    row("Member", "grpc-keepalive-interval", Duration, "2h0m0s", Works, "Interval of pings to clients; 0 turns them off."),
    row("Member", "grpc-keepalive-timeout", Duration, "20s", Works, "Wait for the answer to a ping; 0 turns pings off."),
    row("Member", "socket-reuse-port", Bool, "false", Works, "Listen with SO_REUSEPORT."),
    row("Member", "socket-reuse-address", Bool, "false", None(ALWAYS_REUSED), "Listen with SO_REUSEADDR."),
    row("Member", "enable-grpc-gateway", Bool, "true", Works, "Serve the JSON gateway."),
    row("Member", "raft-read-timeout", Duration, "5s", None(NO_NEED), "Read timeout between members."),
    row("Member", "raft-write-timeout", Duration, "5s", None(NO_NEED), "Write timeout between members."),
    row("Member", "feature-gates", Gates, "", Works, "Feature gates, name=true|false: InitialCorruptCheck and CompactHashCheck do something."),

    row("Clustering", "initial-advertise-peer-urls", Urls, "http://localhost:2380", Works, "This member's peer URLs, as the others reach them."),
    row("Clustering", "initial-cluster", Cluster, "", Works, "Members to begin with: name=url,name=url (default: this one alone)."),
    row("Clustering", "initial-cluster-state", OneOf(&["new", "existing"]), "new", Works, "Whether the cluster begins now or this member joins one."),
    row("Clustering", "initial-cluster-token", Text, "etcd-cluster", Works, "Token that tells clusters apart."),
    row("Clustering", "advertise-client-urls", Urls, "http://localhost:2379", Works, "This member's client URLs, as clients reach them."),
    row("Clustering", "discovery", Text, "", Refused(NO_DISCOVERY_V2), "Bootstrap through a discovery service."),
    row("Clustering", "discovery-token", Text, "", Works, "Found the cluster with whoever registers under this token at --discovery-endpoints; ignored once there is data."),
    row("Clustering", "discovery-endpoints", Text, "", Works, "Client URLs of another cluster, this one or etcd, where members register."),
    row("Clustering", "discovery-dial-timeout", Duration, "2s", Works, "Wait for a connection to it; 0 for no limit."),
    row("Clustering", "discovery-request-timeout", Duration, "5s", Works, "Wait for its answer."),
    row("Clustering", "discovery-keepalive-time", Duration, "2s", Works, "Interval of pings to it, of 10s at least; 0 turns them off."),
    row("Clustering", "discovery-keepalive-timeout", Duration, "6s", Works, "Wait for the answer to a ping."),
    row("Clustering", "discovery-insecure-transport", Bool, "true", Works, "Connect without TLS where an endpoint has no scheme and no other flag asks for TLS."),
    row("Clustering", "discovery-insecure-skip-tls-verify", Bool, "false", Works, "Take any certificate of it."),
    row("Clustering", "discovery-cert", Text, "", Works, "Certificate of this member towards it."),
    row("Clustering", "discovery-key", Text, "", Works, "Key of that certificate."),
    row("Clustering", "discovery-cacert", Text, "", Works, "Authorities for its certificates; the system's by default."),
    row("Clustering", "discovery-user", Text, "", Works, "User there, or user:password."),
    row("Clustering", "discovery-password", Text, "", Works, "Password of that user."),
    row("Clustering", "discovery-proxy", Text, "", None(NO_DISCOVERY_V2), "Bootstrap through a discovery service."),
    row("Clustering", "discovery-fallback", OneOf(&["exit", "proxy"]), "exit", None(NO_DISCOVERY_V2), "What to do when discovery fails."),
    row("Clustering", "discovery-srv", Text, "", Works, "Domain whose SRV records name the members of the initial cluster; ignored once there is data."),
    row("Clustering", "discovery-srv-name", Text, "", Works, "Suffix of the services that are asked for there."),
    row("Clustering", "strict-reconfig-check", Bool, "true", Works, "Refuse changes of membership that would lose the quorum."),
    row("Clustering", "pre-vote", Bool, "true", Works, "Ask for votes before raising the term."),
    row("Clustering", "auto-compaction-retention", Retention, "0", Works, "History to keep when compacting by itself: hours, a duration, or revisions; 0 compacts nothing."),
    row("Clustering", "auto-compaction-mode", OneOf(&["periodic", "revision"]), "periodic", Works, "Unit of that history."),
    row("Clustering", "v2-deprecation", Text, "write-only", None(NO_V2), "Phase of the v2 store."),

    row("Security", "cert-file", Text, "", Works, "Certificate for clients."),
    row("Security", "key-file", Text, "", Works, "Key of that certificate."),
    row("Security", "client-cert-auth", Bool, "false", Works, "Ask clients for a certificate."),
    row("Security", "client-cert-file", Text, "", None(NO_SELF), "Certificate of this member as a client."),
    row("Security", "client-key-file", Text, "", None(NO_SELF), "Key of that certificate."),
    row("Security", "client-crl-file", Text, "", Works, "Revoked client certificates."),
    row("Security", "client-cert-allowed-hostname", Text, "", Works, "Names permitted in client certificates."),
    row("Security", "trusted-ca-file", Text, "", Works, "Authorities for client certificates."),
    row("Security", "auto-tls", Bool, "false", Works, "Make a certificate for clients."),
    row("Security", "peer-cert-file", Text, "", Works, "Certificate for other members."),
    row("Security", "peer-key-file", Text, "", Works, "Key of that certificate."),
    row("Security", "peer-client-cert-auth", Bool, "false", Works, "Ask other members for a certificate."),
    row("Security", "peer-client-cert-file", Text, "", Works, "Certificate of this member towards others."),
    row("Security", "peer-client-key-file", Text, "", Works, "Key of that certificate."),
    row("Security", "peer-trusted-ca-file", Text, "", Works, "Authorities for other members' certificates."),
    row("Security", "peer-cert-allowed-cn", Text, "", Works, "Names permitted in other members' certificates."),
    row("Security", "peer-cert-allowed-hostname", Text, "", Works, "Host names permitted in other members' certificates."),
    row("Security", "peer-auto-tls", Bool, "false", Works, "Make a certificate for other members."),
    row("Security", "peer-crl-file", Text, "", Works, "Revoked member certificates."),
    row("Security", "cipher-suites", Text, "", Works, "Permitted cipher suites."),
    row("Security", "tls-max-version", OneOf(&["", "TLS1.2", "TLS1.3"]), "", Works, "Newest TLS version."),
    row("Security", "tls-min-version", OneOf(&["", "TLS1.2", "TLS1.3"]), "TLS1.2", Works, "Oldest TLS version."),
    row("Security", "self-signed-cert-validity", Uint, "1", Works, "Years a self-made certificate is valid."),
    row("Security", "peer-skip-client-san-verification", Bool, "false", Works, "Do not check the names in other members' certificates."),
    row("Security", "cors", Text, "*", Works, "Origins permitted for browsers."),
    row("Security", "host-whitelist", Text, "*", Works, "Host names permitted in HTTP requests without TLS."),

    row("Auth", "auth-token", Text, "simple", Works, "Kind of token: simple, or jwt,sign-method=M,pub-key=F,priv-key=F,ttl=D; empty for none."),
    row("Auth", "bcrypt-cost", Uint, "10", Works, "Strength of password hashes."),
    row("Auth", "auth-token-ttl", Uint, "300", Works, "Seconds a simple token is valid that is not used."),

    row("Monitoring and logging", "enable-pprof", Bool, "false", None(NOT_BUILT), "Serve profiles."),
    row("Monitoring and logging", "metrics", OneOf(&["basic", "extensive"]), "basic", Works, "Detail of the metrics: extensive ones time every call."),
    row("Monitoring and logging", "listen-metrics-urls", OptionalUrls, "", Works, "URLs to serve metrics and health checks on, beside the client URLs."),
    row("Monitoring and logging", "logger", OneOf(&["zap"]), "zap", Works, "Kind of log; only zap."),
    row("Monitoring and logging", "log-outputs", Text, "default", Works, "stderr, stdout, default (stderr) or files, comma-separated."),
    row("Monitoring and logging", "log-level", OneOf(&["debug", "info", "warn", "error", "dpanic", "panic", "fatal"]), "info", Works, "Least level to log."),
    row("Monitoring and logging", "log-format", OneOf(&["json", "console"]), "json", Works, "Form of a log line."),
    row("Monitoring and logging", "enable-log-rotation", Bool, "false", Works, "Put the file of --log-outputs aside when it is full."),
    row("Monitoring and logging", "log-rotation-config-json", Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", Works, "When it is full, in MiB, and how long the others are kept, in days, or how many."),
    row("Monitoring and logging", "warning-apply-duration", Duration, "100ms", Works, "Warn about an apply that takes longer."),
    row("Monitoring and logging", "warning-unary-request-duration", Duration, "300ms", Works, "Warn about a request that takes longer."),
    row("Monitoring and logging", "enable-distributed-tracing", Bool, "false", Works, "Send a span of each traced call to an OpenTelemetry collector."),
    row("Monitoring and logging", "distributed-tracing-address", Text, "localhost:4317", Works, "Where to send traces."),
    row("Monitoring and logging", "distributed-tracing-service-name", Text, "etcd", Works, "Service named in traces."),
    row("Monitoring and logging", "distributed-tracing-instance-id", Text, "", Works, "Instance named in traces."),
    row("Monitoring and logging", "distributed-tracing-sampling-rate", Int, "0", Works, "Calls traced of a million, when whoever calls does not decide it."),

    row("Maintenance", "corrupt-check-time", Duration, "0s", Works, "Interval at which the leader compares all members' data; 0 for never."),
    row("Maintenance", "compact-hash-check-time", Duration, "1m0s", Works, "Interval at which it looks for a compaction to compare after (CompactHashCheck)."),
    row("Maintenance", "compaction-batch-limit", Int, "1000", None(NO_NEED), "Revisions removed in one compaction step."),
    row("Maintenance", "compaction-sleep-interval", Duration, "10ms", None(NO_NEED), "Pause between compaction steps."),
    row("Maintenance", "watch-progress-notify-interval", Duration, "10m0s", Works, "Interval of progress notifications; at least 100ms."),
    row("Maintenance", "downgrade-check-time", Duration, "5s", None(NO_NEED), "Interval of downgrade checks."),
    row("Maintenance", "bootstrap-defrag-threshold-megabytes", Uint, "0", None(NO_NEED), "Defragment at start above this."),
    row("Maintenance", "max-learners", Int, "1", Works, "Learners permitted at a time."),

    row("Unsafe", "force-new-cluster", Bool, "false", Works, "Make this member, with its data, a cluster of its own, with a new id; drop the flag once it is up."),
    row("Unsafe", "unsafe-no-fsync", Bool, "false", Works, "Never wait for the disk: a power cut loses data."),

    row("Other", "version", Bool, "false", Works, "Print the versions and exit."),
    row("Other", "config-file", Text, "", Works, "Read all settings from this YAML file, and none from elsewhere."),

    row("Older names", "experimental-bootstrap-defrag-threshold-megabytes", Uint, "0", Alias("bootstrap-defrag-threshold-megabytes"), ""),
    row("Older names", "experimental-backend-bbolt-freelist-type", OneOf(&["map", "array"]), "map", Alias("backend-bbolt-freelist-type"), ""),
    row("Older names", "experimental-wait-cluster-ready-timeout", Duration, "5s", None(NO_NEED), ""),
    row("Older names", "wait-cluster-ready-timeout", Duration, "5s", None(NO_NEED), ""),
    row("Older names", "experimental-compact-hash-check-time", Duration, "1m0s", Alias("compact-hash-check-time"), ""),
    row("Older names", "experimental-compaction-batch-limit", Int, "1000", Alias("compaction-batch-limit"), ""),
    row("Older names", "experimental-compaction-sleep-interval", Duration, "10ms", Alias("compaction-sleep-interval"), ""),
    row("Older names", "experimental-corrupt-check-time", Duration, "0s", Alias("corrupt-check-time"), ""),
    row("Older names", "experimental-downgrade-check-time", Duration, "5s", Alias("downgrade-check-time"), ""),
    row("Older names", "experimental-enable-distributed-tracing", Bool, "false", Alias("enable-distributed-tracing"), ""),
    row("Older names", "experimental-distributed-tracing-address", Text, "localhost:4317", Alias("distributed-tracing-address"), ""),
    row("Older names", "experimental-distributed-tracing-service-name", Text, "etcd", Alias("distributed-tracing-service-name"), ""),
    row("Older names", "experimental-distributed-tracing-instance-id", Text, "", Alias("distributed-tracing-instance-id"), ""),
    row("Older names", "experimental-distributed-tracing-sampling-rate", Int, "0", Alias("distributed-tracing-sampling-rate"), ""),
    row("Older names", "experimental-memory-mlock", Bool, "false", Alias("memory-mlock"), ""),
    row("Older names", "experimental-peer-skip-client-san-verification", Bool, "false", Alias("peer-skip-client-san-verification"), ""),
    row("Older names", "experimental-snapshot-catchup-entries", Uint, "5000", Alias("snapshot-catchup-entries"), ""),
    row("Older names", "experimental-warning-apply-duration", Duration, "100ms", Alias("warning-apply-duration"), ""),
    row("Older names", "experimental-warning-unary-request-duration", Duration, "300ms", Alias("warning-unary-request-duration"), ""),
    row("Older names", "experimental-watch-progress-notify-interval", Duration, "10m0s", Alias("watch-progress-notify-interval"), ""),
    row("Older names", "experimental-max-learners", Int, "1", Alias("max-learners"), ""),
    row("Older names", "experimental-compact-hash-check-enabled", Bool, "false", Works, ""),
    row("Older names", "experimental-enable-lease-checkpoint", Bool, "false", None(NOT_BUILT), ""),
    row("Older names", "experimental-enable-lease-checkpoint-persist", Bool, "false", None(NOT_BUILT), ""),
    row("Older names", "experimental-initial-corrupt-check", Bool, "false", Works, ""),
    row("Older names", "experimental-stop-grpc-service-on-defrag", Bool, "false", None(NOT_BUILT), ""),
    row("Older names", "experimental-txn-mode-write-with-shared-buffer", Bool, "true", None(NO_NEED), ""),
    row("Older names", "experimental-enable-v2v3", Text, "", None(NO_V2), ""),
    row("Older names", "enable-v2", Bool, "false", None(NO_V2), ""),
    row("Older names", "proxy", OneOf(&["off", "readonly", "on"]), "off", Refused(NO_PROXY), ""),
    row("Older names", "proxy-failure-wait", Uint, "5000", None(NO_PROXY), ""),
    row("Older names", "proxy-refresh-interval", Uint, "30000", None(NO_PROXY), ""),
    row("Older names", "proxy-dial-timeout", Uint, "1000", None(NO_PROXY), ""),
    row("Older names", "proxy-write-timeout", Uint, "5000", None(NO_PROXY), ""),
    row("Older names", "proxy-read-timeout", Uint, "0", None(NO_PROXY), ""),
    row("Older names", "log-package-levels", Text, "", None(NO_NEED), ""),
    row("Older names", "debug", Bool, "false", None(NO_NEED), ""),
    row("Older names", "cluster-active-size", Ignored, "", Removed, ""),
    row("Older names", "cluster-remove-delay", Ignored, "", Removed, ""),
    row("Older names", "cluster-sync-interval", Ignored, "", Removed, ""),
    row("Older names", "config", Ignored, "", Removed, ""),
    row("Older names", "force", Ignored, "", Removed, ""),
    row("Older names", "max-result-buffer", Ignored, "", Removed, ""),
    row("Older names", "max-retry-attempts", Ignored, "", Removed, ""),
    row("Older names", "peer-heartbeat-interval", Ignored, "", Removed, ""),
    row("Older names", "peer-election-timeout", Ignored, "", Removed, ""),
    row("Older names", "retry-interval", Ignored, "", Removed, ""),
    row("Older names", "snapshot", Ignored, "", Removed, ""),
    row("Older names", "v", Ignored, "", Removed, ""),
    row("Older names", "vv", Ignored, "", Removed, ""),
    row("Older names", "test.coverprofile", Ignored, "", Removed, ""),
    row("Older names", "test.outputdir", Ignored, "", Removed, ""),
];
