//! The settings of a member, typed and checked against each other as etcd checks them.
//!
//! The texts of the errors are etcd's where etcd has one. Reads no files except to see whether the
//! data directory already holds a member.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_raft::{ClusterState, NodeConfig};

use crate::access::{Names, Rules};
use crate::args::Settings;
use crate::auth;
use crate::compactor::Retention;
use crate::discovery::Source;
use crate::net::ListenUrl;
use crate::server::ServerConfig;
use crate::tls::TlsSettings;
use crate::traces::{RATE_MAX, TraceSettings};

mod comparisons;
mod discovery;
mod tls;
mod urls;

pub use comparisons::Comparisons;
pub use urls::{Cluster, Urls};

/// etcd's name for the folder when only a name is given.
const DATA_DIRECTORY_SUFFIX: &str = ".etcd";
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(50_000);
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
const QUOTA_DEFAULT_BYTES: u64 = 2 << 30;
const QUOTA_SUGGESTED_MAX_BYTES: u64 = 8 << 30;
const REQUEST_SUGGESTED_MAX_BYTES: u32 = 10 << 20;

/// Everything a member is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// The folder of its data.
    pub data_directory: PathBuf,
    /// The folder of its log, if apart.
    pub log_directory: Option<PathBuf>,
    /// Where to listen for clients.
    pub listen_client: Vec<ListenUrl>,
    /// Where to listen for other members.
    pub listen_peer: Vec<ListenUrl>,
    /// Where else to serve health checks.
    pub listen_metrics: Vec<ListenUrl>,
    /// `--listen-client-http-urls`.
    pub listen_http: Vec<ListenUrl>,
    /// `--socket-reuse-port`.
    pub reuse_port: bool,
    /// TLS for clients.
    pub client_tls: TlsSettings,
    /// TLS between members.
    pub peer_tls: TlsSettings,
    /// How clients reach this member.
    pub advertise_client_urls: Vec<String>,
    /// How other members reach it.
    pub initial_advertise_peer_urls: Vec<String>,
    /// The members to begin with.
    pub initial_cluster: Cluster,
    /// Who says with whom to begin instead, if this member has no log.
    pub discovery: Option<Source>,
    /// Whether this member joins a cluster that exists.
    pub joins_existing: bool,
    /// Tells clusters apart, unless there is a token of discovery.
    pub initial_cluster_token: String,
    /// Between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Without a heartbeat, until an election; `5 * heartbeat_interval <= election_timeout`.
    pub election_timeout: Duration,
    /// Entries between checkpoints, at least.
    pub snapshot_count: u64,
    /// Entries kept behind a checkpoint.
    pub snapshot_catchup_entries: u64,
    /// Whether to ask before raising the term.
    pub pre_vote: bool,
    /// Bytes the data may take; `None` without a limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of values kept in memory.
    pub block_cache_bytes: u64,
    /// Bytes permitted in a request.
    pub max_request_bytes: u32,
    /// Operations permitted in a transaction.
    pub max_txn_ops: u32,
    /// Streams permitted on a connection.
    pub max_concurrent_streams: u32,
    /// Between pings to clients; zero for none.
    pub keepalive_interval: Duration,
    /// Wait for the answer to a ping; zero for no pings.
    pub keepalive_timeout: Duration,
    /// Between progress notifications to idle watchers.
    pub watch_progress_interval: Duration,
    /// For requests that are not gRPC.
    pub http: Rules,
    /// How much history is kept without anybody asking; none to keep everything.
    pub auto_compaction: Option<Retention>,
    /// When a request is warned about.
    pub warning_unary_request_duration: Duration,
    /// When an apply is warned about.
    pub warning_apply_duration: Duration,
    /// Where calls are traced to; none unless `--enable-distributed-tracing`.
    pub traces: Option<TraceSettings>,
    /// Whether calls are timed.
    pub extensive_metrics: bool,
    /// Never wait for the disk.
    pub unsafe_no_fsync: bool,
    /// Refuse changes of the membership that endanger the quorum.
    pub strict_reconfig_check: bool,
    /// Learners permitted at a time.
    pub learners_max: u64,
    /// Go on as the only member of the cluster.
    pub force_new_cluster: bool,
    /// How clients authenticate.
    pub auth: auth::Settings,
    /// When members are compared.
    pub comparisons: Comparisons,
}

/// Settings that do not fit together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// The typed settings, with what the operator should know about them (one line each).
    pub fn resolve(settings: &Settings) -> Result<(Self, Vec<String>), ConfigError> {
        check_advertised(settings)?;
        comparisons::check_gates(settings)?;
        let name = settings.text("name").to_owned();
        let advertise_peer = urls(settings, "initial-advertise-peer-urls");
        let initial_cluster = match settings.text("initial-cluster") {
            "" => Cluster::single(&name, &advertise_peer),
            text => Cluster::parse(text).expect("checked when it was read"),
        };
        let data_directory = data_directory(settings, &name)?;
        let log_directory = log_directory(settings)?;
        let listen_client = listen(settings, "listen-client-urls")?;
        let listen_peer = listen(settings, "listen-peer-urls")?;
        let (auth, auth_warnings) = auth::Settings::resolve(settings)
            .map_err(|reason| ConfigError(format!("--auth-token: {reason}")))?;
        let config = Self {
            client_tls: tls::client(settings, &data_directory, &listen_client)?,
            peer_tls: tls::peer(settings, &data_directory, &listen_peer)?,
            data_directory,
            log_directory,
            name,
            listen_client,
            listen_peer,
            listen_metrics: listen(settings, "listen-metrics-urls")?,
            listen_http: listen(settings, "listen-client-http-urls")?,
            reuse_port: settings.boolean("socket-reuse-port"),
            advertise_client_urls: urls(settings, "advertise-client-urls").into_vec(),
            initial_advertise_peer_urls: advertise_peer.into_vec(),
            initial_cluster,
            discovery: discovery::resolve(settings)?,
            joins_existing: settings.text("initial-cluster-state") == "existing",
            initial_cluster_token: settings.text("initial-cluster-token").to_owned(),
            heartbeat_interval: settings.milliseconds("heartbeat-interval"),
            election_timeout: settings.milliseconds("election-timeout"),
            snapshot_count: settings.unsigned("snapshot-count"),
            snapshot_catchup_entries: settings.unsigned("snapshot-catchup-entries"),
            pre_vote: settings.boolean("pre-vote"),
            quota_bytes: quota(settings.signed("quota-backend-bytes")),
            block_cache_bytes: settings.unsigned("block-cache-bytes"),
            max_request_bytes: settings.unsigned32("max-request-bytes"),
            max_txn_ops: settings.unsigned32("max-txn-ops"),
            max_concurrent_streams: settings.unsigned32("max-concurrent-streams"),
            keepalive_interval: settings.duration("grpc-keepalive-interval"),
            keepalive_timeout: settings.duration("grpc-keepalive-timeout"),
            watch_progress_interval: settings.duration("watch-progress-notify-interval"),
            http: Rules {
                gateway: settings.boolean("enable-grpc-gateway"),
                origins: Names::parse(settings.text("cors")),
                hosts: Names::parse(settings.text("host-whitelist")),
            },
            auto_compaction: retention(settings),
            warning_unary_request_duration: settings.duration("warning-unary-request-duration"),
            warning_apply_duration: settings.duration("warning-apply-duration"),
            traces: traces(settings)?,
            extensive_metrics: settings.text("metrics") == "extensive",
            unsafe_no_fsync: settings.boolean("unsafe-no-fsync"),
            strict_reconfig_check: settings.boolean("strict-reconfig-check"),
            learners_max: u64::try_from(settings.signed("max-learners")).unwrap_or(0),
            force_new_cluster: settings.boolean("force-new-cluster"),
            auth,
            comparisons: Comparisons::resolve(settings)?,
        };
        config.check_timing()?;
        config.check_bootstrap()?;
        config.check_tls()?;
        let mut warnings = config.warnings();
        warnings.extend(config.tls_warnings(settings));
        warnings.extend(auth_warnings);
        warnings.extend(discovery::warnings(settings, config.discovery.as_ref()));
        warnings.extend(comparisons::warnings(settings));
        Ok((config, warnings))
    }

    /// What the server is started with.
    pub fn into_server(self) -> ServerConfig {
        let node = NodeConfig {
            log_directory: self.log_directory,
            initial_advertise_peer_urls: self.initial_advertise_peer_urls,
            initial_cluster: self
                .initial_cluster
                .members()
                .map(|(name, urls)| (name.to_owned(), urls.to_vec()))
                .collect(),
            initial_cluster_state: if self.joins_existing {
                ClusterState::Existing
            } else {
                ClusterState::New
            },
            initial_cluster_token: match &self.discovery {
                Some(Source::Registry(registry)) => registry.token.clone(),
                Some(Source::Records(_)) | None => self.initial_cluster_token,
            },
            advertise_client_urls: self.advertise_client_urls,
            heartbeat_interval: self.heartbeat_interval,
            election_timeout: self.election_timeout,
            snapshot_count: self.snapshot_count,
            snapshot_catchup_entries: self.snapshot_catchup_entries,
            max_request_bytes: self.max_request_bytes as usize,
            quota_bytes: self.quota_bytes,
            unsafe_no_fsync: self.unsafe_no_fsync,
            strict_reconfig_check: self.strict_reconfig_check,
            learners_max: self.learners_max,
            force_new_cluster: self.force_new_cluster,
            pre_vote: self.pre_vote,
            block_cache_bytes: self.block_cache_bytes,
            warning_apply_duration: self.warning_apply_duration,
            corrupt_check_time: self.comparisons.newest_every,
            compact_hash_check_time: self.comparisons.compacted_every,
            ..NodeConfig::new(self.name, self.data_directory)
        };
        ServerConfig {
            listen_metrics: self.listen_metrics,
            listen_http: self.listen_http,
            reuse_port: self.reuse_port,
            listen_peer: self.listen_peer,
            discovery: self.discovery,
            client_tls: self.client_tls,
            peer_tls: self.peer_tls,
            max_request_bytes: self.max_request_bytes,
            max_txn_ops: self.max_txn_ops,
            max_concurrent_streams: self.max_concurrent_streams,
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
            watch_progress_interval: self.watch_progress_interval,
            http: self.http,
            auto_compaction: self.auto_compaction,
            warning_unary_request_duration: self.warning_unary_request_duration,
            traces: self.traces,
            extensive_metrics: self.extensive_metrics,
            auth: self.auth,
            initial_corrupt_check: self.comparisons.at_start,
            ..ServerConfig::new(node, self.listen_client)
        }
    }

    fn check_timing(&self) -> Result<(), ConfigError> {
        let (heartbeat, election) = (self.heartbeat_interval, self.election_timeout);
        if heartbeat.is_zero() {
            return error("--heartbeat-interval must be >0 (set to 0ms)");
        }
        if election.is_zero() {
            return error("--election-timeout must be >0 (set to 0ms)");
        }
        if heartbeat.checked_mul(5).is_none_or(|least| least > election) {
            return error(format!(
                "--election-timeout[{}ms] should be at least as 5 times as \
                 --heartbeat-interval[{}ms]",
                election.as_millis(),
                heartbeat.as_millis()
            ));
        }
        if election > ELECTION_TIMEOUT_MAX {
            return error(format!(
                "--election-timeout[{}ms] is too long, and should be set less than {}ms",
                election.as_millis(),
                ELECTION_TIMEOUT_MAX.as_millis()
            ));
        }
        if self.watch_progress_interval < PROGRESS_INTERVAL_MIN {
            return error(format!(
                "--watch-progress-notify-interval[{:?}] is too short, and should be at least {:?}",
                self.watch_progress_interval, PROGRESS_INTERVAL_MIN
            ));
        }
        Ok(())
    }

    /// The description of the initial cluster matters only to a member that has no data yet.
    fn check_bootstrap(&self) -> Result<(), ConfigError> {
        if holds_member(self.log_directory.as_ref().unwrap_or(&self.data_directory)) {
            return Ok(());
        }
        if self.joins_existing && matches!(self.discovery, Some(Source::Registry(_))) {
            return error("discovery should not be set when joining existing initial cluster");
        }
        let Some(urls) = self.initial_cluster.urls_of(&self.name) else {
            return error(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ));
        };
        if urls != self.initial_advertise_peer_urls {
            return error(format!(
                "--initial-cluster has {}={} but --initial-advertise-peer-urls={}",
                self.name,
                urls.join(","),
                self.initial_advertise_peer_urls.join(",")
            ));
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(quota) = self.quota_bytes.filter(|quota| *quota > QUOTA_SUGGESTED_MAX_BYTES) {
            warnings.push(format!(
                "--quota-backend-bytes={quota} exceeds etcd's suggested maximum of \
                 {QUOTA_SUGGESTED_MAX_BYTES}; a backup restored into etcd may not fit"
            ));
        }
        if self.max_request_bytes > REQUEST_SUGGESTED_MAX_BYTES {
            warnings.push(format!(
                "--max-request-bytes={} exceeds the recommended {REQUEST_SUGGESTED_MAX_BYTES}",
                self.max_request_bytes
            ));
        }
        if self.unsafe_no_fsync {
            warnings.push("--unsafe-no-fsync: a power cut loses acknowledged writes".to_owned());
        }
        warnings
    }
}

fn error<T>(message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(message.into()))
}

/// A member that listens elsewhere than by default must say how clients reach it.
fn check_advertised(settings: &Settings) -> Result<(), ConfigError> {
    if settings.is_set("listen-client-urls") && !settings.is_set("advertise-client-urls") {
        return error(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        );
    }
    Ok(())
}

fn urls(settings: &Settings, flag: &str) -> Urls {
    Urls::parse(settings.text(flag)).expect("checked when it was read")
}

fn listen(settings: &Settings, flag: &str) -> Result<Vec<ListenUrl>, ConfigError> {
    if settings.text(flag).is_empty() {
        return Ok(Vec::new());
    }
    urls(settings, flag).listen().map_err(|reason| ConfigError(format!("--{flag}: {reason}")))
}

/// The folder as an absolute path, so that a later change of folder cannot move it.
fn data_directory(settings: &Settings, name: &str) -> Result<PathBuf, ConfigError> {
    let path = match settings.text("data-dir") {
        "" => PathBuf::from(format!("{name}{DATA_DIRECTORY_SUFFIX}")),
        text => PathBuf::from(text),
    };
    absolute("data-dir", &path)
}

fn log_directory(settings: &Settings) -> Result<Option<PathBuf>, ConfigError> {
    let path = Some(settings.text("wal-dir")).filter(|path| !path.is_empty());
    path.map(|path| absolute("wal-dir", Path::new(path))).transpose()
}

fn absolute(flag: &str, path: &Path) -> Result<PathBuf, ConfigError> {
    let failed = |reason| ConfigError(format!("--{flag} {}: {reason}", path.display()));
    std::path::absolute(path).map_err(failed)
}

fn quota(bytes: i64) -> Option<u64> {
    match bytes {
        0 => Some(QUOTA_DEFAULT_BYTES),
        _ => u64::try_from(bytes).ok(),
    }
}

fn traces(settings: &Settings) -> Result<Option<TraceSettings>, ConfigError> {
    if !settings.boolean("enable-distributed-tracing") {
        return Ok(None);
    }
    let rate = settings.signed("distributed-tracing-sampling-rate");
    if rate < 0 {
        return error("distributed tracing sampling rate must be positive");
    }
    let text = |flag: &str| settings.text(flag).to_owned();
    match u32::try_from(rate) {
        Ok(rate) if rate <= RATE_MAX => Ok(Some(TraceSettings {
            address: text("distributed-tracing-address"),
            service: text("distributed-tracing-service-name"),
            instance: text("distributed-tracing-instance-id"),
            rate,
        })),
        _ => error(format!("distributed tracing sampling rate must be less than {RATE_MAX}")),
    }
}

/// A bare number is revisions in one mode and hours in the other; etcd reads a duration in the mode
/// of revisions as nanoseconds, and so a number of revisions.
fn retention(settings: &Settings) -> Option<Retention> {
    let text = settings.text("auto-compaction-retention");
    let by_revision = settings.text("auto-compaction-mode") == "revision";
    let retention = match (text.parse::<u32>(), by_revision) {
        (Ok(revisions), true) => Retention::Revisions(i64::from(revisions)),
        (Ok(hours), false) => Retention::Period(60 * 60 * Duration::from_secs(1) * hours),
        (Err(_), true) => {
            let period = settings.duration("auto-compaction-retention").as_nanos();
            Retention::Revisions(i64::try_from(period).unwrap_or(i64::MAX))
        }
        (Err(_), false) => Retention::Period(settings.duration("auto-compaction-retention")),
    };
    let is_off = matches!(retention, Retention::Revisions(0) | Retention::Period(Duration::ZERO));
    (!is_off).then_some(retention)
}

/// Whether a member's log already lies in the folder, so that the flags about bootstrapping no
/// longer matter.
fn holds_member(home: &Path) -> bool {
    std::fs::read_dir(home.join("wal")).is_ok_and(|mut files| files.next().is_some())
}

#[cfg(test)]
mod tests;
