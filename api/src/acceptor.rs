//! Takes connections and deals them to the connection runtimes, the least loaded first.
//!
//! One thread accepts; each runtime is a thread of its own with its own reactor, its own way to the
//! node and its own share of the connections. A connection stays where it was dealt.

mod authority;
mod runtime;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::net::{Handshakes, Listener, Parked, Plain, Stream};
use crate::rejection::{self, Endpoint};
use crate::services::Shared;
use crate::tls::{ConnectionIdentity, Greeted, TlsServer};

/// Connections on their way to a runtime.
const DEALT: usize = 1024;
/// Pause after a failed accept: most failures are a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener's connections may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// gRPC and the HTTP endpoints.
    Clients,
    /// The HTTP endpoints alone.
    Health,
}

/// HTTP/2 settings, from the flags.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// `--max-concurrent-streams`.
    pub streams_max: u32,
    /// `--grpc-keepalive-interval`; none when it is off.
    pub ping_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`.
    pub ping_timeout: Duration,
}

/// A socket to accept from, and what is asked of those who come.
pub struct Door {
    /// The socket.
    pub listener: Listener,
    /// What its connections may ask for.
    pub purpose: Purpose,
    /// For TLS: how, and where its handshakes are made.
    pub tls: Option<(Arc<TlsServer>, Handshakes)>,
}

/// A connection that has been accepted.
struct Accepted {
    connection: Parked,
    purpose: Purpose,
    identity: Option<ConnectionIdentity>,
}

/// One runtime, as the acceptor sees it.
struct Seat {
    dealt: mpsc::Sender<Accepted>,
    /// Connections dealt and not yet closed.
    open: Arc<AtomicUsize>,
}

/// The runtimes, and the thread that deals to them.
pub struct Acceptor {
    threads: Vec<JoinHandle<()>>,
}

impl Acceptor {
    /// Starts `runtimes` runtimes and serves `doors` on them until `stop` is raised.
    pub fn start(
        doors: Vec<Door>,
        runtimes: usize,
        shared: &Shared,
        http2: Http2,
        stop: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let mut threads = Vec::with_capacity(runtimes + 1);
        let mut seats = Vec::with_capacity(runtimes);
        for number in 0..runtimes {
            let (dealt, accepted) = mpsc::channel(DEALT);
            let open = Arc::new(AtomicUsize::new(0));
            let serve = runtime::Runtime {
                shared: shared.clone(),
                accepted,
                open: open.clone(),
                http2,
                stop: stop.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("serve-{number}"));
            threads.push(thread.spawn(move || serve.run())?);
            seats.push(Seat { dealt, open });
        }
        let thread = std::thread::Builder::new().name("accept".to_owned());
        threads.push(thread.spawn(move || accept(doors, seats, stop))?);
        Ok(Self { threads })
    }

    /// Waits for all threads; they end some time after `stop` is raised.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread that serves connections panicked");
            }
        }
    }
}

/// The body of the accepting thread.
fn accept(doors: Vec<Door>, seats: Vec<Seat>, stop: watch::Receiver<bool>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "cannot start to accept connections"),
    };
    let seats: Arc<[Seat]> = seats.into();
    runtime.block_on(async {
        for door in doors {
            let seats = seats.clone();
            tokio::spawn(async move {
                if let Err(error) = accept_from(door, seats).await {
                    tracing::error!(%error, "a listening socket cannot be used");
                }
            });
        }
        stopped(stop).await;
    });
}

async fn accept_from(door: Door, seats: Arc<[Seat]>) -> io::Result<()> {
    let Door { listener, purpose, tls } = door;
    let listener = listener.resume()?;
    loop {
        let accepted = match listener.accept().await {
            Ok(socket) => match &tls {
                Some((tls, handshakes)) => {
                    greet(socket, purpose, tls.clone(), handshakes, seats.clone());
                    Ok(())
                }
                None => socket.park().map(|connection| {
                    deal(&seats, Accepted { connection, purpose, identity: None });
                }),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Has the handshake made elsewhere, and the connection dealt when it is done.
fn greet(
    socket: Plain,
    purpose: Purpose,
    tls: Arc<TlsServer>,
    handshakes: &Handshakes,
    seats: Arc<[Seat]>,
) {
    let address = socket.peer_address();
    let Ok(parked) = socket.park() else { return };
    // One that is not taken is closed, and was logged.
    handshakes.spawn(move |hello| async move {
        let Ok(Stream::Plain(socket)) = parked.resume() else { return };
        match tls.accept(socket, hello).await {
            Ok(Greeted { stream, identity }) => {
                if let Ok(connection) = stream.park() {
                    deal(&seats, Accepted { connection, purpose, identity });
                }
            }
            Err(refused) => rejection::log(Endpoint::Client, address, &refused),
        }
    });
}

/// Gives a connection to the runtime with the fewest; one that cannot be taken is closed.
fn deal(seats: &[Seat], accepted: Accepted) {
    let least = seats.iter().min_by_key(|seat| seat.open.load(Ordering::Relaxed));
    let Some(seat) = least else { return };
    seat.open.fetch_add(1, Ordering::Relaxed);
    if seat.dealt.try_send(accepted).is_err() {
        seat.open.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!("a connection was closed: too many are waiting to be served");
    }
}

/// Returns once `stop` is raised, or nobody is left to raise it.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // Both mean the same: there is nothing more to serve.
    let _ = stop.wait_for(|stop| *stop).await;
}
