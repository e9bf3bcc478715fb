//! A member that comes late: two of three hold the data and take puts at full load; the third
//! starts empty and must catch up while they go on.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use holdfast_proto::etcdserverpb::HashKvRequest;
use holdfast_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::Programs;
use crate::client;
use crate::cluster::{self, Cluster, Kind, Target};
use crate::load::{self, Data, Load, Operation};

const CLIENTS: usize = 64;
const KEY_BYTES: usize = 40;
/// Puts alone, to compare with.
const ALONE: Duration = Duration::from_secs(5);
/// How long members may take to be equal after the load has ended.
const SETTLE: Duration = Duration::from_secs(30);

/// Flags of `bench join`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Bytes of all values.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 10 << 10)]
    value_bytes: usize,
    /// Bytes of a value put while the member joins.
    #[arg(long, default_value_t = 256)]
    load_value_bytes: usize,
    /// Seconds of full load, in which the member must have caught up.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where all values follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Fills two members, starts the third under load, and compares all three.
pub fn run(options: &Options) -> Result<()> {
    let target = Target {
        kind: Kind::Holdfast,
        program: cluster::holdfast_binary(options.programs.holdfast.as_deref())?,
        flags: vec!["--quota-backend-bytes=-1".to_owned()],
    };
    let scratch = cluster::scratch_folder(options.programs.scratch.as_deref())?;
    let mut cluster = Cluster::plan(&target, 3, &scratch)?;
    cluster.launch_some(0..2)?;
    let keys = options.bytes / options.value_bytes as u64;
    let data = Data { keys, key_bytes: KEY_BYTES, value_bytes: options.value_bytes };
    load::fill(&cluster, &data, options.seed)?;
    let puts = Load {
        operation: Operation::Put,
        clients: CLIENTS,
        data: Data { value_bytes: options.load_value_bytes, ..data },
        warm_up: Duration::ZERO,
        measured: ALONE,
        seed: options.seed,
    };
    let alone = load::run(&cluster, &puts)?;
    println!("two members with {keys} keys: {:.0} puts/s", alone.rate);

    let window = Duration::from_secs(options.seconds);
    let (endpoints, processes) = (cluster.endpoints(), cluster.processes());
    let loading = thread::spawn(move || {
        load::run_at(&endpoints, &processes, &Load { measured: window, ..puts })
    });
    let took = cluster.launch_some(2..3)?;
    ensure!(took < window, "the member took {took:.1?}, longer than the load");
    println!("the third served linearizable reads after {:.1} s of the load", took.as_secs_f64());
    let during = loading.join().ok().context("the load panicked")??;
    println!("meanwhile: {:.0} puts/s, p99 {:.0?}", during.rate, during.latencies[2]);
    ensure!(during.errors == 0, "{} puts failed", during.errors);
    equal_hashes(&cluster)
}

/// Waits until all members answer with one hash of one revision.
fn equal_hashes(cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    let runtime = client::runtime()?;
    loop {
        let mut hashes = Vec::new();
        for endpoint in cluster.endpoints() {
            hashes.push(runtime.block_on(hash(&endpoint))?);
        }
        if hashes.iter().all(|hash| *hash == hashes[0]) {
            println!("all members have hash {:08x} at revision {}", hashes[0].1, hashes[0].0);
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "members differ: (revision, hash) {hashes:?}");
    }
}

async fn hash(endpoint: &str) -> Result<(i64, u32)> {
    let connection = client::connect(endpoint).await?;
    let mut maintenance = MaintenanceClient::with_origin(connection, endpoint.parse()?);
    let answer = maintenance.hash_kv(HashKvRequest::default()).await?.into_inner();
    Ok((answer.hash_revision, answer.hash))
}
