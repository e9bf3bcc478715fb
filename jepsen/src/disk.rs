//! Members on small file systems: filled until writes are refused, emptied, and filled again.
//!
//! ```text
//! fill until NOSPACE -> reads, deletes, refusals -> every acknowledged key is there, members agree
//!   -> a member is killed and starts on its full disk
//!   -> delete every second key, compact -> writes go through again, without a word
//! fill until NOSPACE, with more under way than any reserve -> as before
//!   -> delete everything, compact -> writes go through again, without a restart and without a word
//! ```
//!
//! Each member has an ext4 of its own on a loop device, in a mount namespace that ends with the run.
//! Needs root, `mkfs.ext4`, `mount` and `unshare`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::args::{Args, Faults};
use crate::client::Client;
use crate::cluster::{Cluster, MEMBERS, RECOVERY_LIMIT};

/// Set in the harness once it runs in its own namespace.
const INSIDE: &str = "HOLDFAST_JEPSEN_MOUNTS";
/// Bytes of one value, and clients, of the second time the disks are filled.
const LARGE_VALUE_BYTES: usize = 1 << 20;
const LARGE_CLIENTS: usize = 128;
/// Bytes of one value, of the first time; random, so that nothing packs it smaller.
const VALUE_BYTES: usize = 64 << 10;
/// Less than this shows nothing: of the empty disks, half of them;
const FILLED_BYTES_MIN: usize = 256 << 20;
/// of those that have just got room again, half of the reserve that is free beside the one that is
/// kept, since every value is written twice, to the log and to a block.
const FILLED_AGAIN_BYTES_MIN: usize = 12 << 20;
/// Deletes in one transaction.
const DELETES: usize = 100;
/// How long it may take until there is no space, and until there is some again.
const LIMIT: Duration = Duration::from_secs(240);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

/// For runs on small file systems: starts this program again where its mounts are its own.
pub fn enter_own_namespace_if_asked(args: &Args) -> anyhow::Result<()> {
    if args.faults != Faults::Disk || std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount").arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(unshare.exec()).context("small disks need `unshare --mount` (root, and util-linux)")
}

/// Fills, empties and judges, as often as the command line asks.
pub async fn run(args: &Args, seed: u64, directory: PathBuf) -> anyhow::Result<()> {
    for index in 0..MEMBERS {
        mount(&directory.join(format!("m{index}")), args.disk_mebibytes)?;
    }
    let mut cluster = Cluster::start(args, &directory, None).await?;
    cluster.wait_for_all(RECOVERY_LIMIT).await?;
    for round in 0..args.disk_rounds {
        let mut held = BTreeSet::new();
        let load = Load {
            clients: args.clients,
            value_bytes: VALUE_BYTES,
            bytes_min: FILLED_BYTES_MIN,
            name: "small",
        };
        fill(&load, &mut cluster, seed ^ round, &mut held).await?;
        restart_on_full_disk(&mut cluster, (seed ^ round) as usize % MEMBERS).await?;
        let began = Instant::now();
        let gone: BTreeSet<_> = held.iter().step_by(2).cloned().collect();
        held.retain(|key| !gone.contains(key));
        let revision = delete_keys(&cluster, &gone).await?;
        compact(&cluster, revision).await?;
        again(&mut cluster, &held, &gone, began).await?;

        let load = Load {
            clients: LARGE_CLIENTS,
            value_bytes: LARGE_VALUE_BYTES,
            bytes_min: FILLED_AGAIN_BYTES_MIN,
            name: "large",
        };
        fill(&load, &mut cluster, seed ^ round, &mut held).await?;
        let began = Instant::now();
        let revision = delete_all(&cluster).await?;
        compact(&cluster, revision).await?;
        again(&mut cluster, &BTreeSet::new(), &held, began).await?;
    }
    Ok(())
}

/// What fills the disks.
struct Load {
    clients: usize,
    value_bytes: usize,
    /// Less than this shows nothing.
    bytes_min: usize,
    /// A part of each key.
    name: &'static str,
}

/// Fills the disks, and looks at the full store. `held` are the keys that it holds.
async fn fill(
    load: &Load,
    cluster: &mut Cluster,
    seed: u64,
    held: &mut BTreeSet<Bytes>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut written = put_until_full(load, cluster, seed).await?;
    let (count, bytes) = (written.len(), written.len() * load.value_bytes);
    println!(
        "{count} keys of {} KiB in {:.1}s, then no space",
        load.value_bytes >> 10,
        seconds(began)
    );
    ensure!(bytes > load.bytes_min, "only {bytes} bytes fitted: the run shows nothing");
    held.append(&mut written);
    cluster.assert_running()?;
    cluster.wait_for_all(RECOVERY_LIMIT).await?;
    full(cluster, held).await?;
    cluster.assert_running()
}

/// A member that was killed comes back, though its disk is full.
async fn restart_on_full_disk(cluster: &mut Cluster, index: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    cluster.kill_member(index).await?;
    cluster.start_member(index)?;
    cluster.wait_for_all(RECOVERY_LIMIT).await?;
    println!("member {index} was killed and is back after {:.1}s", seconds(began));
    Ok(())
}

/// Waits until a put goes through on every member; then what should be there is, and nothing else.
async fn again(
    cluster: &mut Cluster,
    held: &BTreeSet<Bytes>,
    gone: &BTreeSet<Bytes>,
    began: Instant,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    for index in 0..MEMBERS {
        let mut client = connect(cluster.address(index))?;
        while let Err(status) = client.put(put(Bytes::from_static(b"again"), Bytes::new())).await {
            ensure!(Instant::now() < deadline, "member {index} still refuses puts: {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    println!("writes go through again {:.1}s after the first delete", seconds(began));
    cluster.assert_running()?;
    cluster.wait_for_all(RECOVERY_LIMIT).await?;
    for index in 0..MEMBERS {
        let found = keys(&mut connect(cluster.address(index))?).await?;
        let lost = held.difference(&found).count();
        let left = gone.intersection(&found).count();
        ensure!(lost + left == 0, "member {index} lost {lost} keys, and has {left} deleted ones");
    }
    agree(cluster).await
}

fn seconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}

/// A file system in a file beside `folder`.
fn mount(folder: &Path, mebibytes: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let image = folder.with_extension("ext4");
    std::fs::File::create(&image)?.set_len(mebibytes << 20)?;
    // Nothing is kept for root, as whom this runs.
    command("mkfs.ext4", &["-q", "-m", "0"], &[&image])?;
    command("mount", &["-o", "loop"], &[&image, folder])
}

fn command(program: &str, options: &[&str], paths: &[&Path]) -> anyhow::Result<()> {
    let status = Command::new(program).args(options).args(paths).status();
    let status = status.with_context(|| format!("{program} cannot be started"))?;
    ensure!(status.success(), "{program} {options:?} {paths:?}: {status}");
    Ok(())
}

fn connect(address: &str) -> anyhow::Result<KvClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.timeout(REQUEST_TIMEOUT);
    Ok(KvClient::new(endpoint.connect_lazy()))
}

fn put(key: Bytes, value: Bytes) -> pb::PutRequest {
    pb::PutRequest { key, value, ..Default::default() }
}

fn everything() -> (Bytes, Bytes) {
    (Bytes::from_static(b"fill/"), Bytes::from_static(b"fill0"))
}

/// Puts keys through all members until one is refused; gives the acknowledged ones.
async fn put_until_full(
    load: &Load,
    cluster: &Cluster,
    seed: u64,
) -> anyhow::Result<BTreeSet<Bytes>> {
    let next = Rc::new(Cell::new(0));
    let full = Rc::new(Cell::new(false));
    let written = Rc::new(RefCell::new(BTreeSet::new()));
    let deadline = Instant::now() + LIMIT;
    let mut tasks = Vec::new();
    for number in 0..load.clients {
        let mut client = connect(cluster.address(number % MEMBERS))?;
        let (next, full, written) = (next.clone(), full.clone(), written.clone());
        let (prefix, value_bytes) = (format!("fill/{}/", load.name), load.value_bytes);
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        tasks.push(tokio::task::spawn_local(async move {
            while !full.get() {
                ensure!(Instant::now() < deadline, "there still is space after {LIMIT:?}");
                let number = next.replace(next.get() + 1);
                let key = Bytes::from(format!("{prefix}{number:08}"));
                let mut value = vec![0; value_bytes];
                random.fill_bytes(&mut value);
                match client.put(put(key.clone(), value.into())).await {
                    Ok(_) => drop(written.borrow_mut().insert(key)),
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        ensure!(status.message() == NO_SPACE, "refused with {status}");
                        full.set(true);
                    }
                    // Unknown, or too much at once; neither says that the disk is full.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(written.take())
}

/// What a full store does: refuse, read, delete, and hold everything that it has acknowledged.
async fn full(cluster: &Cluster, written: &mut BTreeSet<Bytes>) -> anyhow::Result<()> {
    refused_everywhere(cluster).await?;
    let gone = written.pop_first().context("a key")?;
    let mut client = connect(cluster.address(1))?;
    ensure!(keys(&mut client).await?.contains(&gone), "{gone:?} was acknowledged and is lost");
    let delete = pb::DeleteRangeRequest { key: gone.clone(), ..Default::default() };
    insist(async || client.delete_range(delete.clone()).await).await?;
    for index in 0..MEMBERS {
        let found = keys(&mut connect(cluster.address(index))?).await?;
        let lost: Vec<_> = written.difference(&found).take(5).collect();
        ensure!(lost.is_empty(), "member {index} lost acknowledged keys: {lost:?}");
        ensure!(!found.contains(&gone), "member {index} still has {gone:?}");
    }
    agree(cluster).await
}

/// A put is refused by each member within the time that an alarm takes to reach it.
async fn refused_everywhere(cluster: &Cluster) -> anyhow::Result<()> {
    for index in 0..MEMBERS {
        let mut client = connect(cluster.address(index))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match client.put(put(Bytes::from_static(b"small"), Bytes::new())).await {
                Err(status) if status.message() == NO_SPACE => break,
                other if Instant::now() > deadline => {
                    bail!("member {index} answers a put with {other:?}");
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    Ok(())
}

/// Sends what may be sent again until it is answered: an election may come in between.
async fn insist<T>(mut send: impl AsyncFnMut() -> Result<T, Status>) -> anyhow::Result<T> {
    let deadline = Instant::now() + RECOVERY_LIMIT;
    loop {
        match send().await {
            Ok(answer) => return Ok(answer),
            Err(status) if Instant::now() > deadline => return Err(status.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn keys(client: &mut KvClient<Channel>) -> anyhow::Result<BTreeSet<Bytes>> {
    let (key, range_end) = everything();
    let range = pb::RangeRequest { key, range_end, keys_only: true, ..Default::default() };
    let records = insist(async || client.range(range.clone()).await).await?.into_inner().kvs;
    let key = |record: &holdfast_proto::EncodedKeyValue| Ok(record.decode_message()?.key);
    records.iter().map(key).collect()
}

/// Deletes all keys; gives the revision.
async fn delete_all(cluster: &Cluster) -> anyhow::Result<i64> {
    let mut client = connect(cluster.address(2))?;
    let (key, range_end) = everything();
    let delete = pb::DeleteRangeRequest { key, range_end, ..Default::default() };
    let deleted = insist(async || client.delete_range(delete.clone()).await).await?.into_inner();
    Ok(deleted.header.context("a header")?.revision)
}

/// Deletes these keys; gives the last revision.
async fn delete_keys(cluster: &Cluster, gone: &BTreeSet<Bytes>) -> anyhow::Result<i64> {
    let mut client = connect(cluster.address(2))?;
    let delete = |key: &Bytes| {
        let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestDeleteRange(delete)) }
    };
    let deletes: Vec<_> = gone.iter().map(delete).collect();
    let mut revision = 0;
    for chunk in deletes.chunks(DELETES) {
        let txn = pb::TxnRequest { success: chunk.to_vec(), ..Default::default() };
        let done = insist(async || client.txn(txn.clone()).await).await?.into_inner();
        revision = done.header.context("a header")?.revision;
    }
    Ok(revision)
}

async fn compact(cluster: &Cluster, revision: i64) -> anyhow::Result<()> {
    let mut client = connect(cluster.address(2))?;
    let compact = pb::CompactionRequest { revision, physical: false };
    insist(async || match client.compact(compact).await {
        // An attempt that was not answered has done it.
        Err(status) if status.code() == Code::OutOfRange => Ok(()),
        answer => answer.map(drop),
    })
    .await
}

/// All members have the same hash at one revision.
async fn agree(cluster: &Cluster) -> anyhow::Result<()> {
    let revision = Client::new(cluster.address(0))?.current_revision().await?;
    let mut hashes = Vec::new();
    for index in 0..MEMBERS {
        let mut client = Client::new(cluster.address(index))?;
        client.current_revision().await?;
        hashes.push(client.hash(revision).await?);
    }
    ensure!(hashes.iter().all(|hash| *hash == hashes[0]), "members differ: {hashes:?}");
    println!("all members have hash {:08x} at revision {revision}", hashes[0].hash);
    Ok(())
}
