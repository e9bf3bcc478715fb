//! Connecting to a member by its peer URL.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use holdfast_raft::{Connect, Connection};
use tokio::sync::oneshot;

use crate::net::{Handshakes, Parked, Plain, Stream, Target};
use crate::tls::TlsClient;

/// Connects to peer URLs.
pub struct PeerConnect {
    tls: Option<(Arc<TlsClient>, Handshakes)>,
}

impl PeerConnect {
    /// Connects with `tls` where a URL asks for it.
    pub fn new(tls: Option<(Arc<TlsClient>, Handshakes)>) -> Self {
        Self { tls }
    }
}

impl Connect for PeerConnect {
    fn connect(&self, url: String) -> BoxFuture<'static, io::Result<Connection>> {
        let tls = self.tls.clone();
        Box::pin(async move {
            let target = Target::parse(&url)?;
            let socket = target.connect().await?;
            if !target.is_secure {
                return Ok(Box::new(socket) as Connection);
            }
            let (tls, handshakes) = tls.ok_or_else(|| {
                io::Error::other("it wants TLS, and this member has no --peer-trusted-ca-file")
            })?;
            let stream = greet(tls, &handshakes, socket, target.host).await?;
            Ok(Box::new(stream) as Connection)
        })
    }
}

/// Makes the handshake on another thread.
async fn greet(
    tls: Arc<TlsClient>,
    handshakes: &Handshakes,
    socket: Plain,
    host: String,
) -> io::Result<Stream> {
    let parked = socket.park()?;
    let (done, greeted) = oneshot::channel();
    let is_taken = handshakes.spawn(|hello| async move {
        // It is ours: only the time it takes can cost it its permit.
        hello.said();
        let mut done = done;
        let result = tokio::select! {
            result = make(tls, parked, host) => result,
            // Whoever asked has given up.
            () = done.closed() => return,
        };
        let _ = done.send(result);
    });
    if !is_taken {
        return Err(io::Error::other("too many handshakes are under way"));
    }
    let given_up = |_| io::Error::other("the handshake was given up");
    greeted.await.map_err(given_up)??.resume()
}

async fn make(tls: Arc<TlsClient>, parked: Parked, host: String) -> io::Result<Parked> {
    let Stream::Plain(socket) = parked.resume()? else {
        return Err(io::Error::other("the socket is plain"));
    };
    tls.connect(socket, &host).await?.park()
}
