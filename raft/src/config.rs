//! What a member is started with, and the seams by which a simulation replaces the world.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use holdfast_store::BackendKind;
use holdfast_store::files::{Files, RealFiles};
use tokio::io::{AsyncRead, AsyncWrite};

/// Whether a member founds its cluster or joins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// `--initial-cluster-state=new`.
    New,
    /// `--initial-cluster-state=existing`.
    Existing,
}

/// What a member is started with. Durations and sizes have been checked by the caller.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// `--name`.
    pub name: String,
    /// `--data-dir`, absolute.
    pub data_directory: PathBuf,
    /// `--wal-dir`, absolute: where the log lies, if not in the data directory.
    pub log_directory: Option<PathBuf>,
    /// `--listen-peer-urls`, resolved.
    pub listen_peer: Vec<SocketAddr>,
    /// `--initial-advertise-peer-urls`.
    pub initial_advertise_peer_urls: Vec<String>,
    /// `--initial-cluster`: names with their peer URLs.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// `--initial-cluster-state`.
    pub initial_cluster_state: ClusterState,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--advertise-client-urls`.
    pub advertise_client_urls: Vec<String>,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`, at least five heartbeats.
    pub election_timeout: Duration,
    /// `--snapshot-count`: with room, and unless they are many bytes, a checkpoint is not taken after
    /// fewer entries.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`: entries kept below a checkpoint for slow followers.
    pub snapshot_catchup_entries: u64,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--quota-backend-bytes`; none when it is off.
    pub quota_bytes: Option<u64>,
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// Memory for cached blocks.
    pub block_cache_bytes: u64,
    /// `--strict-reconfig-check`: changes of the membership that leave too few members started or
    /// connected are refused.
    pub strict_reconfig_check: bool,
    /// `--max-learners`.
    pub learners_max: u64,
    /// `--force-new-cluster`: a member that has data goes on as the only one of its cluster.
    pub force_new_cluster: bool,
    /// `--warning-apply-duration`.
    pub warning_apply_duration: Duration,
    /// `--corrupt-check-time`: between comparisons of members at the newest revision, while this
    /// one leads; none for no comparisons.
    pub corrupt_check_time: Option<Duration>,
    /// `--compact-hash-check-time`: between looks whether members agree after a compaction; none
    /// for no looks.
    pub compact_hash_check_time: Option<Duration>,
}

impl NodeConfig {
    /// A configuration of etcd's defaults for a member called `name` that keeps its data in
    /// `data_directory`; peers are still to be filled in.
    pub fn new(name: impl Into<String>, data_directory: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            data_directory: data_directory.into(),
            log_directory: None,
            listen_peer: Vec::new(),
            initial_advertise_peer_urls: Vec::new(),
            initial_cluster: Vec::new(),
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            advertise_client_urls: Vec::new(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            max_request_bytes: 3 << 19,
            quota_bytes: Some(2 << 30),
            unsafe_no_fsync: false,
            pre_vote: true,
            block_cache_bytes: 64 << 20,
            strict_reconfig_check: true,
            learners_max: 1,
            force_new_cluster: false,
            warning_apply_duration: Duration::from_millis(100),
            corrupt_check_time: None,
            compact_hash_check_time: None,
        }
    }

    /// The directory that the log lies in.
    pub fn log_home(&self) -> &Path {
        self.log_directory.as_ref().unwrap_or(&self.data_directory)
    }

    /// How long a request may take: 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        crate::limits::REQUEST_TIMEOUT + 2 * self.election_timeout
    }
}

/// How this member's own work is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Threads for the WAL, for applying and for materialising.
    Threads,
    /// Everything as steps and tasks on the calling runtime, for a simulation.
    Inline,
}

/// A byte stream to or from a peer.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to or from a peer.
pub type Connection = Box<dyn Io>;

/// Opens connections to peers.
pub trait Connect: Send + Sync {
    /// Connects to the peer URL (`http://host:port`); the caller bounds the time.
    fn connect(&self, url: String) -> BoxFuture<'static, io::Result<Connection>>;
}

/// Takes connections from peers.
pub trait Listen: Send {
    /// The next connection; cancelling loses none.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;
}

/// Members by name, with their peer URLs.
pub type InitialCluster = Vec<(String, Vec<String>)>;

/// Where a member learns of its initial cluster, in the place of its flags.
pub trait Discover: Send + Sync {
    /// The initial cluster, this member in it by its name, and the same for every member that asks,
    /// but for the others' names. Takes as long as it takes the others to ask; an error is final. Is
    /// asked once a start, and only while the member's log holds no membership: a start that ended
    /// too early asks again.
    fn discover(&self) -> BoxFuture<'static, Result<InitialCluster, String>>;

    /// What this is, for the log.
    fn what(&self) -> &'static str;
}

/// Faults built in on purpose, so that a simulation can show that it would notice them. Off in
/// every use but that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plants {
    /// A leader counts an entry as held by a follower as soon as it is sent.
    pub acknowledge_early: bool,
    /// Now and then an event does not reach watchers.
    pub drop_events: bool,
    /// The first entry applied after a start is applied twice.
    pub apply_twice: bool,
    /// Puts are applied with another value than the log has.
    pub alter_values: bool,
    /// State is persisted without asking how far the log has been flushed.
    pub skip_flushed_comparison: bool,
}

/// The world around a member.
pub struct Seams {
    /// The file system.
    pub files: Arc<dyn Files>,
    /// What holds the store's block directory.
    pub backend: BackendKind,
    /// Where randomness comes from; the system when there is none.
    pub seed: Option<u64>,
    /// Threads or steps.
    pub workers: Workers,
    /// The way to peers.
    pub connector: Arc<dyn Connect>,
    /// The way from peers; none to bind [`NodeConfig::listen_peer`].
    pub listener: Option<Box<dyn Listen>>,
    /// What takes the place of [`NodeConfig::initial_cluster`], if anything does.
    pub discover: Option<Arc<dyn Discover>>,
    /// Deliberate faults.
    pub plants: Plants,
}

impl Seams {
    /// The real world.
    pub fn real() -> Self {
        Self {
            files: Arc::new(RealFiles),
            backend: BackendKind::Sled,
            seed: None,
            workers: Workers::Threads,
            connector: Arc::new(crate::peer::TcpConnect),
            listener: None,
            discover: None,
            plants: Plants::default(),
        }
    }
}
