//! More data than cache: every value reads back right, and memory stays under its limit.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Args;
use holdfast_proto::etcdserverpb::{PutRequest, RangeRequest};

use super::mebibytes;
use crate::Programs;
use crate::client::{self, Kv};
use crate::cluster::{self, Cluster, Kind, Target};
use crate::random::Random;

const LANES: u64 = 8;
/// Memory is looked at once in so many requests of the first lane.
const LOOK_EVERY: u64 = 256;

/// Flags of `bench size`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Bytes of all values.
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 10 << 10)]
    value_bytes: u64,
    /// Bytes of the block cache.
    #[arg(long, default_value_t = 64 << 20)]
    block_cache_bytes: u64,
    /// Most memory the server may have, in MiB.
    #[arg(long, default_value_t = 400)]
    rss_limit_mib: u64,
    /// Where all values follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy)]
enum Pass {
    Write,
    Read,
}

/// Writes, reads back, restarts and reads back again.
pub fn run(options: &Options) -> Result<()> {
    let target = Target {
        kind: Kind::Holdfast,
        program: cluster::holdfast_binary(options.programs.holdfast.as_deref())?,
        flags: vec![
            format!("--block-cache-bytes={}", options.block_cache_bytes),
            "--quota-backend-bytes=-1".to_owned(),
        ],
    };
    let scratch = cluster::scratch_folder(options.programs.scratch.as_deref())?;
    let mut cluster = Cluster::start(&target, 1, &scratch)?;
    let written = pass(&cluster, options, Pass::Write).context("writing")?;
    println!("written: {} MiB, RSS at most {} MiB", mebibytes(options.bytes), mebibytes(written));
    let read = pass(&cluster, options, Pass::Read).context("reading back")?;
    println!("read back: every value right, RSS at most {} MiB", mebibytes(read));
    cluster.stop()?;
    let took = cluster.launch()?;
    let again = pass(&cluster, options, Pass::Read).context("reading back after a restart")?;
    println!(
        "read back after a restart of {:.2} s: every value right, RSS at most {} MiB",
        took.as_secs_f64(),
        mebibytes(again)
    );
    let most = mebibytes(written.max(read).max(again));
    ensure!(most <= options.rss_limit_mib, "RSS of {most} MiB is above the limit");
    Ok(())
}

/// Returns the most resident memory seen.
fn pass(cluster: &Cluster, options: &Options, pass: Pass) -> Result<u64> {
    let endpoint = cluster.endpoints().remove(0);
    client::runtime()?.block_on(async {
        let lanes = (0..LANES).map(|lane| {
            let endpoint = &endpoint;
            async move {
                lane_pass(cluster, client::connect_kv(endpoint).await?, options, pass, lane).await
            }
        });
        let seen = futures_util::future::try_join_all(lanes).await?;
        Ok(seen.into_iter().max().unwrap_or_default().max(cluster.memory()?.resident))
    })
}

async fn lane_pass(
    cluster: &Cluster,
    mut kv: Kv,
    options: &Options,
    pass: Pass,
    lane: u64,
) -> Result<u64> {
    let mut most = 0;
    for number in (lane..options.bytes / options.value_bytes).step_by(LANES as usize) {
        let key = Bytes::from(format!("size/{number:012}"));
        let value = value(options, number);
        match pass {
            Pass::Write => {
                kv.put(PutRequest { key, value, ..Default::default() }).await?;
            }
            Pass::Read => {
                let request = RangeRequest { key: key.clone(), ..Default::default() };
                let answer = kv.range(request).await?.into_inner();
                let record = answer.kvs.first().with_context(|| format!("{key:?} is gone"))?;
                ensure!(record.decode_message()?.value == value, "{key:?} has another value");
            }
        }
        if lane == 0 && (number / LANES).is_multiple_of(LOOK_EVERY) {
            most = most.max(cluster.memory()?.resident);
        }
    }
    Ok(most)
}

fn value(options: &Options, number: u64) -> Bytes {
    Random::new(options.seed ^ (number << 24)).bytes(options.value_bytes as usize).into()
}
