//! The server: the node on its own thread, the connection runtimes, and how they start and stop.
//!
//! ```text
//! start: open node -> bind -> serve health -> (node ready) -> serve clients
//! stop:  end streams, GOAWAY, drain -> hand over leadership -> node stops -> exit known
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_raft::{Node, NodeConfig, OpenError, Seams};
use rand::RngExt;
use tokio::sync::watch;

use crate::acceptor::{Acceptor, Door, Http2};
use crate::access::Rules;
use crate::admit::Limits;
use crate::compactor::{self, Retention};
use crate::discovery::Source;
use crate::doors::{self, Doors};
use crate::exit::ExitCell;
use crate::metrics::tally::Tallies;
use crate::net::ListenUrl;
use crate::pool::Pool;
use crate::services::Shared;
use crate::snapshot::Desk;
use crate::tls::{TlsError, TlsSettings};
use crate::traces::{TraceSender, TraceSettings, Traces};

pub use crate::exit::Exit;

/// Threads for reads that connection runtimes must not do themselves.
const POOL_THREADS_MIN: usize = 2;

/// What a server is started with.
pub struct ServerConfig {
    /// The node's part.
    pub node: NodeConfig,
    /// Where clients connect.
    pub listen_client: Vec<ListenUrl>,
    /// Where health is served as well, even before the member is ready.
    pub listen_metrics: Vec<ListenUrl>,
    /// Whether other programs may listen on the same ports (SO_REUSEPORT).
    pub reuse_port: bool,
    /// Where all but gRPC is served, if apart from the client URLs.
    pub listen_http: Vec<ListenUrl>,
    /// Where other members connect; when empty, the node binds its own addresses.
    pub listen_peer: Vec<ListenUrl>,
    /// What says who founds the cluster, instead of the node's part.
    pub discovery: Option<Source>,
    /// How, where a client URL is secure.
    pub client_tls: TlsSettings,
    /// The same for members' URLs, in both directions.
    pub peer_tls: TlsSettings,
    /// `--max-request-bytes`.
    pub max_request_bytes: u32,
    /// `--max-txn-ops`.
    pub max_txn_ops: u32,
    /// `--max-concurrent-streams`.
    pub max_concurrent_streams: u32,
    /// `--grpc-keepalive-interval`; zero for no pings.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`; zero for no pings.
    pub keepalive_timeout: Duration,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_interval: Duration,
    /// For requests that are not gRPC.
    pub http: Rules,
    /// Connection runtimes; one per core when there is none.
    pub runtimes: Option<usize>,
    /// How clients authenticate.
    pub auth: crate::auth::Settings,
    /// The version of etcd that clients are told.
    pub etcd_version: &'static str,
    /// `--auto-compaction-retention`; none when it is off.
    pub auto_compaction: Option<Retention>,
    /// `--warning-unary-request-duration`.
    pub warning_unary_request_duration: Duration,
    /// Where calls are traced to, if they are.
    pub traces: Option<TraceSettings>,
    /// `--metrics=extensive`: calls are timed.
    pub extensive_metrics: bool,
    /// Whether to compare this member with its peers before clients are served.
    pub initial_corrupt_check: bool,
}

impl ServerConfig {
    /// A configuration of etcd's defaults for the clients of `node` at `listen_client`.
    pub fn new(node: NodeConfig, listen_client: Vec<ListenUrl>) -> Self {
        Self {
            node,
            listen_client,
            listen_metrics: Vec::new(),
            listen_http: Vec::new(),
            reuse_port: false,
            listen_peer: Vec::new(),
            discovery: None,
            client_tls: TlsSettings::default(),
            peer_tls: TlsSettings::default(),
            max_request_bytes: 3 << 19,
            max_txn_ops: 128,
            max_concurrent_streams: u32::MAX,
            keepalive_interval: Duration::from_secs(2 * 60 * 60),
            keepalive_timeout: Duration::from_secs(20),
            watch_progress_interval: Duration::from_secs(10 * 60),
            http: Rules::default(),
            runtimes: None,
            auth: crate::auth::Settings::default(),
            etcd_version: crate::version::ETCD_VERSION,
            auto_compaction: None,
            warning_unary_request_duration: Duration::from_millis(300),
            traces: None,
            extensive_metrics: false,
            initial_corrupt_check: false,
        }
    }

    fn http2(&self) -> Http2 {
        let pings = !self.keepalive_interval.is_zero() && !self.keepalive_timeout.is_zero();
        Http2 {
            streams_max: self.max_concurrent_streams,
            ping_interval: pings.then_some(self.keepalive_interval),
            ping_timeout: self.keepalive_timeout,
        }
    }

    /// One and a half election timeouts, in whole seconds.
    fn lease_ttl_min(&self) -> i64 {
        let milliseconds = self.node.election_timeout.as_millis() * 3 / 2;
        milliseconds.div_ceil(1000) as i64
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node could not be opened.
    #[error(transparent)]
    Node(#[from] OpenError),
    /// A listening socket could not be made.
    #[error("cannot listen on {url}: {source}")]
    Listen {
        /// Where.
        url: ListenUrl,
        /// Why.
        source: io::Error,
    },
    /// The TLS flags or the files they name cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// A running server.
pub struct Server {
    client_addresses: Vec<SocketAddr>,
    exit: Arc<ExitCell>,
    stopper: Stopper,
    conductor: Option<JoinHandle<()>>,
}

/// Asks a server to stop; any number of times, from any thread.
#[derive(Clone)]
pub struct Stopper {
    stop: Arc<watch::Sender<bool>>,
}

impl Stopper {
    /// Starts the stop and returns at once; [`Server::wait`] says when it is done.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Server {
    /// Opens the node, binds, and starts to serve; clients are answered once the node is ready.
    pub fn start(config: ServerConfig, mut seams: Seams) -> Result<Self, StartError> {
        let doors = Doors::open(&config)?;
        let client_addresses = doors.client_addresses();
        doors::open_peers(&config, &mut seams)?;
        if let Some(source) = config.discovery.clone() {
            let (name, urls) = (&config.node.name, &config.node.initial_advertise_peer_urls);
            seams.discover = Some(source.open(name, urls));
        }
        let (traces, sender) = match &config.traces {
            Some(settings) => {
                settings.start().map(|(traces, sender)| (Some(traces), Some(sender)))?
            }
            None => (None, None),
        };
        let exit = Arc::new(ExitCell::default());
        let stop = Arc::new(watch::Sender::new(false));
        let (opened, open) = std::sync::mpsc::channel();
        let conductor =
            Conductor { config, doors, traces, sender, exit: exit.clone(), stop: stop.clone() };
        let thread = std::thread::Builder::new().name("raft".to_owned());
        let conductor = thread.spawn(move || conductor.run(seams, &opened))?;
        let stopper = Stopper { stop };
        let server = Self { client_addresses, exit, stopper, conductor: Some(conductor) };
        open.recv().expect("the thread tells before it ends").map(|()| server)
    }

    /// Where clients connect, as bound.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// A handle to stop this server with.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Blocks until the server has stopped, or cannot go on.
    pub fn wait(&self) -> Exit {
        self.exit.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(conductor) = self.conductor.take()
            && conductor.join().is_err()
        {
            tracing::error!("the Raft thread panicked");
        }
    }
}

/// What the Raft thread needs to run the node and everything around it.
struct Conductor {
    config: ServerConfig,
    doors: Doors,
    traces: Option<Traces>,
    sender: Option<TraceSender>,
    exit: Arc<ExitCell>,
    stop: Arc<watch::Sender<bool>>,
}

type Opened = std::sync::mpsc::Sender<Result<(), StartError>>;

impl Conductor {
    fn run(self, seams: Seams, opened: &Opened) {
        // The caller waits for the word, so it is there to hear it.
        let tell = |result| opened.send(result).expect("the caller waits");
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tell(Err(error.into())),
        };
        runtime.block_on(async {
            match Node::open(self.config.node.clone(), seams).await {
                Ok(node) => self.conduct(node, tell).await,
                Err(error) => tell(Err(error.into())),
            }
        });
    }

    async fn conduct(mut self, node: Node, tell: impl Fn(Result<(), StartError>)) {
        let started = self.shared(&node).and_then(|shared| {
            let health = std::mem::take(&mut self.doors.health);
            // Health checks are few: one runtime serves them, apart from the clients'.
            let runtimes = usize::from(!health.is_empty());
            Ok((self.serve(&shared, health, runtimes)?, shared))
        });
        let (health, shared) = match started {
            Ok(started) => started,
            Err(error) => return tell(Err(error.into())),
        };
        tell(Ok(()));
        let progress = tokio::spawn(progress(node.clone(), self.config.watch_progress_interval));
        let compacting = self
            .config
            .auto_compaction
            .map(|retention| tokio::spawn(compactor::run(node.clone(), retention)));
        let clients = self.until_stopped(&node, &shared).await;
        let drain = tokio::task::spawn_blocking(move || {
            health.join();
            clients.into_iter().for_each(Acceptor::join);
        });
        if drain.await.is_err() {
            tracing::error!("waiting for connections failed");
        }
        progress.abort();
        compacting.inspect(tokio::task::JoinHandle::abort);
        node.shutdown().await;
        self.exit.set(Exit::Stopped);
        // Nobody waits for the server any more.
        if let Some(sender) = self.sender.take() {
            sender.stop();
        }
    }

    fn serve(&self, shared: &Shared, doors: Vec<Door>, runtimes: usize) -> io::Result<Acceptor> {
        Acceptor::start(doors, runtimes, shared, self.config.http2(), self.stop.subscribe())
    }

    /// Serves clients from the moment the node is ready until the stop.
    async fn until_stopped(&mut self, node: &Node, shared: &Shared) -> Option<Acceptor> {
        let mut stop = self.stop.subscribe();
        let mut clients = None;
        let serving = async {
            node.wait_ready().await;
            if self.config.initial_corrupt_check && !node.agrees_with_peers().await {
                let me = node.identity().member_id;
                let what = format!("{me:x} found data inconsistency with peers");
                return self.exit.set(Exit::Fatal(holdfast_store::Fatal::new(what)));
            }
            let doors = std::mem::take(&mut self.doors.clients);
            let runtimes = self.config.runtimes.unwrap_or_else(cores);
            // Before the first of them is: whoever is let in finds this member ready.
            shared.serves_clients.store(true, Ordering::Relaxed);
            match self.serve(shared, doors, runtimes) {
                Ok(acceptor) => clients = Some(acceptor),
                Err(error) => {
                    let what = format!("cannot serve clients: {error}");
                    self.exit.set(Exit::Fatal(holdfast_store::Fatal::new(what)));
                }
            }
            for url in &self.config.listen_client {
                tracing::info!(
                    address = url.address(),
                    secure = url.is_secure,
                    "ready to serve client requests"
                );
            }
            crate::systemd::ready();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serving => {}
            fatal = node.fatal() => self.exit.set(Exit::Fatal(fatal)),
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.stop.send_replace(true);
        clients
    }

    fn shared(&self, node: &Node) -> io::Result<Shared> {
        let config = &self.config;
        let lifetime = config.auth.token_lifetime.as_millis();
        node.reader().set_token_lifetime(u64::try_from(lifetime).unwrap_or(u64::MAX));
        Ok(Shared {
            node: node.clone(),
            limits: Limits {
                request_bytes: config.max_request_bytes as usize,
                txn_ops: config.max_txn_ops as usize,
            },
            pool: Pool::start(cores().max(POOL_THREADS_MIN))?,
            snapshots: Arc::new(Desk::new(config.node.data_directory.clone())),
            serves_clients: Arc::default(),
            stopping: self.stop.subscribe(),
            exit: self.exit.clone(),
            http: Arc::new(config.http.clone()),
            tallies: Tallies::new(config.extensive_metrics, config.warning_unary_request_duration),
            traces: self.traces.clone(),
            etcd_version: config.etcd_version,
            lease_ttl_min: config.lease_ttl_min(),
            quota_bytes: config.node.quota_bytes.map_or(-1, |bytes| bytes as i64),
            auth: Arc::new(config.auth.clone()),
        })
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Has the hub tell watchers how far they are, now and then. Members do so at different moments.
async fn progress(node: Node, interval: Duration) {
    loop {
        let jitter = rand::rng().random_range(0.0..0.1);
        tokio::time::sleep(interval + interval.mul_f64(jitter)).await;
        node.hub().tick_progress();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_lease_outlives_an_election() {
        let config = ServerConfig::new(NodeConfig::new("a", "/nowhere"), Vec::new());
        assert_eq!(config.lease_ttl_min(), 2);
    }
}
