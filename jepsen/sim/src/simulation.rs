//! One run: a seed, a scenario, a verdict.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use holdfast_jepsen::checker;
use holdfast_jepsen::history::{History, Outcome};
use tokio::runtime::{Builder, RngSeed};
use tokio::task::LocalSet;

use crate::clients::{self, Shared};
use crate::faults;
use crate::plants::Plant;
use crate::trace::Trace;
use crate::world::{MEMBERS, World};

/// Clients of every run.
const CLIENTS: usize = 6;
/// After the faults clients go on for so long.
const CALM: Duration = Duration::from_secs(2);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Crashes and partitions at random.
    Chaos,
    /// All members lose power at once, several times.
    Power,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub seed: u64,
    pub scenario: Scenario,
    pub plant: Option<Plant>,
    pub verbose: bool,
}

/// What a run that passed has shown.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub trace: u64,
    pub written: usize,
    pub unknown: usize,
    pub reads: usize,
    pub watched: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, written, unknown, reads, watched } = self;
        write!(
            f,
            "trace {trace:016x}, {written} written, {unknown} unknown, {reads} reads, {watched} watched"
        )
    }
}

impl fmt::Display for Run {
    /// The command that replays this run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scenario = self.scenario.to_possible_value().expect("no scenario is hidden");
        write!(
            f,
            "cargo run --release -p jepsen-sim -- --seeds 1 --start {} --scenario {}",
            self.seed,
            scenario.get_name()
        )
    }
}

impl Run {
    /// Runs it; an error says which promise was broken.
    pub fn execute(self) -> anyhow::Result<Summary> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&self.seed.to_le_bytes()))
            .build()?;
        let local = LocalSet::new();
        local.block_on(&runtime, self.play())
    }

    async fn play(self) -> anyhow::Result<Summary> {
        let world = World::new(self.seed, self.plant, Trace::new(self.verbose));
        (0..MEMBERS).for_each(|index| world.start(index));
        world.wait_for_all().await.context("at the start")?;
        let shared = Rc::new(Shared::default());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = clients::run_client(Rc::clone(&world), Rc::clone(&shared), number);
                tokio::task::spawn_local(client)
            })
            .collect();
        let watchers: Vec<_> = (0..MEMBERS)
            .map(|first| {
                let watcher = clients::follow(Rc::clone(&world), Rc::clone(&shared), first);
                tokio::task::spawn_local(watcher)
            })
            .collect();
        match self.scenario {
            Scenario::Chaos => faults::chaos(&world).await?,
            Scenario::Power => faults::power_cuts(&world).await?,
        }
        faults::heal(&world);
        world.wait_for_all().await.context("after the faults")?;
        tokio::time::sleep(CALM).await;
        shared.stop.set(true);
        for client in clients {
            client.await?;
        }
        let mut watched = Vec::new();
        for watcher in watchers {
            watched.push(watcher.await??);
        }
        world.check()?;
        let changes = read_back(&world).await?;
        let history = History { records: shared.records.take(), changes, watched };
        judge(&world, &history)
    }
}

/// The cluster's own history; all members must have the same.
async fn read_back(world: &World) -> anyhow::Result<Vec<holdfast_jepsen::history::Change>> {
    world.wait_for_all().await?;
    let mut hashes = Vec::new();
    let mut histories = Vec::new();
    for index in 0..MEMBERS {
        let node = world.open_node(index)?;
        let revision = node.reader().revision();
        let hash = node.reader().hash_kv(0).map_err(|e| anyhow::anyhow!("hashing: {e:?}"))?;
        hashes.push((revision, hash.hash));
        histories.push(clients::all_changes(&node, revision).await?);
    }
    world.trace.note(format_args!("hashes {hashes:?}"));
    if hashes.iter().any(|hash| *hash != hashes[0]) {
        bail!("members differ: (revision, hash) {hashes:?}");
    }
    if histories.iter().any(|history| *history != histories[0]) {
        bail!("members replay different histories");
    }
    Ok(histories.swap_remove(0))
}

fn judge(world: &World, history: &History) -> anyhow::Result<Summary> {
    let verdict = checker::check(history);
    if verdict.count > 0 {
        bail!("{} violations, the first: {}", verdict.count, verdict.violations[0]);
    }
    let count = |wanted: fn(&Outcome) -> bool| {
        history.records.iter().filter(|record| wanted(&record.outcome)).count()
    };
    let written = count(|outcome| matches!(outcome, Outcome::Written { .. }));
    if written < CLIENTS {
        bail!("only {written} writes were acknowledged: the run shows nothing");
    }
    Ok(Summary {
        trace: world.trace.hash(),
        written,
        unknown: count(|outcome| *outcome == Outcome::Unknown),
        reads: count(|outcome| matches!(outcome, Outcome::Read { .. })),
        watched: history.watched.iter().map(Vec::len).sum(),
    })
}
