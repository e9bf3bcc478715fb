//! The network between members: byte streams with latency, whose directions can be cut.
//!
//! A cut holds bytes back, as retransmission over a dead link would, and lets them through when it
//! is healed; new connections hang. A crash resets every connection of the member. Latency comes
//! from the run's seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use holdfast_raft::{Connect, Connection, Listen};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

/// Bytes a connection holds in each direction before its writer must wait.
const CONNECTION_BYTES: usize = 1 << 20;
/// Bytes that travel together.
const CHUNK_BYTES: usize = 64 << 10;
/// Connections that wait for a member to accept them.
const ACCEPT_QUEUE: usize = 64;
const LATENCY_MICROSECONDS: std::ops::Range<u64> = 50..1_500;

/// All links. Clones share them.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
}

struct State {
    random: StdRng,
    /// Directions that hold everything back.
    cut: BTreeSet<(usize, usize)>,
    /// How often each member has crashed.
    boots: BTreeMap<usize, u64>,
    listeners: BTreeMap<usize, mpsc::Sender<Connection>>,
}

/// One member's way out.
pub struct Connector {
    network: Network,
    from: usize,
    boot: u64,
}

/// One member's way in.
pub struct Listener(mpsc::Receiver<Connection>);

/// From one boot of a member to one of another.
#[derive(Clone)]
struct Link {
    network: Network,
    from: (usize, u64),
    to: (usize, u64),
}

/// One direction of one connection.
struct Pump {
    link: Link,
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
}

/// The peer URL of member `index`.
pub fn peer_url(index: usize) -> String {
    format!("http://member{index}:2380")
}

fn index_of(url: &str) -> Option<usize> {
    url.strip_prefix("http://member")?.strip_suffix(":2380")?.parse().ok()
}

impl Network {
    /// A network without faults.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            cut: BTreeSet::new(),
            boots: BTreeMap::new(),
            listeners: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(watch::Sender::new(())) }
    }

    /// The ways out and in of a new boot of member `index`.
    pub fn attach(&self, index: usize) -> (Connector, Listener) {
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        let mut state = self.lock();
        let boot = state.boot(index);
        state.listeners.insert(index, sender);
        drop(state);
        (Connector { network: self.clone(), from: index, boot }, Listener(receiver))
    }

    /// Resets all connections of member `index`, and refuses new ones until it attaches again.
    pub fn detach(&self, index: usize) {
        let mut state = self.lock();
        *state.boots.entry(index).or_default() += 1;
        state.listeners.remove(&index);
        drop(state);
        self.changed.send_replace(());
    }

    /// Holds back what `from` sends to `to`.
    pub fn cut(&self, from: usize, to: usize) {
        self.lock().cut.insert((from, to));
        self.changed.send_replace(());
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.lock().cut.clear();
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.lock().cut.contains(&(from, to))
    }

    fn latency(&self) -> Duration {
        Duration::from_micros(self.lock().random.random_range(LATENCY_MICROSECONDS))
    }

    async fn connect(self, from: (usize, u64), url: String) -> io::Result<Connection> {
        let to = index_of(&url).ok_or_else(|| io::Error::other(format!("no such peer {url}")))?;
        tokio::time::sleep(self.latency()).await;
        if self.is_cut(from.0, to) || self.is_cut(to, from.0) {
            // The handshake's packets are lost; the caller gives up in its own time.
            return std::future::pending().await;
        }
        let (boot, listener) = {
            let mut state = self.lock();
            (state.boot(to), state.listeners.get(&to).cloned())
        };
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = listener.ok_or_else(refused)?;
        let (near, near_wire) = tokio::io::duplex(CONNECTION_BYTES);
        let (far, far_wire) = tokio::io::duplex(CONNECTION_BYTES);
        listener.send(Box::new(far)).await.map_err(|_| refused())?;
        self.join(from, near_wire, (to, boot), far_wire);
        Ok(Box::new(near))
    }

    fn join(&self, a: (usize, u64), a_wire: DuplexStream, b: (usize, u64), b_wire: DuplexStream) {
        let (a_reader, a_writer) = tokio::io::split(a_wire);
        let (b_reader, b_writer) = tokio::io::split(b_wire);
        let pump = |from, to, reader, writer| {
            let link = Link { network: self.clone(), from, to };
            Pump { link, reader, writer }
        };
        tokio::spawn(pump(a, b, a_reader, b_writer).run());
        tokio::spawn(pump(b, a, b_reader, a_writer).run());
    }
}

impl State {
    fn boot(&mut self, index: usize) -> u64 {
        *self.boots.entry(index).or_default()
    }
}

impl Pump {
    /// Ends, and with it the connection, when an end is closed or a member crashes.
    async fn run(mut self) {
        let mut changes = self.link.network.changed.subscribe();
        let link = self.link.clone();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = tokio::select! {
                biased;
                () = link.reset(&mut changes) => return,
                read = self.reader.read(&mut chunk) => read,
            };
            let Ok(length) = read else { return };
            tokio::time::sleep(link.network.latency()).await;
            if !link.passable(&mut changes).await {
                return;
            }
            let written = match length {
                0 => self.writer.shutdown().await,
                _ => self.writer.write_all(&chunk[..length]).await,
            };
            if length == 0 || written.is_err() {
                return;
            }
        }
    }
}

impl Link {
    fn is_reset(&self) -> bool {
        let mut state = self.network.lock();
        state.boot(self.from.0) != self.from.1 || state.boot(self.to.0) != self.to.1
    }

    async fn reset(&self, changes: &mut watch::Receiver<()>) {
        while !self.is_reset() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the direction is open; false if the connection is reset instead.
    async fn passable(&self, changes: &mut watch::Receiver<()>) -> bool {
        loop {
            if self.is_reset() {
                return false;
            }
            if !self.network.is_cut(self.from.0, self.to.0) {
                return true;
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    }
}

impl Connect for Connector {
    fn connect(&self, url: String) -> BoxFuture<'static, io::Result<Connection>> {
        self.network.clone().connect((self.from, self.boot), url).boxed()
    }
}

impl Listen for Listener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        async move {
            match self.0.recv().await {
                Some(connection) => Ok(connection),
                // The member has crashed; nobody will come.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}
