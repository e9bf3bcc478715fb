//! Takes connections and deals them to the connection runtimes, the least loaded first.
//!
//! One thread accepts; each runtime is a thread of its own with its own reactor, its own way to the
//! node and its own share of the connections. A connection stays where it was dealt.

mod authority;
mod runtime;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::services::Shared;

/// Connections that may wait to be dealt before the next ones are closed at once.
const BACKLOG: i32 = 1024;
/// Connections on their way to a runtime.
const DEALT: usize = 1024;
/// Pause after a failed accept: most failures are a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// When TCP starts to probe a silent client.
const KEEPALIVE: Duration = Duration::from_secs(30);

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

/// A connection that has been accepted.
struct Accepted {
    socket: std::net::TcpStream,
    purpose: Purpose,
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

/// Binds a listening socket; a restarted server may take its old port at once.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each address of a host is listened on by itself.
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Acceptor {
    /// Starts `runtimes` runtimes and serves `listeners` on them until `stop` is raised.
    pub fn start(
        listeners: Vec<(std::net::TcpListener, Purpose)>,
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
        threads.push(thread.spawn(move || accept(listeners, seats, stop))?);
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
fn accept(
    listeners: Vec<(std::net::TcpListener, Purpose)>,
    seats: Vec<Seat>,
    stop: watch::Receiver<bool>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "cannot start to accept connections"),
    };
    let seats = Arc::new(seats);
    runtime.block_on(async {
        for (listener, purpose) in listeners {
            let seats = seats.clone();
            tokio::spawn(async move {
                if let Err(error) = accept_from(listener, purpose, &seats).await {
                    tracing::error!(%error, "a listening socket cannot be used");
                }
            });
        }
        stopped(stop).await;
    });
}

async fn accept_from(
    listener: std::net::TcpListener,
    purpose: Purpose,
    seats: &[Seat],
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await.and_then(|(stream, _)| prepared(stream)) {
            Ok(socket) => deal(seats, Accepted { socket, purpose }),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn prepared(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    stream.into_std()
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
