//! Single gets while something huge goes on: their p99 stays near that of quiet, and nobody is
//! elected.
//!
//! All clients share the cores with the server, and none is what is measured: those that list only
//! count bytes and give way to everybody, and the one that is timed waits for nobody. Quiet and
//! stress alternate, so that a noisy neighbour troubles both.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Args;
use holdfast_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use holdfast_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, StatusRequest};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tower::Service as _;

use crate::client;
use crate::cluster::{self, Cluster, Kind, Target};
use crate::load::{self, Data};
use crate::priority;
use crate::random::Random;
use crate::sample::Sample;
use crate::{Programs, etcd};

const LIST_VALUE_BYTES: u64 = 16 << 10;
const QUIET: Duration = Duration::from_secs(3);
/// Between two gets: enough of them for a p99, too few to be a load.
const GET_INTERVAL: Duration = Duration::from_millis(1);
/// Of the slowest gets it is printed when they were.
const SLOWEST_SHOWN: usize = 8;

/// Flags of `bench stall`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Members of the cluster.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Keys to delete at once.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of one list.
    #[arg(long, default_value_t = 256 << 20)]
    list_bytes: u64,
    /// Lists at once.
    #[arg(long, default_value_t = 10)]
    lists: usize,
    /// p99 under stress may be this many times that of quiet.
    #[arg(long, default_value_t = 3.0)]
    limit: f64,
    /// Times that all of it is done; the latencies are taken together.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure etcd instead, without a verdict.
    #[arg(long)]
    of_etcd: bool,
    /// Where all values follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures quiet, the delete and the lists.
pub fn run(options: &Options) -> Result<()> {
    let scratch = cluster::scratch_folder(options.programs.scratch.as_deref())?;
    let cluster = Cluster::start(&target(options)?, options.members, &scratch)?;
    fill_lists(&cluster, options)?;
    let endpoint = cluster.endpoints().remove(0);
    let term = raft_term(&endpoint)?;
    let [mut quiet, mut delete, mut lists] = <[Seen; 3]>::default();
    for _ in 0..options.rounds {
        let data = Data { keys: options.keys, key_bytes: 40, value_bytes: 64 };
        load::fill(&cluster, &data, options.seed)?;
        quiet.add(during(&endpoint, quiet_time)?);
        delete.add(during(&endpoint, || delete_all(&endpoint, options.keys))?);
        lists.add(during(&endpoint, || list_at_once(&endpoint, options))?);
    }
    let elections = raft_term(&endpoint)? - term;
    let quiet = report("quiet", &mut quiet, None);
    let delete = report("delete", &mut delete, Some(quiet));
    let lists = report("lists", &mut lists, Some(quiet));
    println!("elections: {elections}");
    if options.of_etcd {
        return Ok(());
    }
    ensure!(elections == 0, "there were {elections} elections");
    for (what, p99) in [("delete", delete), ("lists", lists)] {
        let ratio = p99.as_secs_f64() / quiet.as_secs_f64();
        ensure!(ratio <= options.limit, "p99 during {what} is {ratio:.1} times that of quiet");
    }
    Ok(())
}

fn target(options: &Options) -> Result<Target> {
    let flags = vec!["--quota-backend-bytes=8589934592".to_owned()];
    Ok(if options.of_etcd {
        Target { kind: Kind::Etcd, program: etcd::binary(options.programs.etcd.as_deref())?, flags }
    } else {
        let program = cluster::holdfast_binary(options.programs.holdfast.as_deref())?;
        Target { kind: Kind::Holdfast, program, flags }
    })
}

fn quiet_time() -> Result<()> {
    thread::sleep(QUIET);
    Ok(())
}

/// Latencies of single gets while something went on.
#[derive(Default)]
struct Seen {
    sample: Sample,
    took: Duration,
    slowest: Vec<Slow>,
}

/// A get, and when within its round it began.
struct Slow {
    latency: Duration,
    began: Duration,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.sample.merge(other.sample);
        self.took += other.took;
        self.slowest.extend(other.slowest);
        self.keep_slowest();
    }

    fn add_get(&mut self, began: Duration, latency: Duration) {
        self.sample.add(latency);
        self.slowest.push(Slow { latency, began });
        if self.slowest.len() >= 2 * SLOWEST_SHOWN {
            self.keep_slowest();
        }
    }

    fn keep_slowest(&mut self) {
        self.slowest.sort_unstable_by_key(|slow| Reverse(slow.latency));
        self.slowest.truncate(SLOWEST_SHOWN);
    }
}

/// Prints what was seen, and gives its p99.
fn report(what: &str, seen: &mut Seen, quiet: Option<Duration>) -> Duration {
    let [p50, p99, worst] = seen.sample.percentiles([0.5, 0.99, 1.0]);
    let ratio = quiet.map_or_else(String::new, |quiet| {
        format!(", p99 is {:.2} x quiet", p99.as_secs_f64() / quiet.as_secs_f64())
    });
    println!(
        "{what}: {:.2} s, {} gets, p50 {p50:.0?}, p99 {p99:.2?}, worst {worst:.2?}{ratio}",
        seen.took.as_secs_f64(),
        seen.sample.len(),
    );
    for slow in &seen.slowest {
        println!("  {:.2?}, begun after {:.0?}", slow.latency, slow.began);
    }
    p99
}

/// Gets one key again and again while `work` runs on this thread.
fn during(endpoint: &str, work: impl FnOnce() -> Result<()>) -> Result<Seen> {
    let done = Arc::new(AtomicBool::new(false));
    let prober = {
        let (done, endpoint) = (Arc::clone(&done), endpoint.to_owned());
        thread::spawn(move || probe(&endpoint, &done))
    };
    let started = Instant::now();
    let worked = work();
    let took = started.elapsed();
    done.store(true, Ordering::Release);
    let seen = prober.join().ok().context("the prober panicked")??;
    worked?;
    Ok(Seen { took, ..seen })
}

fn probe(endpoint: &str, done: &AtomicBool) -> Result<Seen> {
    if !priority::first()? {
        eprintln!("bench: not root, so the gets that are timed wait for other clients too");
    }
    client::runtime()?.block_on(async {
        let mut kv = client::connect_kv(endpoint).await?;
        let mut seen = Seen::default();
        let start = Instant::now();
        while !done.load(Ordering::Acquire) {
            let began = start.elapsed();
            kv.range(RangeRequest { key: "list/0".into(), ..Default::default() }).await?;
            seen.add_get(began, start.elapsed() - began);
            tokio::time::sleep(GET_INTERVAL).await;
        }
        Ok(seen)
    })
}

fn fill_lists(cluster: &Cluster, options: &Options) -> Result<()> {
    let endpoint = cluster.endpoints().remove(0);
    client::runtime()?.block_on(async {
        let mut kv = client::connect_kv(&endpoint).await?;
        let mut random = Random::new(options.seed);
        for number in 0..options.list_bytes / LIST_VALUE_BYTES {
            let value = random.bytes(LIST_VALUE_BYTES as usize).into();
            let key = format!("list/{number}").into();
            kv.put(PutRequest { key, value, ..Default::default() }).await?;
        }
        Ok(())
    })
}

fn delete_all(endpoint: &str, keys: u64) -> Result<()> {
    client::runtime()?.block_on(async {
        let mut kv = client::connect_kv(endpoint).await?;
        let request =
            DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
        let deleted = kv.delete_range(request).await?.into_inner().deleted;
        ensure!(u64::try_from(deleted) == Ok(keys), "{deleted} keys of {keys} were deleted");
        Ok(())
    })
}

fn raft_term(endpoint: &str) -> Result<u64> {
    client::runtime()?.block_on(async {
        let connection = client::connect(endpoint).await?;
        let mut maintenance = MaintenanceClient::with_origin(connection, endpoint.parse()?);
        Ok(maintenance.status(StatusRequest::default()).await?.into_inner().raft_term)
    })
}

fn list_at_once(endpoint: &str, options: &Options) -> Result<()> {
    let handles: Vec<_> = (0..options.lists)
        .map(|_| {
            let (endpoint, bytes) = (endpoint.to_owned(), options.list_bytes);
            thread::spawn(move || list(&endpoint, bytes))
        })
        .collect();
    for handle in handles {
        handle.join().ok().context("a lister panicked")??;
    }
    Ok(())
}

/// Reads one list and throws it away.
fn list(endpoint: &str, expected_bytes: u64) -> Result<()> {
    priority::last()?;
    client::runtime()?.block_on(async {
        let mut connection = client::connect(endpoint).await?;
        let request = http::Request::post(format!("{endpoint}/etcdserverpb.KV/Range"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(Full::new(framed_list_request())))?;
        let mut body = connection.call(request).await?.into_body();
        let (mut bytes, mut status) = (0, None);
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            match frame.data_ref() {
                Some(data) => bytes += data.len() as u64,
                None => {
                    status = frame.trailers_ref().and_then(|map| map.get("grpc-status")).cloned()
                }
            }
        }
        ensure!(status.as_ref().is_some_and(|code| code == "0"), "a list ended with {status:?}");
        ensure!(bytes >= expected_bytes, "a list had {bytes} bytes");
        Ok(())
    })
}

fn framed_list_request() -> Bytes {
    let request =
        RangeRequest { key: "list/".into(), range_end: "list0".into(), ..Default::default() };
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(request.encoded_len()).expect("a small request"));
    framed.extend_from_slice(&request.encode_to_vec());
    framed.freeze()
}
