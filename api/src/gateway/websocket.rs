//! The gateway over WebSockets, for clients that can send while they receive in no other way:
//! browsers.
//!
//! ```text
//! GET /v3/watch, Upgrade: websocket   -> 101
//! text  {"create_request":{...}}      -> the call's next request
//! text  {"result":{...}}              <- the next line of its answer
//! close                               <- the client's is answered; at the end of a call none is sent
//! ```
//!
//! As in etcd the method is always POST, whatever the query says, and a token comes as the second of
//! the subprotocols `Bearer, <token>`: browsers cannot set headers. A call that takes one request takes
//! the first message, where etcd 3.7 waits for the end of the connection. Pages of origins that `--cors` does not
//! permit are refused, since no browser keeps the answers from them as it does those to other
//! requests. Leaves out compression, WebSockets over HTTP/2, and tokens in cookies, which other
//! pages' requests would carry too.

use std::future::poll_fn;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::header::{
    AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::call::Call;
use super::stream::{Text, error_line, lines};
use super::{Refusal, Requests, TEXT_FACTOR, body_of, metadata, one_answer, path_of, routes};
use crate::http as endpoints;
use crate::leader::Raised;
use crate::rpc::Body;
use crate::services::Services;
use crate::status::Error;
use crate::takeover::Takeover;

/// What every key is hashed with (RFC 6455).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const BEARER: &str = "Bearer";
/// For what is received at a time.
const BUFFER_BYTES: usize = 4 << 10;
/// How long, and how much, a client may go on sending after the end, so that it gets to read it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked_for<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    has_word(headers, &CONNECTION, "upgrade") && has_word(headers, &UPGRADE, "websocket")
}

/// Answers a request that asks for a WebSocket, and has the connection taken over.
pub(crate) fn accept(
    services: Arc<Services>,
    mut request: Request<hyper::body::Incoming>,
    path: &str,
) -> Response<Body> {
    if request.method() != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    let headers = request.headers();
    let is_known = has_word(headers, &SEC_WEBSOCKET_VERSION, "13");
    let accepted = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_known).and_then(accepted);
    let takeover = request.extensions().get::<Takeover>().cloned();
    let (Some(accepted), Some(takeover)) = (accepted, takeover) else {
        return refused(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, WEBSOCKET);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accepted);
    let mut passed = metadata::of(headers);
    let subprotocols = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    if let Some(subprotocols) = subprotocols.filter(|text| text.starts_with(BEARER)) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
        if let Some(token) = token(subprotocols) {
            passed.insert(AUTHORIZATION, token);
        }
    }
    let deadline = metadata::deadline(headers);
    let stopping = services.stopping();
    let talk = Talk { services, path: path.to_owned(), headers: passed, deadline, stopping };
    takeover.put(talk.run(hyper::upgrade::on(&mut request)));
    response
}

/// The answer to a handshake that is none.
fn refused(code: StatusCode, what: &str) -> Response<Body> {
    let mut response = endpoints::error(code, what);
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
    response
}

/// Whether a word stands in a header that is a list.
fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// What shows that a key was understood; none for something else than a key.
fn accepted(key: &HeaderValue) -> Option<HeaderValue> {
    let bytes = STANDARD.decode(key).ok()?;
    if bytes.len() != KEY_BYTES {
        return None;
    }
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(SALT);
    HeaderValue::try_from(STANDARD.encode(hash.finish())).ok()
}

/// The token in `Bearer, <token>`.
fn token(subprotocols: &str) -> Option<HeaderValue> {
    let (_, token) = subprotocols.split_once("Bearer,")?;
    HeaderValue::try_from(token.trim()).ok()
}

/// One call over one WebSocket.
struct Talk {
    services: Arc<Services>,
    path: String,
    headers: HeaderMap,
    deadline: Result<Option<Instant>, Refusal>,
    stopping: Raised,
}

/// What came from the client.
enum Heard {
    /// Whatever it was, it has been passed on.
    More,
    /// A message of so many bytes, which are too many.
    TooLong(usize),
    /// The client is gone, or will be once it has read the answer to its goodbye.
    Goodbye,
}

impl Talk {
    async fn run(self, upgrade: OnUpgrade) {
        let Ok(upgraded) = upgrade.await else { return };
        let limit = self.services.shared.limits.receive_bytes();
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(limit * TEXT_FACTOR))
            .max_frame_size(Some(limit * TEXT_FACTOR));
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        // Nothing is read from the socket that the call has no room for.
        let (sender, texts) = mpsc::channel(1);
        let mut answers = self.answers(texts);
        loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(line) => {
                        if !send(&mut socket, line).await {
                            return;
                        }
                    }
                    None => break,
                },
                heard = hear(&mut socket, &sender) => match heard {
                    Heard::More => {}
                    Heard::TooLong(length) => {
                        let refusal = Refusal::from(Error::message_too_large(length, limit));
                        send(&mut socket, refusal.to_json().to_string().into()).await;
                        break;
                    }
                    Heard::Goodbye => return,
                },
            }
        }
        // The call is over; its end is not kept from a client that is still sending.
        drop(answers);
        linger(socket.into_inner()).await;
    }

    /// The lines that the call answers with, or what it is refused with.
    fn answers(self, texts: mpsc::Receiver<Bytes>) -> BoxStream<'static, Bytes> {
        stream::once(self.begin(texts)).flatten().boxed()
    }

    async fn begin(mut self, mut texts: mpsc::Receiver<Bytes>) -> BoxStream<'static, Bytes> {
        let Some(method) = routes::find(&self.path) else { return refuse(&Refusal::not_found()) };
        let deadline = match self.deadline {
            Ok(deadline) => deadline,
            Err(refusal) => return refuse(&refusal),
        };
        let requests = if method.is_client_streaming() {
            Requests::Follow(Text::Socket(texts))
        } else {
            let first = tokio::select! {
                first = texts.recv() => first,
                () = poll_fn(|context| self.stopping.poll(context)) => None,
            };
            let Some(text) = first else { return stream::empty().boxed() };
            // What else the client sends waits for nobody, so that its end is read after it.
            drop(texts);
            Requests::One(text)
        };
        let mut call = Call::new(deadline);
        let body = match body_of(&self.services, &method, requests).await {
            Ok(body) => body,
            Err(refusal) => return refuse(&refusal),
        };
        let path = path_of(&method);
        let begun = call.begin(self.services.clone(), path, self.headers, body).await;
        if method.is_server_streaming() {
            return match begun {
                Ok(()) => lines(self.services, call, method.output(), None),
                Err(refusal) => stream::iter([error_line(&refusal)]).boxed(),
            };
        }
        let answer = match begun {
            Ok(()) => one_answer(&self.services, &mut call, &method).await,
            Err(refusal) => Err(refusal),
        };
        answer.map_or_else(|refusal| refuse(&refusal), |text| stream::iter([text]).boxed())
    }
}

fn refuse(refusal: &Refusal) -> BoxStream<'static, Bytes> {
    stream::iter([refusal.to_json().to_string().into()]).boxed()
}

/// Sends a line as a message; false if the client is gone.
async fn send(socket: &mut Socket, line: Bytes) -> bool {
    let line = line.strip_suffix(b"\n").map_or(line.clone(), |text| line.slice_ref(text));
    let text = Utf8Bytes::try_from(line).expect("JSON is UTF-8");
    socket.send(Message::Text(text)).await.is_ok()
}

async fn hear(socket: &mut Socket, sender: &mpsc::Sender<Bytes>) -> Heard {
    // A call that takes no more requests still hears its client go.
    let room = sender.reserve().await.ok();
    let text = match socket.next().await {
        Some(Ok(Message::Text(text))) => Bytes::from(text),
        Some(Ok(Message::Binary(bytes))) => bytes,
        Some(Ok(Message::Close(_))) => {
            // The answer to it is on its way.
            let _ = socket.flush().await;
            return Heard::Goodbye;
        }
        // Pings are answered by the socket.
        Some(Ok(_)) => return Heard::More,
        Some(Err(SocketError::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
            return Heard::TooLong(size);
        }
        Some(Err(_)) | None => return Heard::Goodbye,
    };
    if let Some(room) = room {
        room.send(text);
    }
    Heard::More
}

/// Ends a connection from this side, and reads on for a moment: what a client has sent and nobody
/// reads would make the system take back what it has yet to read.
async fn linger(mut io: TokioIo<Upgraded>) {
    let _ = io.shutdown().await;
    let reading = async {
        let mut buffer = [0; BUFFER_BYTES];
        let mut left = LINGER_BYTES;
        while let Ok(length @ 1..) = io.read(&mut buffer).await {
            left = left.saturating_sub(length);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request")
    }

    #[test]
    fn a_handshake_is_told_from_other_requests() {
        let upgrade = ("connection", "keep-alive, Upgrade");
        assert!(is_asked_for(&request(&[upgrade, ("upgrade", "WebSocket")])));
        assert!(!is_asked_for(&request(&[upgrade, ("upgrade", "h2c")])));
        assert!(!is_asked_for(&request(&[("upgrade", "websocket")])));
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_answered_as_in_the_standard() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let expected = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted(&key), Some(expected));
        for other in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=", "YQ=="] {
            assert_eq!(accepted(&HeaderValue::from_str(other).expect("text")), None, "{other}");
        }
    }

    #[test]
    fn a_token_follows_its_kind() {
        let found = |text| token(text).map(|token| token.to_str().expect("text").to_owned());
        assert_eq!(found("Bearer, abc.1").as_deref(), Some("abc.1"));
        assert_eq!(found("Bearer,abc.1").as_deref(), Some("abc.1"));
        assert_eq!(found("Bearer"), None);
    }
}
