//! Three members, their disks, and the network between them.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use holdfast_raft::{ClusterState, Node, NodeConfig, Seams, Workers};
use holdfast_store::BackendKind;
use holdfast_store::files::MemoryFiles;
use holdfast_store::files::memory::Unsynced;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::disk::BootDisk;
use crate::network::{Network, peer_url};
use crate::plants::Plant;
use crate::trace::Trace;

/// Members of every cluster here.
pub const MEMBERS: usize = 3;
/// How long, in simulated time, the cluster may take to come back once all faults are over.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

struct Member {
    disk: MemoryFiles,
    boot: RefCell<Option<Boot>>,
}

/// One life of a member.
struct Boot {
    number: u64,
    disk: BootDisk,
    /// None while it opens.
    node: Option<Node>,
    opening: tokio::task::JoinHandle<()>,
}

/// The cluster of one run.
pub struct World {
    /// What was observed.
    pub trace: Trace,
    /// All links.
    pub network: Network,
    members: Vec<Member>,
    boots: Cell<u64>,
    random: RefCell<StdRng>,
    plant: Option<Plant>,
    snapshot_count: u64,
    broken: RefCell<Option<String>>,
    began: Instant,
}

impl World {
    /// A cluster of new members that are all down.
    pub fn new(seed: u64, plant: Option<Plant>, trace: Trace) -> Rc<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let network = Network::new(random.random());
        // Tiny checkpoint intervals make members come back by checkpoint.
        let snapshot_count = [20, 100, 10_000][random.random_range(0..3)];
        let member = || Member { disk: MemoryFiles::new(), boot: RefCell::new(None) };
        Rc::new(Self {
            trace,
            network,
            members: (0..MEMBERS).map(|_| member()).collect(),
            boots: Cell::new(0),
            random: RefCell::new(random),
            plant,
            snapshot_count,
            broken: RefCell::new(None),
            began: Instant::now(),
        })
    }

    /// Simulated milliseconds since the run began, for the trace.
    pub fn now(&self) -> u128 {
        self.began.elapsed().as_millis()
    }

    /// A number below `end`, from the run's seed.
    pub fn choose(&self, end: u64) -> u64 {
        self.random.borrow_mut().random_range(0..end)
    }

    /// Starts a member that is down.
    pub fn start(self: &Rc<Self>, index: usize) {
        let number = self.boots.get() + 1;
        self.boots.set(number);
        self.trace.note(format_args!("{} start {index}", self.now()));
        let skip_log_sync = self.plant == Some(Plant::SkippedFsync);
        let disk = BootDisk::new(self.members[index].disk.clone(), skip_log_sync);
        let (connector, listener) = self.network.attach(index);
        let seams = Seams {
            files: Arc::new(disk.clone()),
            backend: BackendKind::Memory,
            seed: Some(self.random.borrow_mut().random()),
            workers: Workers::Inline,
            connector: Arc::new(connector),
            listener: Some(Box::new(listener)),
            discover: None,
            plants: self.plants(),
        };
        let world = Rc::clone(self);
        let config = self.config(index);
        let opening = tokio::task::spawn_local(async move {
            let opened = Node::open(config, seams).await;
            world.opened(index, number, opened);
        });
        let boot = Boot { number, disk, node: None, opening };
        let previous = self.members[index].boot.replace(Some(boot));
        assert!(previous.is_none(), "member {index} is running already");
    }

    fn opened(
        self: &Rc<Self>,
        index: usize,
        number: u64,
        opened: Result<Node, holdfast_raft::OpenError>,
    ) {
        let mut boot = self.members[index].boot.borrow_mut();
        let Some(boot) = boot.as_mut().filter(|boot| boot.number == number) else { return };
        match opened {
            Ok(node) => {
                let (world, fatal) = (Rc::clone(self), node.fatal());
                tokio::task::spawn_local(async move {
                    let fatal = fatal.await;
                    world.failed(index, number, &fatal.to_string());
                });
                boot.node = Some(node);
            }
            Err(error) => self.note_failure(index, &error.to_string()),
        }
    }

    /// A member that stops by itself is a finding, unless it had been crashed already.
    fn failed(&self, index: usize, number: u64, why: &str) {
        let running =
            self.members[index].boot.borrow().as_ref().is_some_and(|b| b.number == number);
        if running {
            self.note_failure(index, why);
        }
    }

    fn note_failure(&self, index: usize, why: &str) {
        self.trace.note(format_args!("{} member {index} failed: {why}", self.now()));
        self.broken.borrow_mut().get_or_insert_with(|| format!("member {index} failed: {why}"));
    }

    /// Takes the power from a member; what its disk keeps of unsynced bytes is chance.
    pub fn crash(&self, index: usize) {
        let Some(boot) = self.members[index].boot.take() else { return };
        let kinds = [Unsynced::Lost, Unsynced::Kept, Unsynced::Prefix, Unsynced::Torn];
        let unsynced = kinds[usize::try_from(self.choose(4)).expect("below four")];
        self.trace.note(format_args!("{} crash {index}, unsynced {unsynced:?}", self.now()));
        boot.disk.detach();
        self.network.detach(index);
        self.members[index].disk.crash(unsynced, &mut |end| self.choose(end.max(1)));
        boot.opening.abort();
        if let Some(node) = boot.node {
            // What still runs of it has neither disk nor network any more.
            tokio::spawn(async move { node.stop().await });
        }
    }

    /// Whether a member has power.
    pub fn is_up(&self, index: usize) -> bool {
        self.members[index].boot.borrow().is_some()
    }

    /// A member that is open, with the number of its boot.
    pub fn node(&self, index: usize) -> Option<(u64, Node)> {
        let boot = self.members[index].boot.borrow();
        let boot = boot.as_ref()?;
        Some((boot.number, boot.node.clone()?))
    }

    /// The member that leads, as far as it knows.
    pub fn leader(&self) -> Option<usize> {
        (0..MEMBERS)
            .find(|index| self.node(*index).is_some_and(|(_, node)| node.status().is_leader))
    }

    /// An error if a member stopped by itself.
    pub fn check(&self) -> anyhow::Result<()> {
        match &*self.broken.borrow() {
            None => Ok(()),
            Some(what) => bail!("{what}"),
        }
    }

    /// Waits until every member answers a linearizable read.
    pub async fn wait_for_all(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + RECOVERY_LIMIT;
        for index in 0..MEMBERS {
            loop {
                self.check()?;
                if let Some((_, node)) = self.node(index)
                    && node.port().read_barrier().await.is_ok()
                {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("member {index} did not come back within {RECOVERY_LIMIT:?}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// The node of a member that must be open.
    pub fn open_node(&self, index: usize) -> anyhow::Result<Node> {
        Ok(self.node(index).with_context(|| format!("member {index} is not open"))?.1)
    }

    fn config(&self, index: usize) -> NodeConfig {
        let mut config = NodeConfig::new(format!("m{index}"), PathBuf::from("/data"));
        config.initial_advertise_peer_urls = vec![peer_url(index)];
        config.initial_cluster =
            (0..MEMBERS).map(|member| (format!("m{member}"), vec![peer_url(member)])).collect();
        config.initial_cluster_state = ClusterState::New;
        config.advertise_client_urls = vec![format!("http://member{index}:2379")];
        config.snapshot_count = self.snapshot_count;
        config.snapshot_catchup_entries = self.snapshot_count / 2;
        config
    }

    fn plants(&self) -> holdfast_raft::Plants {
        holdfast_raft::Plants {
            acknowledge_early: self.plant == Some(Plant::EarlyAcknowledgement),
            drop_events: self.plant == Some(Plant::DroppedEvent),
            apply_twice: self.plant == Some(Plant::DoubleApply),
            alter_values: false,
            skip_flushed_comparison: self.plant == Some(Plant::MissingComparison),
        }
    }
}
