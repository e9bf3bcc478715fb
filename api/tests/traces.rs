//! Traces as a collector receives them, from the program as a process.

#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use holdfast_proto::etcdserverpb::RangeRequest;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use process::{PATIENCE, Program, free_ports};
use rustix::process::Signal;
use tonic::{Code, Request, Response, Status};

/// Somebody else's trace, which is sampled.
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

struct Collector(SyncSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::cancelled("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector; it ends with the test.
fn collect() -> (SocketAddr, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("bound");
    let (sender, received) = sync_channel(100);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("on the runtime");
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let mut server = tonic::transport::Server::builder();
            let serving = server.add_service(TraceServiceServer::new(Collector(sender)));
            serving.serve_with_incoming(incoming).await.expect("served");
        });
    });
    (address, received)
}

/// Reads a key, as part of somebody's trace if there is one.
fn range(endpoint: &str, key: &'static str, parent: Option<&'static str>) -> Code {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut kv = KvClient::connect(endpoint.to_owned()).await.expect("connected");
        let mut request = Request::new(RangeRequest { key: key.into(), ..Default::default() });
        if let Some(parent) = parent {
            request.metadata_mut().insert("traceparent", parent.parse().expect("text"));
        }
        kv.range(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
    })
}

fn value_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    let Some(AnyValue { value }) = &found.value else { return None };
    value.as_ref()
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    match value_of(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a member that traces, has it answer two calls, and gives the spans it has sent.
fn spans(rate: u32) -> Vec<(String, Span)> {
    let (address, received) = collect();
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(2);
    let endpoint = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{}", port + 1);
    let mut member = Program::start(&[
        format!("--data-dir={}", folder.path().display()),
        format!("--listen-client-urls={endpoint}"),
        format!("--advertise-client-urls={endpoint}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--enable-distributed-tracing".to_owned(),
        format!("--distributed-tracing-address={address}"),
        "--distributed-tracing-service-name=store".to_owned(),
        "--distributed-tracing-instance-id=m1".to_owned(),
        format!("--distributed-tracing-sampling-rate={rate}"),
    ]);
    member.until("ready to serve client requests");
    assert_eq!(range(&endpoint, "k", Some(PARENT)), Code::Ok);
    assert_eq!(range(&endpoint, "", None), Code::InvalidArgument);
    // What is not sent yet is sent at the end.
    member.signal(Signal::TERM);
    member.ended();
    let first = received.recv_timeout(PATIENCE).expect("spans were sent");
    let mut spans = Vec::new();
    for request in std::iter::once(first).chain(received.try_iter()) {
        for group in request.resource_spans {
            let resource = group.resource.expect("who speaks").attributes;
            assert_eq!(text(&resource, "service.name"), "store");
            let instance = text(&resource, "service.instance.id").to_owned();
            let found = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(found.map(|span| (instance.clone(), span)));
        }
    }
    spans
}

#[test]
fn a_call_is_a_span_of_its_callers_trace() {
    let spans = spans(0);
    assert_eq!(spans.len(), 1, "by chance none, so only the one that its caller traces: {spans:?}");
    let (instance, span) = &spans[0];
    assert_eq!(instance, "m1");
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
    assert_eq!(span.name, "etcdserverpb.KV/Range");
    assert_eq!(text(&span.attributes, "rpc.method"), "Range");
    assert_eq!(value_of(&span.attributes, "rpc.grpc.status_code"), Some(&Value::IntValue(0)));
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
}

#[test]
fn at_the_full_rate_every_call_is_a_span() {
    let spans = spans(1_000_000);
    let codes: Vec<_> =
        spans.iter().map(|(_, span)| value_of(&span.attributes, "rpc.grpc.status_code")).collect();
    let of = |code: Code| Value::IntValue(code as i64);
    let expected = [of(Code::Ok), of(Code::InvalidArgument)];
    assert_eq!(codes, expected.iter().map(Some).collect::<Vec<_>>());
}
