//! gRPC's framing over HTTP/2, without the layers that a general server needs.
//!
//! ```text
//! request body  -> Receiver -> message bytes -> handler
//! response body <- Body     <- message bytes, a stream of them, or an error
//! ```
//!
//! Unary answers are one data frame and the trailers; errors without an answer are headers alone.
//! Streams are polled only when the connection can send: a slow client holds its stream back, and
//! nothing is queued for it here. Compressed messages are refused, as a server without compressors
//! does.

mod body;
mod incoming;
mod receiver;

use std::future::Future;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;

pub use body::{Aborted, Body, Outgoing, Step};
pub(crate) use body::{MESSAGE, STATUS};
pub use incoming::{Incoming, Source};
pub use receiver::Receiver;

use crate::status::Error;

/// Length of the prefix of a message: a flag, and the message's length.
pub const PREFIX: usize = 5;
/// The longest message that is sent, as in etcd.
pub const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// The content type of every request and response.
pub(crate) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Whether a request speaks gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(GRPC.as_bytes()))
}

/// Puts the prefix of a message of `length` bytes.
pub fn put_prefix(buffer: &mut BytesMut, length: usize) {
    debug_assert!(length <= SEND_BYTES_MAX);
    buffer.put_u8(0);
    buffer.put_u32(length as u32);
}

/// Appends a message with its prefix.
pub fn put_message(buffer: &mut BytesMut, message: &impl Message) {
    let length = message.encoded_len();
    buffer.reserve(PREFIX + length);
    put_prefix(buffer, length);
    message.encode_raw(buffer);
}

/// A message with its prefix.
pub fn framed(message: &impl Message) -> Bytes {
    let mut buffer = BytesMut::new();
    put_message(&mut buffer, message);
    buffer.freeze()
}

/// Decodes a message.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Error> {
    M::decode(bytes)
        .map_err(|error| Error::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// The response to a unary call: one message, already framed, or an error.
pub fn unary_response(result: Result<Bytes, Error>) -> Response<Body> {
    match result {
        Ok(message) => respond(Body::unary(message)),
        Err(error) => error_response(&error),
    }
}

/// A response whose body is a stream.
pub fn stream_response(stream: impl Outgoing + 'static) -> Response<Body> {
    respond(Body::stream(stream))
}

/// A response without any message.
pub fn error_response(error: &Error) -> Response<Body> {
    let mut response = respond(Body::empty());
    body::put_status(response.headers_mut(), Err(error));
    response
}

fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// Reads the one message of a unary call.
pub fn receive_one(
    request: Request<Incoming>,
    limit: usize,
) -> impl Future<Output = Result<Bytes, Error>> + Send {
    // Not within the future, which would keep the room for the request's headers.
    let receiver = Receiver::new(request, limit);
    async {
        let mut receiver = receiver?;
        let message = receiver.next().await?;
        let message = message.ok_or_else(|| Error::internal("unexpected EOF"))?;
        receiver.expect_end().await?;
        Ok(message)
    }
}

/// Serves a unary call with `handler`, which is given the message and the length of its encoding.
pub fn unary<Q, R, F>(
    request: Request<Incoming>,
    limit: usize,
    handler: impl FnOnce(Q, usize) -> F + Send,
) -> impl Future<Output = Response<Body>> + Send
where
    Q: Message + Default,
    R: Message,
    F: Future<Output = Result<R, Error>> + Send,
{
    let received = receive_one(request, limit);
    async { unary_response(answer_one(received.await, handler).await) }
}

async fn answer_one<Q, R, F>(
    received: Result<Bytes, Error>,
    handler: impl FnOnce(Q, usize) -> F,
) -> Result<Bytes, Error>
where
    Q: Message + Default,
    R: Message,
    F: Future<Output = Result<R, Error>>,
{
    let bytes = received?;
    let length = bytes.len();
    let answer = handler(decode(bytes)?, length).await?;
    let length = answer.encoded_len();
    if length > SEND_BYTES_MAX { Err(send_too_large(length)) } else { Ok(framed(&answer)) }
}

/// A message too long to be sent.
pub fn send_too_large(length: usize) -> Error {
    let text =
        format!("grpc: trying to send message larger than max ({length} vs. {SEND_BYTES_MAX})");
    Error::Other(tonic::Code::ResourceExhausted, text.into())
}
