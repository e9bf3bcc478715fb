//! Traces for OpenTelemetry: one span a call, sent to a collector (`--enable-distributed-tracing`).
//!
//! ```text
//! traceparent of the call -> sampled? -> span -> queue (bounded) -> thread -> OTLP collector
//! ```
//!
//! A call is traced if whoever made it says so in its `traceparent`, else by chance, at
//! `--distributed-tracing-sampling-rate` of a million, as in etcd. Spans that the collector does not
//! take in time are dropped: no call waits for it. Nothing inside of a call has a span of its own.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::sync::oneshot;

/// `--distributed-tracing-sampling-rate` is of so many.
pub const RATE_MAX: u32 = 1_000_000;

/// From the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Host and port of a collector that speaks OTLP over gRPC.
    pub address: String,
    /// `service.name` of all spans.
    pub service: String,
    /// `service.instance.id` of all spans, if one is given.
    pub instance: String,
    /// Calls traced of a million that nobody else decided about.
    pub rate: u32,
}

/// Makes spans; cheap to clone.
#[derive(Clone, Debug)]
pub struct Traces {
    tracer: SdkTracer,
    propagator: Arc<TraceContextPropagator>,
}

/// Sends spans until it is stopped.
#[derive(Debug)]
pub struct TraceSender {
    provider: SdkTracerProvider,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The span of one call; boxed, since most calls have none and carry the room for it about.
#[derive(Debug)]
pub(crate) struct CallSpan(Box<opentelemetry_sdk::trace::Span>);

impl TraceSettings {
    /// Starts to send spans; that there is a collector is not checked.
    pub fn start(&self) -> io::Result<(Traces, TraceSender)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exporter = {
            let _context = runtime.enter();
            let builder = SpanExporter::builder().with_tonic();
            builder.with_endpoint(format!("http://{}", self.address)).build()
        };
        let exporter = exporter.map_err(io::Error::other)?;
        let root = match self.rate {
            0 => Sampler::AlwaysOff,
            rate => Sampler::TraceIdRatioBased(f64::from(rate) / f64::from(RATE_MAX)),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .with_resource(self.resource())
            .build();
        let (end, ended) = oneshot::channel();
        let run = move || drop(runtime.block_on(ended));
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(run)?;
        let tracer = provider.tracer("holdfast");
        let traces = Traces { tracer, propagator: Arc::new(TraceContextPropagator::new()) };
        Ok((traces, TraceSender { provider, end, thread }))
    }

    fn resource(&self) -> Resource {
        let resource = Resource::builder().with_service_name(self.service.clone());
        match self.instance.is_empty() {
            true => resource.build(),
            false => resource
                .with_attribute(KeyValue::new("service.instance.id", self.instance.clone()))
                .build(),
        }
    }
}

impl TraceSender {
    /// Sends what is left, for as long as the exporter's own limit.
    pub fn stop(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
        // The runtime of the exporter ends with its thread, whether it still waits or not.
        let _ = self.end.send(());
        let _ = self.thread.join();
    }
}

impl Traces {
    /// Begins the span of a call; none for a call that is not traced.
    pub(crate) fn begin(&self, path: &str, headers: &HeaderMap) -> Option<CallSpan> {
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/').unwrap_or((name, ""));
        let span = self
            .tracer
            .span_builder(name.to_owned())
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("rpc.system", "grpc"),
                KeyValue::new("rpc.service", service.to_owned()),
                KeyValue::new("rpc.method", method.to_owned()),
            ])
            .start_with_context(&self.tracer, &parent);
        span.is_recording().then(|| CallSpan(Box::new(span)))
    }
}

impl CallSpan {
    /// The call has ended with a code.
    pub(crate) fn end(mut self, code: usize) {
        self.0.set_attribute(KeyValue::new("rpc.grpc.status_code", code as i64));
        if code != tonic::Code::Ok as usize {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
