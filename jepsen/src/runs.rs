//! A run: cluster up, clients on, faults, faults over, clients off, everything read back, judged.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::args::{Args, Faults};
use crate::client::{Client, Hash};
use crate::cluster::{Cluster, MEMBERS, RECOVERY_LIMIT};
use crate::network::Hosts;
use crate::workload::{Addresses, Shared, run_client};
use crate::{disk, replace, report, watcher};
use holdfast_jepsen::checker;
use holdfast_jepsen::history::{Change, History, Outcome};

/// The median and the worst failover that are still in order, in election timeouts.
const FAILOVER_MEDIAN_MAX: f64 = 1.6;
const FAILOVER_WORST_MAX: f64 = 3.0;
/// Between two faults, so that the cluster also works undisturbed.
const CALM: Duration = Duration::from_secs(2);

/// Does what the command line asks; an error says which promise was broken.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("{:?} on {}, seed {seed}", args.faults, args.target_binary.display());
    let temporary = tempfile::Builder::new().prefix("holdfast-jepsen-").tempdir()?;
    let directory = args.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&directory)?;
    let result = tokio::task::LocalSet::new().run_until(run_in(args, seed, directory)).await;
    if result.is_err() && args.directory.is_none() {
        println!("data and logs are kept in {}", temporary.keep().display());
    }
    result
}

async fn run_in(args: &Args, seed: u64, directory: PathBuf) -> anyhow::Result<()> {
    if args.faults == Faults::Disk {
        return disk::run(args, seed, directory).await;
    }
    let hosts = (args.faults == Faults::Partition).then(Hosts::create).transpose()?;
    let mut cluster = Cluster::start(args, &directory, hosts).await?;
    cluster.wait_for_all(RECOVERY_LIMIT).await?;

    let began = Instant::now();
    let stop = Rc::new(AtomicBool::new(false));
    let shared = Rc::new(Shared {
        addresses: Rc::new(RefCell::new(cluster.addresses())),
        keys: args.keys,
        began,
        stop: Rc::clone(&stop),
        records: Rc::default(),
    });
    let clients: Vec<_> = (0..args.clients)
        .map(|number| tokio::task::spawn_local(run_client(Rc::clone(&shared), number, seed)))
        .collect();
    let watchers: Vec<_> = (0..MEMBERS)
        .map(|first| {
            let (addresses, stop) = (Rc::clone(&shared.addresses), Rc::clone(&stop));
            tokio::task::spawn_local(async move { watcher::follow(addresses, first, &stop).await })
        })
        .collect();

    let mut nemesis = Nemesis {
        args,
        random: StdRng::seed_from_u64(seed),
        kills: Vec::new(),
        began,
        addresses: Rc::clone(&shared.addresses),
    };
    let faults = nemesis.run(&mut cluster).await;
    tokio::time::sleep(CALM).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    let mut watched = Vec::new();
    for watcher in watchers {
        watched.push(watcher.await?);
    }
    faults?;
    cluster.wait_for_all(RECOVERY_LIMIT).await?;
    let records = shared.records.take();
    let gaps = failover_gaps(&nemesis.kills, &records)?;
    let history = History { records, changes: read_back(&cluster).await?, watched };
    judge(args, &history)?;
    if args.faults == Faults::Failover {
        judge_failovers(args, &gaps)?;
    }
    Ok(())
}

fn judge(args: &Args, history: &History) -> anyhow::Result<()> {
    let verdict = checker::check(history);
    report::print(history, &verdict);
    if let Some(path) = &args.history {
        report::write_history(history, path)?;
    }
    let written =
        history.records.iter().filter(|r| matches!(r.outcome, Outcome::Written { .. })).count();
    if written < args.clients {
        bail!("only {written} writes were acknowledged: the run shows nothing");
    }
    if verdict.count > 0 {
        bail!("{} violations", verdict.count);
    }
    Ok(())
}

fn judge_failovers(args: &Args, gaps: &[Duration]) -> anyhow::Result<()> {
    let timeout = Duration::from_millis(args.election_timeout);
    report::print_failovers(gaps, timeout)?;
    let mut sorted = gaps.to_vec();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2].as_secs_f64() / timeout.as_secs_f64();
    let worst = sorted[sorted.len() - 1].as_secs_f64() / timeout.as_secs_f64();
    if args.compare_only {
        return Ok(());
    }
    if median > FAILOVER_MEDIAN_MAX || worst > FAILOVER_WORST_MAX {
        bail!("median above {FAILOVER_MEDIAN_MAX} or worst above {FAILOVER_WORST_MAX} timeouts");
    }
    Ok(())
}

/// The store's own history, the same on every member, as are the hashes.
async fn read_back(cluster: &Cluster) -> anyhow::Result<Vec<Change>> {
    let revision = Client::new(cluster.address(0))?.current_revision().await?;
    let mut hashes: Vec<Hash> = Vec::new();
    for index in 0..MEMBERS {
        let mut client = Client::new(cluster.address(index))?;
        let current = client.current_revision().await?;
        if current != revision {
            bail!("member {index} reads at revision {current}, member 0 at {revision}");
        }
        hashes.push(client.hash(revision).await?);
    }
    if hashes.iter().any(|hash| *hash != hashes[0]) {
        bail!("members differ at revision {revision}: {hashes:?}");
    }
    println!("all members have hash {:08x} at revision {revision}", hashes[0].hash);
    let mut histories = Vec::new();
    for index in 0..MEMBERS {
        histories.push(watcher::all_changes(cluster.address(index), revision).await?);
    }
    if histories.iter().any(|history| *history != histories[0]) {
        bail!("members replay different histories");
    }
    Ok(histories.swap_remove(0))
}

/// From each kill to the first acknowledgement of a write that was sent after it.
fn failover_gaps(
    kills: &[u64],
    records: &[holdfast_jepsen::history::Record],
) -> anyhow::Result<Vec<Duration>> {
    kills
        .iter()
        .map(|kill| {
            let first = records
                .iter()
                .filter(|r| r.invoked > *kill && matches!(r.outcome, Outcome::Written { .. }))
                .map(|r| r.completed)
                .min()
                .context("no write was acknowledged after the last kill")?;
            Ok(Duration::from_nanos(first - kill))
        })
        .collect()
}

/// What goes wrong, and when.
struct Nemesis<'a> {
    args: &'a Args,
    random: StdRng,
    /// When leaders were killed, in nanoseconds since the run began.
    kills: Vec<u64>,
    began: Instant,
    /// Where clients look for members.
    addresses: Addresses,
}

impl Nemesis<'_> {
    async fn run(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        tokio::time::sleep(CALM).await;
        match self.args.faults {
            Faults::None => tokio::time::sleep(self.args.duration()).await,
            Faults::Kill => self.kill_at_random(cluster).await?,
            Faults::Partition => self.partition(cluster).await?,
            Faults::Lag => self.lag(cluster).await?,
            Faults::Replace => self.replace_all(cluster).await?,
            Faults::Failover => self.kill_leaders(cluster).await?,
            Faults::Upgrade => self.upgrade(cluster).await?,
            Faults::Disk => unreachable!("it is a run of its own"),
        }
        Ok(())
    }

    async fn kill_at_random(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let end = Instant::now() + self.args.duration();
        while Instant::now() < end {
            let leader = cluster.leader(RECOVERY_LIMIT).await?;
            let victims = match self.random.random_range(0..3) {
                0 => vec![leader],
                1 => vec![(leader + self.random.random_range(1..MEMBERS)) % MEMBERS],
                _ => (0..MEMBERS).collect(),
            };
            println!("{:7.2}s kill -9 of {victims:?}, leader {leader}", self.seconds());
            for victim in &victims {
                cluster.kill_member(*victim).await?;
            }
            self.pause(100..2000).await;
            for victim in &victims {
                cluster.start_member(*victim)?;
            }
            cluster.wait_for_write(RECOVERY_LIMIT).await?;
            self.pause(500..3000).await;
        }
        cluster.wait_for_all(RECOVERY_LIMIT).await
    }

    async fn partition(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for kind in
            ["halves", "leader isolated", "bridge", "one-way to leader", "one-way from leader"]
        {
            let leader = cluster.leader(RECOVERY_LIMIT).await?;
            let (second, third) = ((leader + 1) % MEMBERS, (leader + 2) % MEMBERS);
            let cuts = match kind {
                // A follower alone against the other two.
                "halves" => {
                    vec![(second, leader), (leader, second), (second, third), (third, second)]
                }
                "leader isolated" => {
                    vec![(leader, second), (second, leader), (leader, third), (third, leader)]
                }
                // Leader and one follower see each other only through the third.
                "bridge" => vec![(leader, second), (second, leader)],
                "one-way to leader" => vec![(second, leader), (third, leader)],
                _ => vec![(leader, second), (leader, third)],
            };
            println!("{:7.2}s {kind}, leader {leader}: {cuts:?}", self.seconds());
            let hosts = cluster.hosts().context("partitions need namespaces")?;
            for (from, to) in cuts {
                hosts.cut(from, to)?;
            }
            tokio::time::sleep(self.args.duration()).await;
            cluster.hosts().context("partitions need namespaces")?.heal()?;
            cluster.wait_for_all(RECOVERY_LIMIT).await?;
            tokio::time::sleep(CALM).await;
        }
        Ok(())
    }

    /// Each follower in turn stays down long enough to need a checkpoint.
    async fn lag(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let end = Instant::now() + self.args.duration();
        while Instant::now() < end {
            let leader = cluster.leader(RECOVERY_LIMIT).await?;
            let victim = (leader + self.random.random_range(1..MEMBERS)) % MEMBERS;
            println!("{:7.2}s member {victim} is down, leader {leader}", self.seconds());
            cluster.kill_member(victim).await?;
            self.pause(4000..8000).await;
            cluster.start_member(victim)?;
            cluster.wait_for_all(RECOVERY_LIMIT).await?;
            self.pause(500..2000).await;
        }
        Ok(())
    }

    /// Round and round the cluster, in an order that is drawn for each round.
    async fn replace_all(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for round in 0..self.args.rounds {
            let first = self.random.random_range(0..MEMBERS);
            for step in 0..MEMBERS {
                let place = (first + step) % MEMBERS;
                let leader = cluster.leader(RECOVERY_LIMIT).await?;
                println!("{:7.2}s member {place} is replaced, leader {leader}", self.seconds());
                let name = format!("m{place}-{round}");
                replace::replace(cluster, self.args, place, &name).await?;
                self.addresses.borrow_mut()[place] = cluster.address(place).to_owned();
                self.pause(100..500).await;
            }
        }
        cluster.wait_for_all(RECOVERY_LIMIT).await
    }

    async fn kill_leaders(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for _ in 0..self.args.kills {
            let leader = cluster.leader(RECOVERY_LIMIT).await?;
            cluster.kill_member(leader).await?;
            self.kills.push(u64::try_from(self.began.elapsed().as_nanos())?);
            cluster.wait_for_write(RECOVERY_LIMIT).await?;
            cluster.start_member(leader)?;
            cluster.wait_for_all(RECOVERY_LIMIT).await?;
            self.pause(1000..2500).await;
        }
        Ok(())
    }

    /// The last of the old ones leads the new ones for a while, and is killed at that.
    async fn upgrade(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let share = self.args.duration() / (MEMBERS as u32 + 1);
        tokio::time::sleep(share).await;
        for turn in 0..MEMBERS {
            let leader = cluster.leader(RECOVERY_LIMIT).await?;
            let is_old = |index: &usize| !cluster.is_upgraded(*index);
            let mut old: Vec<usize> = (0..MEMBERS).filter(is_old).collect();
            // The leader last, where it is an old one.
            old.sort_by_key(|index| *index == leader);
            let victim = old[0];
            println!("{:7.2}s member {victim} is upgraded, leader {leader}", self.seconds());
            if turn + 1 < MEMBERS {
                cluster.stop_member(victim, RECOVERY_LIMIT).await?;
            } else {
                cluster.kill_member(victim).await?;
            }
            cluster.upgrade_member(victim, &self.args.target_binary)?;
            cluster.wait_for_all(RECOVERY_LIMIT).await?;
            tokio::time::sleep(share).await;
        }
        Ok(())
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        let pause = self.random.random_range(milliseconds);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
