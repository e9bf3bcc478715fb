//! Closed-loop load: each client has one request under way at a time, for a fixed window.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};

use crate::client::{self, Kv};
use crate::cluster::Cluster;
use crate::process;
use crate::random::Random;
use crate::sample::Sample;

/// Client threads, each with a runtime of its own: one for each of the cores that client and
/// server share.
const THREADS: usize = 2;
/// Clients that share a connection; 64 clients use 8 connections, 256 use 32.
const CLIENTS_PER_CONNECTION: usize = 8;
/// Values are slices of one pool of bytes that do not compress.
const POOL_BYTES: usize = 1 << 20;
/// Puts in one transaction while filling; the servers' default limit.
const PUTS_PER_FILL: u64 = 128;
const FILL_BYTES_MAX: u64 = 1 << 20;
const CONNECT_TIME: Duration = Duration::from_millis(500);

/// What clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Puts of a random key.
    Put,
    /// Linearizable gets of a random key.
    Get,
}

impl Operation {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

/// Keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Number of keys.
    pub keys: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
}

impl Data {
    /// The key with a number, padded to its length.
    pub fn key(&self, number: u64) -> Bytes {
        let digits = self.key_bytes - 1;
        format!("k{number:0digits$}").into()
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What is asked for.
    pub operation: Operation,
    /// How many ask.
    pub clients: usize,
    /// Keys and values.
    pub data: Data,
    /// Before anything counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measured: Duration,
    /// Where all choices follow from.
    pub seed: u64,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests answered within the window, per second.
    pub rate: f64,
    /// 50 %, 90 %, 99 % and 99.9 % of latencies are at or below these.
    pub latencies: [Duration; 4],
    /// Servers' CPU time for each request.
    pub cpu_per_operation: Duration,
    /// Servers' memory at the end.
    pub memory: process::Memory,
    /// Requests that failed within the window.
    pub errors: usize,
}

#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    end: Instant,
}

#[derive(Default)]
struct Tally {
    sample: Sample,
    errors: usize,
}

/// Runs a load against all members of a cluster.
pub fn run(cluster: &Cluster, load: &Load) -> Result<Outcome> {
    run_at(&cluster.endpoints(), &cluster.processes(), load)
}

/// Runs a load against `endpoints`, which `processes` serve.
pub fn run_at(endpoints: &[String], processes: &[u32], load: &Load) -> Result<Outcome> {
    let start = Instant::now() + CONNECT_TIME + load.warm_up;
    let window = Window { start, end: start + load.measured };
    let handles: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (endpoints, load) = (endpoints.to_vec(), *load);
            thread::spawn(move || client_thread(&endpoints, &load, thread, window))
        })
        .collect();
    sleep_until(window.start);
    let cpu_before = process::cpu_time(processes)?;
    sleep_until(window.end);
    let cpu = process::cpu_time(processes)?.saturating_sub(cpu_before);
    let memory = process::memory(processes)?;
    let mut total = Tally::default();
    for handle in handles {
        let tally = handle.join().ok().context("a client thread panicked")??;
        total.sample.merge(tally.sample);
        total.errors += tally.errors;
    }
    let operations = total.sample.len();
    ensure!(operations > 0, "no request was answered");
    Ok(Outcome {
        rate: operations as f64 / load.measured.as_secs_f64(),
        latencies: total.sample.percentiles([0.5, 0.9, 0.99, 0.999]),
        cpu_per_operation: cpu.div_f64(operations as f64),
        memory,
        errors: total.errors,
    })
}

fn sleep_until(instant: Instant) {
    thread::sleep(instant.saturating_duration_since(Instant::now()));
}

fn client_thread(
    endpoints: &[String],
    load: &Load,
    thread: usize,
    window: Window,
) -> Result<Tally> {
    let runtime = client::runtime()?;
    runtime.block_on(async {
        let pool = pool(load.seed, load.data.value_bytes);
        let mut tasks = Vec::new();
        let mut connection: Option<(usize, Kv)> = None;
        for client in
            (0..load.clients).filter(|client| client / CLIENTS_PER_CONNECTION % THREADS == thread)
        {
            let group = client / CLIENTS_PER_CONNECTION;
            let kv = match &connection {
                Some((of, kv)) if *of == group => kv.clone(),
                _ => client::connect_kv(&endpoints[group % endpoints.len()]).await?,
            };
            connection = Some((group, kv.clone()));
            let random = Random::new(load.seed.wrapping_add(client as u64) << 20);
            tasks.push(tokio::spawn(worker(kv, *load, pool.clone(), random, window)));
        }
        let mut total = Tally::default();
        for task in tasks {
            let tally = task.await?;
            total.sample.merge(tally.sample);
            total.errors += tally.errors;
        }
        Ok(total)
    })
}

/// A request counts if it began and ended within the window.
async fn worker(mut kv: Kv, load: Load, pool: Bytes, mut random: Random, window: Window) -> Tally {
    let mut tally = Tally::default();
    loop {
        let started = Instant::now();
        if started >= window.end {
            return tally;
        }
        let key = load.data.key(random.below(load.data.keys));
        let answer = match load.operation {
            Operation::Put => {
                let value = slice(&pool, load.data.value_bytes, &mut random);
                kv.put(PutRequest { key, value, ..Default::default() }).await.map(drop)
            }
            Operation::Get => kv.range(RangeRequest { key, ..Default::default() }).await.map(drop),
        };
        let ended = Instant::now();
        if started < window.start || ended > window.end {
            continue;
        }
        match answer {
            Ok(()) => tally.sample.add(ended - started),
            Err(_) => tally.errors += 1,
        }
    }
}

/// Puts every key once, in transactions, through one member.
pub fn fill(cluster: &Cluster, data: &Data, seed: u64) -> Result<()> {
    let endpoint = cluster.endpoints().remove(0);
    client::runtime()?.block_on(async {
        let kv = client::connect_kv(&endpoint).await?;
        let pair_bytes = (data.key_bytes + data.value_bytes) as u64;
        let step = PUTS_PER_FILL.min(FILL_BYTES_MAX / pair_bytes).max(1);
        let lanes = 4;
        let tasks: Vec<_> = (0..lanes)
            .map(|lane| {
                let (kv, data) = (kv.clone(), *data);
                tokio::spawn(fill_lane(kv, data, seed, step, (lane, lanes)))
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

async fn fill_lane(
    mut kv: Kv,
    data: Data,
    seed: u64,
    step: u64,
    (lane, lanes): (u64, u64),
) -> Result<()> {
    let pool = pool(seed, data.value_bytes);
    let mut random = Random::new(seed ^ lane);
    let mut first = lane * step;
    while first < data.keys {
        let success = (first..(first + step).min(data.keys))
            .map(|number| {
                let value = slice(&pool, data.value_bytes, &mut random);
                let put = PutRequest { key: data.key(number), value, ..Default::default() };
                RequestOp { request: Some(request_op::Request::RequestPut(put)) }
            })
            .collect();
        kv.txn(TxnRequest { success, ..Default::default() }).await.context("filling")?;
        first += step * lanes;
    }
    Ok(())
}

fn pool(seed: u64, value_bytes: usize) -> Bytes {
    Random::new(seed).bytes(POOL_BYTES + value_bytes).into()
}

fn slice(pool: &Bytes, length: usize, random: &mut Random) -> Bytes {
    let offset = random.below(POOL_BYTES as u64) as usize;
    pool.slice(offset..offset + length)
}
