//! The JSON gateway: every call of etcd's API as an HTTP request with a JSON body, under `/v3/`.
//!
//! ```text
//! POST /v3/kv/range  {"key":"Zm9v"}  -> protobuf -> /etcdserverpb.KV/Range -> the router
//! 200                {"header":...}  <- JSON     <- one message
//! 200  {"result":...}\n{"result":...}\n          <- a stream of messages
//! 400                {"code":3,...}              <- a refusal
//! ```
//!
//! Prints what grpc-gateway prints in etcd, and knows no call by itself: types come from the
//! descriptors, and a call goes through the router like any other, without what its connection may
//! know of the client (a certificate). The same over WebSockets is `websocket.rs`. A field that is given
//! twice counts as it stands last, where etcd refuses it.

mod call;
mod json;
mod metadata;
mod refusal;
mod routes;
mod stream;
pub(crate) mod websocket;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use prost_reflect::{MessageDescriptor, MethodDescriptor};

use self::call::Call;
use self::refusal::Refusal;
use self::stream::Text;
use crate::rpc::{self, Body, Incoming};
use crate::services::Services;
use crate::status::Error;

/// Above this the connection runtime does not convert a message itself.
const INLINE_BYTES: usize = 16 << 10;
/// The longest message of an answer: it is held whole, and its JSON beside it.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How many times as long as its message a JSON text may be: base64 takes a third more.
const TEXT_FACTOR: usize = 2;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// grpc-gateway passes the headers of the call on, with a prefix; there is only this one.
const CALL_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// Answers a request for a path under `/v3/`.
pub async fn serve(
    services: Arc<Services>,
    request: Request<hyper::body::Incoming>,
    path: &str,
) -> Response<Body> {
    match answer(services, request, path).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(
    services: Arc<Services>,
    request: Request<hyper::body::Incoming>,
    path: &str,
) -> Result<Response<Body>, Refusal> {
    let method = routes::find(path).ok_or_else(Refusal::not_found)?;
    if request.method() != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let deadline = metadata::deadline(request.headers())?;
    let headers = metadata::of(request.headers());
    let limit = services.shared.limits.receive_bytes();
    let body = request.into_body();
    let requests = if method.is_client_streaming() {
        Requests::Follow(Text::Http(body))
    } else {
        Requests::One(json::receive(body, limit * TEXT_FACTOR, limit).await?.freeze())
    };
    let mut call = Call::new(deadline);
    let body = body_of(&services, &method, requests).await?;
    let begun = call.begin(services.clone(), path_of(&method), headers, body).await;
    if method.is_server_streaming() {
        return Ok(stream::respond(services, begun.map(|()| call), method.output()).await);
    }
    begun?;
    Ok(json_response(Body::text(one_answer(&services, &mut call, &method).await?)))
}

/// The requests of a call, as JSON.
enum Requests {
    /// One, whole.
    One(Bytes),
    /// As they come.
    Follow(Text),
}

/// The body of a call.
async fn body_of(
    services: &Services,
    method: &MethodDescriptor,
    requests: Requests,
) -> Result<Incoming, Refusal> {
    let input = method.input();
    Ok(match requests {
        Requests::Follow(text) => Incoming::Made(Box::new(stream::Messages::new(text, input))),
        Requests::One(text) => {
            let length = text.len();
            let message = converted(services, length, move || json::to_protobuf(&text, &input));
            Incoming::whole(message.await??)
        }
    })
}

/// The answer of a call that has one.
async fn one_answer(
    services: &Services,
    call: &mut Call,
    method: &MethodDescriptor,
) -> Result<Bytes, Refusal> {
    let message = call.next().await?.ok_or_else(|| Error::internal("no answer"))?;
    // The status comes after the message.
    call.next().await?;
    to_json(services, message, method.output()).await
}

async fn to_json(
    services: &Services,
    message: Bytes,
    output: MessageDescriptor,
) -> Result<Bytes, Refusal> {
    converted(services, message.len(), move || json::to_json(message, output)).await?
}

/// Runs a conversion of `length` bytes where it holds nobody up.
async fn converted<T: Send + 'static>(
    services: &Services,
    length: usize,
    conversion: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if length <= INLINE_BYTES {
        return Ok(conversion());
    }
    Ok(services.shared.pool.run(conversion).await?)
}

fn path_of(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

fn json_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CALL_CONTENT_TYPE, rpc::GRPC);
    response
}

/// A message with its prefix.
fn framed(message: &[u8]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(rpc::PREFIX + message.len());
    rpc::put_prefix(&mut buffer, message.len());
    buffer.extend_from_slice(message);
    buffer.freeze()
}
