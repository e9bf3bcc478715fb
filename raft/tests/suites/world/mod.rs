//! Members in one process, on one thread and a paused clock, joined by byte streams in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_raft::{
    Applied, ClusterState, Connect, Connection, Discover, Listen, Node, NodeConfig, OpenError,
    Plants, Port, ProposeError, Seams, Workers,
};
use holdfast_store::BackendKind;
use holdfast_store::command::{Change, Command, Put};
use holdfast_store::files::Files;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Who listens where, who is connected to whom, and who is cut off.
#[derive(Clone, Default)]
pub struct Net {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>>,
    connections: Arc<Mutex<Vec<(String, String, AbortHandle)>>>,
    cut: Arc<Mutex<BTreeSet<String>>>,
}

impl Net {
    /// Ends every connection of `url`, as the end of its process does.
    fn sever(&self, url: &str) {
        self.connections.lock().unwrap().retain(|(from, to, pump)| {
            let touched = from == url || to == url;
            if touched {
                pump.abort();
            }
            !touched
        });
    }

    /// Nobody reaches `url`, and it reaches nobody, until it is healed.
    pub fn isolate(&self, url: &str) {
        self.cut.lock().unwrap().insert(url.to_owned());
        self.sever(url);
    }

    pub fn heal(&self, url: &str) {
        self.cut.lock().unwrap().remove(url);
    }
}

struct MemoryConnect {
    own: String,
    net: Net,
}

impl Connect for MemoryConnect {
    fn connect(&self, url: String) -> BoxFuture<'static, io::Result<Connection>> {
        let net = self.net.clone();
        let own = self.own.clone();
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let is_cut = [&own, &url].iter().any(|end| net.cut.lock().unwrap().contains(*end));
            let listener = net.listeners.lock().unwrap().get(&url).cloned();
            let listener = listener.filter(|_| !is_cut).ok_or_else(refused)?;
            let (ours, mut near) = tokio::io::duplex(1 << 20);
            let (mut far, theirs) = tokio::io::duplex(1 << 20);
            let pump = tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
            net.connections.lock().unwrap().push((own, url, pump.abort_handle()));
            listener.send(theirs).await.map_err(|_| refused())?;
            Ok(Box::new(ours) as Connection)
        })
    }
}

struct MemoryListen {
    connections: mpsc::Receiver<DuplexStream>,
}

impl Listen for MemoryListen {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            match self.connections.recv().await {
                Some(connection) => Ok(Box::new(connection) as Connection),
                // Nobody can reach this member any more.
                None => std::future::pending().await,
            }
        })
    }
}

/// A cluster of so many members.
pub struct World {
    pub net: Net,
    pub configs: Vec<NodeConfig>,
    pub files: Vec<Arc<dyn Files>>,
    pub nodes: Vec<Option<Node>>,
    pub plants: Vec<Plants>,
    pub discover: Option<Arc<dyn Discover>>,
}

impl World {
    pub fn new(members: usize) -> Self {
        Self::with(members, |_| {})
    }

    pub fn with(members: usize, adjust: impl Fn(&mut NodeConfig)) -> Self {
        holdfast_raft::seed_thread(7);
        let url = |i: usize| format!("http://m{i}:2380");
        let cluster: Vec<_> = (0..members).map(|i| (format!("m{i}"), vec![url(i)])).collect();
        let config = |i: usize| {
            let mut config = NodeConfig::new(format!("m{i}"), format!("/m{i}"));
            config.initial_advertise_peer_urls = vec![url(i)];
            config.initial_cluster = cluster.clone();
            config.advertise_client_urls = vec![format!("http://m{i}:2379")];
            adjust(&mut config);
            config
        };
        Self {
            net: Net::default(),
            configs: (0..members).map(config).collect(),
            files: (0..members).map(|_| fresh_files()).collect(),
            nodes: vec![None; members],
            plants: vec![Plants::default(); members],
            discover: None,
        }
    }

    /// Makes room for one more member, which joins the cluster of the members in `beside`.
    pub fn grow(&mut self, beside: &[usize]) -> usize {
        let i = self.nodes.len();
        let url = format!("http://m{i}:2380");
        let mut config = NodeConfig::new(format!("m{i}"), format!("/m{i}"));
        config.initial_advertise_peer_urls = vec![url.clone()];
        config.advertise_client_urls = vec![format!("http://m{i}:2379")];
        config.initial_cluster =
            beside.iter().map(|j| (format!("m{j}"), vec![self.url(*j)])).collect();
        config.initial_cluster.push((format!("m{i}"), vec![url]));
        config.initial_cluster_state = ClusterState::Existing;
        self.configs.push(config);
        self.files.push(fresh_files());
        self.nodes.push(None);
        self.plants.push(Plants::default());
        i
    }

    /// Starts member `i`, and waits until it serves.
    pub async fn start_ready(&mut self, i: usize) {
        self.start(i).await.expect("starts");
        within(60, self.node(i).wait_ready()).await;
    }

    /// An empty data directory for member `i`.
    pub fn wipe(&mut self, i: usize) {
        self.files[i] = fresh_files();
    }

    /// Starts member `i`.
    pub async fn start(&mut self, i: usize) -> Result<(), OpenError> {
        let (sender, connections) = mpsc::channel(64);
        let config = self.configs[i].clone();
        let url = config.initial_advertise_peer_urls[0].clone();
        self.net.listeners.lock().unwrap().insert(url.clone(), sender);
        let seams = Seams {
            files: self.files[i].clone(),
            backend: BackendKind::Memory,
            seed: None,
            workers: Workers::Inline,
            connector: Arc::new(MemoryConnect { own: url.clone(), net: self.net.clone() }),
            listener: Some(Box::new(MemoryListen { connections })),
            discover: self.discover.clone(),
            plants: self.plants[i],
        };
        self.nodes[i] = Some(Node::open(config, seams).await?);
        Ok(())
    }

    pub async fn start_all(&mut self) {
        for i in 0..self.nodes.len() {
            self.start(i).await.expect("starts");
        }
        for node in self.nodes.iter().flatten() {
            within(60, node.wait_ready()).await;
        }
    }

    /// Stops member `i` without a word to anyone.
    pub async fn crash(&mut self, i: usize) {
        let url = self.url(i);
        self.net.listeners.lock().unwrap().remove(&url);
        self.net.sever(&url);
        let node = self.nodes[i].take().expect("runs");
        node.stop().await;
    }

    /// Where member `i` listens.
    pub fn url(&self, i: usize) -> String {
        self.configs[i].initial_advertise_peer_urls[0].clone()
    }

    pub fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().expect("runs")
    }

    pub fn port(&self, i: usize) -> Port {
        self.node(i).port()
    }

    /// The member that leads, once the running ones agree.
    pub async fn leader(&self) -> usize {
        within(60, async {
            loop {
                let statuses: Vec<_> =
                    self.nodes.iter().map(|n| n.as_ref().map(Node::status)).collect();
                let leads =
                    |s: &Option<_>| s.as_ref().is_some_and(|s: &holdfast_raft::Status| s.is_leader);
                if let Some(leader) = statuses.iter().position(leads) {
                    let id = self.node(leader).identity().member_id;
                    if statuses.iter().flatten().all(|s| s.leader == Some(id)) {
                        return leader;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Any running member that does not lead.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (0..self.nodes.len()).find(|i| *i != leader && self.nodes[*i].is_some()).expect("one")
    }
}

/// Fails the test after so many (simulated) seconds.
pub async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(seconds);
    tokio::time::timeout(limit, future).await.expect("takes too long")
}

pub fn put(key: &str, value: &str) -> Command {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let value = Bytes::copy_from_slice(value.as_bytes());
    Command::from(Change::Put(Put { key, value, ..Default::default() }))
}

pub async fn put_on(port: &Port, key: &str, value: &str) -> Result<Applied, ProposeError> {
    within(30, port.propose(put(key, value))).await
}

fn fresh_files() -> Arc<dyn Files> {
    Arc::new(holdfast_store::files::MemoryFiles::default())
}

/// Puts until a put is acknowledged; gives it and how many were not.
pub async fn put_until_done(port: &Port, key: &str, value: &str) -> (Applied, usize) {
    for unknown in 0..10 {
        if let Ok(applied) = put_on(port, key, value).await {
            return (applied, unknown);
        }
    }
    panic!("ten puts without an answer");
}
