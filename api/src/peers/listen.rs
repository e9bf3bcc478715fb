//! Taking connections from members.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, select_all};
use holdfast_raft::{Connection, Listen};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::net::{AsyncListener, Handshakes, Listener, Plain, Stream};
use crate::rejection::{self, Endpoint};
use crate::tls::TlsServer;

/// Connections that have come and have not yet shown to be a member's.
const GREETED_MAX: usize = 1024;
/// How long one may take to begin.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Listens on the peer URLs.
pub struct PeerListen {
    /// Until the first accept, which is on the runtime to stay on.
    bound: Vec<Listener>,
    listeners: Vec<AsyncListener>,
    tls: Option<(Arc<TlsServer>, Handshakes)>,
    /// Those who are being looked at.
    greeted: JoinSet<Option<Stream>>,
}

impl PeerListen {
    /// Takes connections from `bound`; those of secure URLs by `tls`.
    pub fn new(bound: Vec<Listener>, tls: Option<(Arc<TlsServer>, Handshakes)>) -> Self {
        Self { bound, listeners: Vec::new(), tls, greeted: JoinSet::new() }
    }

    async fn next(&mut self) -> io::Result<Connection> {
        for bound in self.bound.drain(..) {
            self.listeners.push(bound.resume()?);
        }
        if self.listeners.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::select! {
                Some(greeted) = self.greeted.join_next() => {
                    if let Ok(Some(stream)) = greeted {
                        return Ok(Box::new(stream));
                    }
                }
                (accepted, is_secure) = accept(&self.listeners) => self.greet(accepted?, is_secure),
            }
        }
    }

    /// Looks at a connection without holding up the others.
    fn greet(&mut self, socket: Plain, is_secure: bool) {
        if self.greeted.len() >= GREETED_MAX {
            tracing::warn!("a member's connection was closed: too many are being looked at");
            return;
        }
        match &self.tls {
            Some((tls, handshakes)) if is_secure => {
                let (tls, handshakes) = (tls.clone(), handshakes.clone());
                self.greeted.spawn(async move { greet_tls(socket, tls, &handshakes).await });
            }
            _ if is_secure => {}
            _ => drop(self.greeted.spawn(greet_plain(socket))),
        }
    }
}

impl Listen for PeerListen {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(self.next())
    }
}

async fn accept(listeners: &[AsyncListener]) -> (io::Result<Plain>, bool) {
    let each = listeners
        .iter()
        .map(|listener| Box::pin(async move { (listener.accept().await, listener.url.is_secure) }));
    select_all(each).await.0
}

async fn greet_plain(socket: Plain) -> Option<Stream> {
    let is_members = tokio::time::timeout(TIMEOUT, rejection::speaks_http2(&socket)).await;
    matches!(is_members, Ok(true)).then_some(Stream::Plain(socket))
}

/// Makes the handshake on another thread.
async fn greet_tls(socket: Plain, tls: Arc<TlsServer>, handshakes: &Handshakes) -> Option<Stream> {
    let address = socket.peer_address();
    let parked = socket.park().ok()?;
    let (done, greeted) = oneshot::channel();
    let is_taken = handshakes.spawn(async move {
        let Ok(Stream::Plain(socket)) = parked.resume() else { return };
        match tls.accept(socket).await {
            Ok(greeted) => {
                // The member may be stopping.
                let _ = done.send(greeted.stream.park());
            }
            Err(refused) => rejection::log(Endpoint::Peer, address, &refused),
        }
    });
    if !is_taken {
        tracing::warn!("a member's connection was closed: too many handshakes are under way");
        return None;
    }
    greeted.await.ok()?.ok()?.resume().ok()
}
