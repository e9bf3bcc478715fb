//! The connections to peers: three to each, so that a checkpoint delays no append, and an append no
//! heartbeat.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use holdfast_proto::peer::peer_client::PeerClient;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::config::{Connect, Connection};
use crate::counts::NodeCounts;
use crate::peer::contact::Contacts;
use crate::peer::handshake::Gate;
use crate::peer::meter::Meter;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Entries, and proposals for the leader.
    Append,
    /// Heartbeats, votes and other small questions that must not wait.
    Pulse,
    /// Checkpoints.
    Bulk,
}

/// The largest message a peer may send: an entry of one proposal has no bound of its own.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// After so many election timeouts without a sign of life a connection is given up. TCP alone would
/// double its pauses while a partition lasts, and notice its end as late again.
pub(crate) const SILENCE: u32 = 2;
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// A connection to a peer, or from one; its bytes are counted.
pub(crate) struct PeerIo {
    connection: Connection,
    meter: Meter,
}

impl PeerIo {
    /// One that was accepted, from a peer that is yet to say who it is.
    pub(crate) fn accepted(connection: Connection) -> Self {
        Self { connection, meter: Meter::default() }
    }
}

impl Connected for PeerIo {
    type ConnectInfo = Meter;

    fn connect_info(&self) -> Meter {
        self.meter.clone()
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, buffer);
        self.meter.received(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write(context, bytes))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write_vectored(context, slices))?;
        self.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// The peers of one member, and the way to them.
pub(crate) struct Peers {
    gate: Gate,
    connector: Arc<dyn Connect>,
    election_timeout: Duration,
    contacts: Contacts,
    counts: Arc<NodeCounts>,
    channels: Mutex<BTreeMap<(u64, Lane), Held>>,
}

struct Held {
    urls: Vec<String>,
    channel: Channel,
}

impl Peers {
    pub(crate) fn new(
        gate: Gate,
        connector: Arc<dyn Connect>,
        election_timeout: Duration,
        counts: Arc<NodeCounts>,
    ) -> Self {
        let contacts = Contacts::new(election_timeout);
        Self { gate, connector, election_timeout, contacts, counts, channels: Mutex::default() }
    }

    pub(crate) fn counts(&self) -> &NodeCounts {
        &self.counts
    }

    /// Which of them answer.
    pub(crate) fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// A client for `member`, who is reached at `urls`. Connects when it is first used, and again
    /// whenever the connection is lost.
    pub(crate) fn client(&self, member: u64, urls: &[String], lane: Lane) -> PeerClient<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let held = channels.entry((member, lane)).or_insert_with(|| self.open(member, urls));
        if held.urls != urls {
            *held = self.open(member, urls);
        }
        PeerClient::new(held.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn open(&self, member: u64, urls: &[String]) -> Held {
        let counts = self.counts.peer(member);
        let connector = self.connector.clone();
        let targets = urls.to_vec();
        let timeout = self.election_timeout;
        let service = service_fn(move |_: Uri| {
            let connector = connector.clone();
            let targets = targets.clone();
            let meter = Meter::of(counts.clone());
            async move {
                let connection = connect_any(&*connector, targets, timeout).await?;
                io::Result::Ok(TokioIo::new(PeerIo { connection, meter }))
            }
        });
        // The connector knows where to go; the URI only fills the authority of requests.
        let channel = Endpoint::from_static("http://peer")
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(self.election_timeout)
            .keep_alive_timeout(self.election_timeout * SILENCE)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(service);
        Held { urls: urls.to_vec(), channel }
    }
}

/// The first of a member's URLs that answers.
async fn connect_any(
    connector: &dyn Connect,
    urls: Vec<String>,
    timeout: Duration,
) -> io::Result<Connection> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the member has no peer URL");
    for url in urls {
        last = match tokio::time::timeout(timeout, connector.connect(url.clone())).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => io::Error::new(error.kind(), format!("connecting to {url}: {error}")),
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, format!("connecting to {url}")),
        };
    }
    Err(last)
}
