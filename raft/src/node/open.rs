//! Starting a member: directory, state, log, openraft, peers, tasks; in this order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use holdfast_proto::peer::peer_server::PeerServer as PeerService;
use holdfast_store::command::{Change, Command, LEVEL_CURRENT, MemberAttributes};
use holdfast_store::watch::{Wake, Worked};
use holdfast_store::{Fatal, Opened, Options, WatchHub};
use openraft::{Config, SnapshotPolicy, StepDownPolicy};
use rand::RngExt;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tonic::transport::Server;

use crate::apart;
use crate::apply::Applier;
use crate::barrier::Barriers;
use crate::config::{ClusterState, Connection, Discover, Listen, NodeConfig, Seams, Workers};
use crate::desk::MemberDesk;
use crate::directory::{self, Directory};
use crate::divergence::{Hasher, Inspector};
use crate::error::OpenError;
use crate::keeper::{Keeper, KeeperParts};
use crate::lease::{LeaseDesk, answer_ports, keep_time};
use crate::leave::{self, leave};
use crate::level::raise_level;
use crate::log::Log;
use crate::log_facts::LogFacts;
use crate::machine::Machine;
use crate::node::{Inner, Node, Plan, alone, found, join, plan, reach};
use crate::observe::observe;
use crate::peer::{
    Gate, MESSAGE_BYTES_MAX, Network, PeerIo, PeerServer, Peers, SILENCE, ServerParts, Standing,
    Standings, TcpListen,
};
use crate::port::Port;
use crate::propose::{Proposer, Raft};
use crate::purge::{Holds, Purger};
use crate::read_index::ReadIndexDesk;
use crate::receive::Receiver;
use crate::room::{Gauge, tell_log, watch_room};
use crate::rot::hand_over_when_rotten;
use crate::shared::Shared;
use crate::space::Watchman;
use crate::stall::watch_disk;
use crate::status::StatusCell;
use crate::wal::Hooks;
use crate::work::{Actor, run_apart};

/// How often a member that asks for its cluster looks whether the others have told it.
const BROUGHT: Duration = Duration::from_secs(1);
/// How long it waits for the others when nobody else tells it.
const UNTOLD: Duration = Duration::from_secs(30);

/// Everything below openraft.
struct Ground {
    shared: Arc<Shared>,
    machine: Machine,
    log: Log,
    facts: LogFacts,
    hub: WatchHub,
}

pub(super) async fn open(config: NodeConfig, mut seams: Seams) -> Result<Node, OpenError> {
    if let Some(seed) = seams.seed {
        crate::runtime::seed_thread(seed);
    }
    let listener = match seams.listener.take() {
        Some(listener) => listener,
        None => bind(&config).await?,
    };
    // A simulated file system has one user.
    let is_shared = seams.workers == Workers::Threads;
    let locks = if is_shared { apart::lock(&config)? } else { Vec::new() };
    let (plan, directory) = find_place(&config, &seams).await?;
    let ground = lay_ground(&config, &seams, &directory)?;
    let shared = ground.shared.clone();
    let start = alone::Start { config: &config, files: &*seams.files };
    let (log, machine) = (ground.log.clone(), ground.machine.clone());
    let identity = start.settle(log, machine, directory.identity).await?;
    // Before the first peer calls.
    shared.look_at_members();
    let gate = Gate::new(identity, standings(&shared));
    let counts = shared.counts.clone();
    let peers =
        Arc::new(Peers::new(gate, seams.connector.clone(), config.election_timeout, counts));
    let holds = Holds::default();
    let rotten = Arc::new(Notify::new());
    let network = Network {
        peers: peers.clone(),
        peer_urls: peer_urls(&shared),
        append_timeout: config.election_timeout,
        workers: seams.workers,
        holds: holds.clone(),
        log: ground.facts.clone(),
        rotten: rotten.clone(),
        acknowledge_early: seams.plants.acknowledge_early,
    };
    let machine = ground.machine.clone();
    let settings = Arc::new(settings(&config, identity.cluster_id)?);
    let log = ground.log.clone();
    let wal = log.wal();
    let raft = Raft::new(identity.member_id, settings, network, ground.log, ground.machine).await;
    let raft = raft.map_err(Fatal::new)?;
    let desk = LeaseDesk::new(shared.clone(), shared.open_port());
    let read_index = ReadIndexDesk::new(identity.member_id, raft.clone());
    let members = MemberDesk::new(shared.clone(), raft.clone(), peers.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(observe(shared.clone(), raft.clone(), config.heartbeat_interval / 2));
    let hasher = Arc::new(Hasher::new(shared.clone(), seams.workers));
    let inspector = Inspector::new(shared.clone(), peers.clone(), hasher.clone());
    spawn_comparisons(&mut tasks, &inspector, &shared, &config);
    let (stop_server, stopped) = oneshot::channel();
    let service = PeerServer::new(ServerParts {
        gate: peers.gate().clone(),
        raft: raft.clone(),
        shared: shared.clone(),
        leases: desk.clone(),
        read_index: read_index.clone(),
        receiver: Arc::new(Receiver::new(
            machine.keeper.clone(),
            seams.workers,
            shared.gauge.clone(),
            wal.clone(),
        )),
        members: members.clone(),
        hasher,
    });
    tasks.spawn(serve(service, listener, config.election_timeout, stopped));
    let plan = complete(plan, &config, seams.discover, &raft).await?;
    if !is_initialised(&raft).await? {
        found::found(&raft, &plan, &config, identity, &peers).await?;
    }
    tasks.spawn(tell_log(shared.gauge.clone(), wal.clone()));
    let purger = Purger {
        raft: raft.clone(),
        taken: machine.keeper.taken(),
        holds,
        log: ground.facts,
        wal: wal.clone(),
        catchup_entries: config.snapshot_catchup_entries,
        gauge: shared.gauge.clone(),
    };
    tasks.spawn(purger.run());
    tasks.spawn(members.clone().admit());
    tasks.spawn(leave(shared.clone(), seams.files, config.data_directory.clone()));
    tasks.spawn(watch_disk(shared.clone(), members.clone(), log, config.election_timeout));
    let ready = watch::Sender::new(false);
    tasks.spawn(found::ask_again(plan, shared.clone(), peers.clone(), ready.subscribe()));
    tasks.spawn(hand_over_when_rotten(members.clone(), rotten, config.election_timeout));
    tasks.spawn(raise_level(shared.clone(), shared.open_port()));
    let port = shared.open_port();
    tasks.spawn(Watchman::new(shared.clone(), port, peers.clone(), config.quota_bytes).run());
    tasks.spawn(watch_room(shared.gauge.clone(), seams.workers));
    spawn_desks(&mut tasks, &raft, desk, read_index, peers, config.election_timeout);
    let attributes = attributes(&config, identity);
    tasks.spawn(publish(shared.open_port(), shared.clone(), attributes, ready.clone()));
    let inner = Inner {
        identity,
        shared,
        raft,
        keeper: machine.keeper,
        applier: machine.applier,
        hub: ground.hub,
        members,
        strict_reconfig_check: config.strict_reconfig_check,
        learners_max: config.learners_max,
        wal,
        ready,
        election_timeout: config.election_timeout,
        inspector,
        tasks: Mutex::new(Some((tasks, stop_server))),
        _locks: locks,
    };
    Ok(Node { inner: Arc::new(inner) })
}

/// The tasks that take what the ports ask for to where it is answered.
fn spawn_desks(
    tasks: &mut JoinSet<()>,
    raft: &Raft,
    desk: LeaseDesk,
    read_index: Arc<ReadIndexDesk>,
    peers: Arc<Peers>,
    election_timeout: Duration,
) {
    let shared = desk.shared();
    tasks.spawn(Proposer::new(shared.clone(), raft.clone(), peers.clone()).run());
    tasks.spawn(read_index.clone().run());
    let barriers = Barriers { shared, desk: read_index, peers: peers.clone() };
    tasks.spawn(barriers.run());
    tasks.spawn(keep_time(desk.clone(), election_timeout));
    tasks.spawn(answer_ports(desk, peers));
}

/// The comparisons with other members that are asked for.
fn spawn_comparisons(
    tasks: &mut JoinSet<()>,
    inspector: &Inspector,
    shared: &Arc<Shared>,
    config: &NodeConfig,
) {
    if let Some(every) = config.corrupt_check_time {
        tasks.spawn(inspector.clone().compare_newest(shared.open_port(), every));
    }
    if let Some(every) = config.compact_hash_check_time {
        tasks.spawn(inspector.clone().compare_compacted(shared.open_port(), every));
    }
}

/// State, log, and those who own them.
fn lay_ground(
    config: &NodeConfig,
    seams: &Seams,
    directory: &Directory,
) -> Result<Ground, OpenError> {
    let identity = directory.identity;
    if !directory.is_new && !Log::exists(&*seams.files, config.log_home())? {
        return Err(OpenError::LogMissing(config.log_home().display().to_string()));
    }
    let mut options = Options::new(&config.data_directory);
    options.files = seams.files.clone();
    options.backend = seams.backend.clone();
    options.block_cache_bytes = config.block_cache_bytes;
    options.incarnation = identity.incarnation;
    options.plants.skip_flushed_comparison = seams.plants.skip_flushed_comparison;
    options.plants.drop_events = seams.plants.drop_events;
    let Opened { state, maintainer, reader, hub, notes } =
        holdfast_store::open(options).map_err(Fatal::new)?;
    for note in notes {
        tracing::warn!(note, "the data directory was repaired");
    }
    if reader.removed_members().contains(&identity.member_id) {
        return Err(OpenError::Removed(identity.member_id));
    }
    let gauge =
        Gauge::new(seams.files.clone(), &config.data_directory, config.log_directory.as_deref());
    gauge.look();
    let nonce = crate::runtime::generator().random();
    let status = StatusCell::new(identity.member_id, config.election_timeout);
    let shared = Arc::new(Shared::new(
        identity,
        nonce,
        config.request_timeout(),
        config.max_request_bytes,
        status,
        reader,
        gauge,
    ));
    let log = open_log(config, seams, directory, &shared)?;
    reach::check(maintainer.manifests().last(), log.ends(), identity.incarnation)?;
    let facts = log.facts();
    let applier = Applier::new(state, shared.clone(), config.warning_apply_duration, seams.plants);
    let applier = Actor::start("holdfast-apply", seams.workers, applier);
    let (keeper, keeping) = Keeper::new(KeeperParts {
        maintainer,
        applier: applier.clone(),
        log: facts.clone(),
        shared: shared.clone(),
        snapshot_count: config.snapshot_count,
        skip_flushed_comparison: seams.plants.skip_flushed_comparison,
    });
    run_apart("holdfast-keeper", seams.workers, keeping);
    run_apart("holdfast-watch", seams.workers, feed_watchers(hub.clone(), shared.clone()));
    let machine = Machine { shared: shared.clone(), applier, keeper };
    Ok(Ground { shared, machine, log, facts, hub })
}

/// The log, and then the identity of a directory that has had none: it stands for what the log
/// holds, so neither is used without the other.
fn open_log(
    config: &NodeConfig,
    seams: &Seams,
    directory: &Directory,
    shared: &Arc<Shared>,
) -> Result<Log, OpenError> {
    let failing = shared.clone();
    let counts = shared.counts.clone();
    let gauge = shared.gauge.clone();
    let told = Hooks {
        synced: Arc::new(move |took| counts.wal_fsync.observe(took)),
        failed: Arc::new(move |failure| failing.fail(Fatal::new(failure))),
        has_room_for: Arc::new(move |bytes| {
            gauge.look();
            gauge.has_spare_room(bytes)
        }),
        ..Hooks::default()
    };
    let log = Log::open(
        seams.files.clone(),
        config.log_home(),
        seams.workers,
        config.unsafe_no_fsync,
        shared.sole.clone(),
        told,
    );
    let log = log.map_err(Fatal::new)?;
    if directory.is_new {
        if !log.is_unused() {
            return Err(apart::orphaned(config));
        }
        // Of a new member the flag asks nothing, nor does it later if it stays.
        let forced = config.force_new_cluster.then_some(0);
        apart::record(config, &*seams.files, directory.identity, forced)?;
    }
    Ok(log)
}

/// Wakes the feeder of watchers.
#[derive(Default)]
struct Bell(tokio::sync::Notify);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Feeds the watchers that are behind, until the node stops.
async fn feed_watchers(hub: WatchHub, shared: Arc<Shared>) {
    let bell = Arc::new(Bell::default());
    hub.on_catch_up_needed(bell.clone());
    while !shared.has_stopped() {
        match hub.catch_up_step() {
            Ok(Worked::Something) => tokio::task::yield_now().await,
            Ok(Worked::Nothing) => {
                // The time limit is for noticing that the node has stopped.
                let _ = tokio::time::timeout(Duration::from_secs(1), bell.0.notified()).await;
            }
            Err(fatal) => return shared.fail(fatal),
        }
    }
}

fn standings(shared: &Arc<Shared>) -> Standings {
    let shared = shared.clone();
    Arc::new(move |member| match shared.committed_incarnation(member) {
        _ if shared.is_removed(member) => Standing::Removed,
        Some(incarnation) => Standing::Known(incarnation),
        None => Standing::Unknown,
    })
}

fn peer_urls(shared: &Arc<Shared>) -> Arc<dyn Fn(u64) -> Option<Vec<String>> + Send + Sync> {
    let shared = shared.clone();
    Arc::new(move |member| shared.peer_urls(member))
}

/// Whose directory this is: of a member that has been here before, of one that founds the cluster,
/// or of one that joins it.
async fn find_place(config: &NodeConfig, seams: &Seams) -> Result<(Plan, Directory), OpenError> {
    let found = directory::find(&config.data_directory, &*seams.files)?;
    apart::check(config, &*seams.files, found)?;
    let plan = match found {
        None => {
            let config = match &seams.discover {
                Some(discover) => &discovered(config, &**discover).await?,
                None => config,
            };
            match config.initial_cluster_state {
                ClusterState::Existing => join::plan(config, seams).await?,
                ClusterState::New => plan::plan(config)?,
            }
        }
        // Whom it founded its cluster with stands in its log; if it has not, it asks again.
        Some(identity) if seams.discover.is_some() => Plan::of(identity),
        Some(identity) => match plan::plan(config) {
            Ok(plan) => plan,
            // The flags say nothing that still matters.
            Err(_) => Plan::of(identity),
        },
    };
    let directory = directory::open(&config.data_directory, found, &plan)?;
    let is_removed = leave::is_marked(&config.data_directory, &*seams.files);
    let is_removed = is_removed.map_err(|source| {
        let what = format!("looking into {}", config.data_directory.display());
        OpenError::Io { what, source }
    })?;
    match is_removed {
        true => Err(OpenError::Removed(directory.identity.member_id)),
        false => Ok((plan, directory)),
    }
}

/// The settings with what is said elsewhere than in the flags, which may know this member by another
/// name of its host.
async fn discovered(config: &NodeConfig, discover: &dyn Discover) -> Result<NodeConfig, OpenError> {
    let initial_cluster = discover.discover().await.map_err(OpenError::Discovery)?;
    let mut config = NodeConfig { initial_cluster, ..config.clone() };
    let own = config.initial_cluster.iter().find(|(name, _)| *name == config.name);
    if let Some((_, urls)) = own {
        config.initial_advertise_peer_urls = urls.clone();
    }
    Ok(config)
}

/// The plan, now that the log has been read: a member that stopped before its cluster was founded
/// asks for it again, unless the others have founded it and bring it into the log meanwhile.
async fn complete(
    plan: Plan,
    config: &NodeConfig,
    discover: Option<Arc<dyn Discover>>,
    raft: &Raft,
) -> Result<Plan, OpenError> {
    match discover {
        Some(discover) if is_initialised(raft).await? => {
            tracing::warn!(
                wal_dir = %config.log_home().display(),
                "{} is ignored since cluster already initialized; valid logs are found",
                discover.what()
            );
            Ok(plan)
        }
        Some(discover) if plan.members.is_empty() => tokio::select! {
            initialised = wait_initialised(raft) => initialised.map(|()| plan),
            found = ask_again(config, &*discover) => found,
        },
        _ => Ok(plan),
    }
}

/// What is said elsewhere than in the flags, asked for once more. That there is no answer is final
/// only after a while: if the others have founded the cluster, nothing of it is needed any more.
async fn ask_again(config: &NodeConfig, discover: &dyn Discover) -> Result<Plan, OpenError> {
    let found = discovered(config, discover).await.and_then(|config| plan::plan(&config));
    if let Err(error) = &found {
        tracing::warn!(%error, "waiting to be told of the cluster by its other members");
        tokio::time::sleep(UNTOLD).await;
    }
    found
}

/// Whether the log holds a membership.
async fn is_initialised(raft: &Raft) -> Result<bool, Fatal> {
    raft.is_initialized().await.map_err(Fatal::new)
}

async fn wait_initialised(raft: &Raft) -> Result<(), OpenError> {
    while !is_initialised(raft).await? {
        tokio::time::sleep(BROUGHT).await;
    }
    Ok(())
}

/// openraft's settings. It campaigns after its lease, which is the longer election timeout, and a
/// random time between the two, so both are fractions of ours.
fn settings(config: &NodeConfig, cluster_id: u64) -> Result<Config, OpenError> {
    let timeout = config.election_timeout.as_millis() as u64;
    let settings = Config {
        cluster_name: format!("{cluster_id:x}"),
        heartbeat_interval: config.heartbeat_interval.as_millis() as u64,
        election_timeout_min: timeout * 4 / 10,
        election_timeout_max: timeout * 7 / 10,
        enable_pre_vote: Some(config.pre_vote),
        quorum_loss_probe_interval: Some(2 * timeout),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: 1 << 40,
        max_payload_entries: 1024,
        install_snapshot_timeout: 600_000,
        removed_leader_step_down: StepDownPolicy::After(150),
        backoff: "20ms 40ms 80ms ...500ms".to_owned(),
        ..Config::default()
    };
    settings.validate().map_err(|error| OpenError::Misconfigured(error.to_string()))
}

async fn bind(config: &NodeConfig) -> Result<Box<dyn Listen>, OpenError> {
    let bound = TcpListen::bind(&config.listen_peer).await;
    let bound = bound.map_err(|source| {
        let what = "binding the peer address".to_owned();
        OpenError::Io { what, source }
    })?;
    Ok(Box::new(bound))
}

/// Serves peers until told to stop.
async fn serve(
    service: PeerServer,
    listener: Box<dyn Listen>,
    election_timeout: Duration,
    stopped: oneshot::Receiver<()>,
) {
    let service = PeerService::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .initial_stream_window_size(16 << 20)
        .initial_connection_window_size(32 << 20)
        .http2_keepalive_interval(Some(election_timeout))
        .http2_keepalive_timeout(Some(election_timeout * SILENCE))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming(listener), async {
            // A node that is dropped without a word stops serving too.
            let _ = stopped.await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "peers are not served any more");
    }
}

fn incoming(listener: Box<dyn Listen>) -> impl Stream<Item = std::io::Result<PeerIo>> {
    futures_util::stream::unfold(listener, |mut listener| async move {
        let accepted: std::io::Result<Connection> = listener.accept().await;
        if accepted.is_err() {
            // Out of file descriptors, most likely; it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some((accepted.map(PeerIo::accepted), listener))
    })
}

fn attributes(config: &NodeConfig, identity: crate::Identity) -> MemberAttributes {
    MemberAttributes {
        member: identity.member_id,
        name: config.name.clone(),
        client_urls: config.advertise_client_urls.clone(),
        incarnation: identity.incarnation,
        level_max: LEVEL_CURRENT,
    }
}

/// Publishes what this member says of itself, until it is committed.
async fn publish(
    port: Port,
    shared: Arc<Shared>,
    attributes: MemberAttributes,
    ready: watch::Sender<bool>,
) {
    loop {
        let change = Change::MemberAttributes(attributes.clone());
        match port.propose(Command::from(change)).await {
            Ok(_) => break,
            Err(error) => tracing::warn!(%error, "this member is not published yet"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shared.look_at_members();
    ready.send_replace(true);
}
