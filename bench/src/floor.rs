//! The floor: a tonic server that does nothing, in the product's runtime layout.
//!
//! One acceptor deals sockets to one current-thread runtime per core. With `--wal`, a put waits for
//! one shared append-and-fdatasync. What Holdfast costs above this is what it does; what this costs
//! is the price of gRPC over HTTP/2.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::{Context as _, Result};
use clap::Args;
use holdfast_proto::etcdserverpb::kv_server::KvServer;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc;

mod service;
mod wal;

use service::Nothing;
use wal::Wal;

/// Sockets under way from the acceptor to a runtime.
const SOCKETS_MAX: usize = 64;

/// The floor's own flags.
#[derive(Args, Debug)]
pub struct Options {
    /// Port to listen on.
    #[arg(long)]
    port: u16,
    /// File to append puts to; without it nothing is written.
    #[arg(long)]
    wal: Option<PathBuf>,
}

/// Serves until it is killed.
pub fn run(options: &Options) -> Result<()> {
    let cores = thread::available_parallelism()?.get();
    let wal = options.wal.as_deref().map(|path| Wal::start(path, cores)).transpose()?;
    let listener = TcpListener::bind(("127.0.0.1", options.port)).context("bind")?;
    let runtimes: Vec<_> =
        (0..cores).map(|core| start_runtime(core, wal.clone())).collect::<Result<_>>()?;
    for (number, stream) in listener.incoming().enumerate() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        runtimes[number % cores].blocking_send(stream).ok().context("a runtime ended")?;
    }
    Ok(())
}

fn start_runtime(core: usize, wal: Option<Wal>) -> Result<mpsc::Sender<std::net::TcpStream>> {
    let (sender, mut sockets) = mpsc::channel(SOCKETS_MAX);
    let (started, has_started): (SyncSender<Result<()>>, _) = sync_channel(1);
    thread::Builder::new().name(format!("connections {core}")).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error.into()))),
        };
        drop(started.send(Ok(())));
        runtime.block_on(async move {
            if let Some(wal) = &wal {
                tokio::spawn(wal.clone().complete(core));
            }
            while let Some(stream) = sockets.recv().await {
                match tokio::net::TcpStream::from_std(stream) {
                    Ok(stream) => drop(tokio::spawn(connection(stream, core, wal.clone()))),
                    Err(error) => eprintln!("a socket was lost: {error}"),
                }
            }
        });
    })?;
    has_started.recv().context("the runtime's thread ended")??;
    Ok(sender)
}

async fn connection(stream: tokio::net::TcpStream, core: usize, wal: Option<Wal>) {
    let service = KvServer::new(Nothing::new(core, wal));
    // A client that goes away ends its connection with an error that concerns nobody.
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(None)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
}
