//! Taking connections from members.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, select_all};
use holdfast_raft::{Connection, Listen};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::net::{
    AsyncListener, Handshakes, Listener, PERMITS_MAX, Parked, Permits, Plain, Stream,
};
use crate::rejection::{self, Endpoint};
use crate::tls::TlsServer;

/// How long a plain one may take to begin.
const SILENCE: Duration = Duration::from_secs(2);

/// Listens on the peer URLs.
pub struct PeerListen {
    /// Until the first accept, which is on the runtime to stay on.
    bound: Vec<Listener>,
    listeners: Vec<AsyncListener>,
    tls: Option<(Arc<TlsServer>, Handshakes)>,
    /// For those without TLS, until they have shown to be a member's.
    permits: Permits,
    /// Those who are being looked at, each with a permit.
    greeted: JoinSet<Option<Stream>>,
}

impl PeerListen {
    /// Takes connections from `bound`; those of secure URLs by `tls`.
    pub fn new(bound: Vec<Listener>, tls: Option<(Arc<TlsServer>, Handshakes)>) -> Self {
        let permits = Permits::new("peer", PERMITS_MAX);
        Self { bound, listeners: Vec::new(), tls, permits, greeted: JoinSet::new() }
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
        match &self.tls {
            Some((tls, handshakes)) if is_secure => {
                if let Some(greeted) = greet_tls(socket, tls.clone(), handshakes) {
                    self.greeted.spawn(async { greeted.await.ok()?.resume().ok() });
                }
            }
            _ if is_secure => {}
            _ => {
                if let Some(permit) = self.permits.take() {
                    let greet = |_| greet_plain(socket);
                    self.greeted.spawn(async { permit.hold(greet).await? });
                }
            }
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
    let is_members = tokio::time::timeout(SILENCE, rejection::speaks_http2(&socket)).await;
    matches!(is_members, Ok(true)).then_some(Stream::Plain(socket))
}

/// Makes the handshake on another thread; nothing comes of one that fails.
fn greet_tls(
    socket: Plain,
    tls: Arc<TlsServer>,
    handshakes: &Handshakes,
) -> Option<oneshot::Receiver<Parked>> {
    let address = socket.peer_address();
    let parked = socket.park().ok()?;
    let (done, greeted) = oneshot::channel();
    let is_taken = handshakes.spawn(move |hello| async move {
        let Ok(Stream::Plain(socket)) = parked.resume() else { return };
        match tls.accept(socket, hello).await {
            Ok(greeted) => {
                if let Ok(parked) = greeted.stream.park() {
                    // The member may be stopping.
                    let _ = done.send(parked);
                }
            }
            Err(refused) => rejection::log(Endpoint::Peer, address, &refused),
        }
    });
    is_taken.then_some(greeted)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpStream;

    use super::*;
    use crate::net::ListenUrl;

    #[tokio::test]
    async fn silent_connections_lock_no_member_out() {
        let url = ListenUrl::parse("http://127.0.0.1:0").expect("valid");
        let bound = Listener::bind(&url).expect("bound");
        let address = bound.address().expect("it is TCP");
        let mut listen = PeerListen::new(vec![bound], None);
        listen.permits = Permits::new("test", 4);
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.expect("connected"));
        }
        let mut member = TcpStream::connect(address).await.expect("connected");
        member.write_all(b"PRI * HTTP/2.0\r\n").await.expect("sent");
        let accepted = tokio::time::timeout(Duration::from_secs(60), listen.accept());
        accepted.await.expect("it has its turn").expect("accepted");
    }
}
