//! One connection runtime: a thread, a reactor, and the connections dealt to it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::UPGRADE;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::authority::MendedAuthority;
use super::{Accepted, Http2, Purpose, stopped};
use crate::access::Encrypted;
use crate::net::Stream;
use crate::rejection::{self, Endpoint};
use crate::rpc::Body;
use crate::services::{Services, Shared};
use crate::takeover::Takeover;
use crate::{http as endpoints, router};

/// How long connections may take to finish their requests when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// Received bytes that a connection may hold unread, and each of its streams.
const WINDOW: u32 = 1 << 20;
/// Request headers of a call; tokens can be long.
const HEADERS_MAX: u32 = 256 << 10;

/// What a connection runtime is made of.
pub(super) struct Runtime {
    pub(super) shared: Shared,
    pub(super) accepted: mpsc::Receiver<Accepted>,
    pub(super) open: Arc<AtomicUsize>,
    pub(super) http2: Http2,
    pub(super) stop: watch::Receiver<bool>,
}

type Connections = auto::Builder<TokioExecutor>;

impl Runtime {
    /// Serves until the stop, and then for as long as connections need within the grace.
    pub(super) fn run(self) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "cannot start a connection runtime"),
        };
        runtime.block_on(self.serve());
    }

    async fn serve(mut self) {
        let services = Arc::new(Services::new(self.shared.clone()));
        let bells = services.bells.clone();
        let listening = tokio::spawn(async move { bells.listen().await });
        let turns = services.turns.clone();
        let dealing = tokio::spawn(async move { turns.deal().await });
        let builder = Arc::new(builder(&self.http2));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accepted.recv() => accepted,
                // Finished connections are forgotten as they end.
                Some(_) = connections.join_next() => continue,
                () = stopped(self.stop.clone()) => None,
            };
            let Some(accepted) = accepted else { break };
            let open = Open(self.open.clone());
            let connection =
                connection(accepted, services.clone(), builder.clone(), self.stop.clone());
            connections.spawn(async move {
                let _open = open;
                connection.await;
            });
        }
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, drained).await.is_err() {
            tracing::warn!("connections were closed before their requests were answered");
        }
        listening.abort();
        dealing.abort();
    }
}

/// Counts a connection until it ends, however it ends.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn builder(settings: &Http2) -> Connections {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(HEADERS_MAX)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout);
    builder
}

async fn connection(
    accepted: Accepted,
    services: Arc<Services>,
    builder: Arc<Connections>,
    stop: watch::Receiver<bool>,
) {
    let Accepted { connection, purpose, identity } = accepted;
    let Ok(stream) = connection.resume() else { return };
    let is_plain = matches!(stream, Stream::Plain(_));
    if let Stream::Plain(plain) = &stream {
        let is_tls = tokio::select! {
            is_tls = rejection::speaks_tls(Endpoint::Client, plain) => is_tls,
            () = stopped(stop.clone()) => return,
        };
        if is_tls {
            return;
        }
    }
    let takeover = Takeover::default();
    let left = takeover.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let services = services.clone();
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(left.clone());
        }
        if !is_plain {
            request.extensions_mut().insert(Encrypted);
        }
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        let answer = answer(services, purpose, request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(MendedAuthority::new(stream));
    let connection = builder.serve_connection_with_upgrades(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Some(next) = takeover.take() {
        next.await;
    }
    if let Err(error) = ended {
        // Clients go away in the middle of things all the time.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Boxed, because hyper and tokio move what answers a request about several times.
fn answer(
    services: Arc<Services>,
    purpose: Purpose,
    request: Request<Incoming>,
) -> BoxFuture<'static, Response<Body>> {
    match purpose {
        Purpose::Clients => router::serve(services, request),
        Purpose::Grpc if router::is_call(&request) => router::serve(services, request),
        Purpose::Http if !router::is_call(&request) => router::serve(services, request),
        Purpose::Grpc | Purpose::Http => Box::pin(std::future::ready(endpoints::not_here())),
        Purpose::Health => Box::pin(endpoints::serve(services, request)),
    }
}
