//! A client connection as thin as tonic allows: no pool, no balancer, no queue between the caller
//! and HTTP/2, because the client shares its two cores with the server it measures.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::future::BoxFuture;
use holdfast_proto::etcdserverpb::RangeRequest;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tonic::body::Body;

const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Larger than any answer a scenario asks for.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct Connection(http2::SendRequest<Body>);

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, hyper::Result<Response<Incoming>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// The key-value service over one connection.
pub type Kv = KvClient<Connection>;

/// Connects to `endpoint` (`http://host:port`).
pub async fn connect(endpoint: &str) -> Result<Connection> {
    let uri: Uri = endpoint.parse()?;
    let authority = uri.authority().context("an endpoint has a host and a port")?.as_str();
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // A broken connection shows in the requests on it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(Connection(sender))
}

/// Connects, and speaks the key-value service.
pub async fn connect_kv(endpoint: &str) -> Result<Kv> {
    let origin = endpoint.parse()?;
    let client = KvClient::with_origin(connect(endpoint).await?, origin);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// Waits until `endpoint` answers a linearizable read, as long as `alive` finds nothing wrong.
pub async fn until_ready(
    endpoint: &str,
    deadline: Instant,
    mut alive: impl FnMut() -> Result<()>,
) -> Result<()> {
    loop {
        alive()?;
        let attempt = tokio::time::timeout(PROBE_TIMEOUT, probe(endpoint)).await;
        match attempt {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if Instant::now() > deadline => {
                return Err(error.context(format!("{endpoint} does not become ready")));
            }
            Err(_) if Instant::now() > deadline => bail!("{endpoint} does not answer"),
            _ => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

async fn probe(endpoint: &str) -> Result<()> {
    let mut client = connect_kv(endpoint).await?;
    client.range(RangeRequest { key: "ready".into(), ..Default::default() }).await?;
    Ok(())
}

/// A runtime for one thread of clients.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
