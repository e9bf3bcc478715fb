//! Streams through the gateway: JSON values that follow one another in a request's body become
//! messages as they arrive, messages become lines.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt as _};
use http::Response;
use http_body::Body as _;
use prost_reflect::MessageDescriptor;
use tokio::sync::mpsc;

use super::call::Call;
use super::{Refusal, converted, json, json_response};
use crate::rpc::{Body, Outgoing, Source, Step};
use crate::services::Services;

/// The longest value in the body of a stream; the connection runtime converts it itself.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Where the text of requests comes from, cut anywhere.
pub(super) enum Text {
    /// The body of a request.
    Http(hyper::body::Incoming),
    /// The messages of a WebSocket.
    Socket(mpsc::Receiver<Bytes>),
}

impl Text {
    /// The next piece; none at the end. A client that has gone is noticed where its answer is sent.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Self::Http(body) => match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => Poll::Ready(Some(frame.into_data().unwrap_or_default())),
                Some(Err(_)) | None => Poll::Ready(None),
            },
            Self::Socket(texts) => texts.poll_recv(context),
        }
    }
}

/// The messages of the requests of a call.
pub(super) struct Messages {
    source: Text,
    input: MessageDescriptor,
    /// Received and not yet converted.
    text: BytesMut,
    scan: Scan,
    ended: bool,
}

impl Messages {
    pub(super) fn new(source: Text, input: MessageDescriptor) -> Self {
        Self { source, input, text: BytesMut::new(), scan: Scan::default(), ended: false }
    }

    /// The next message of what has been received. A value that is none ends the requests, but
    /// not the call.
    fn take(&mut self) -> Option<Bytes> {
        match self.scan.advance(&self.text) {
            Scanned::Value(length) if length <= VALUE_BYTES_MAX => {
                let value = self.text.split_to(length);
                self.scan = Scan::default();
                let message = json::to_protobuf(&value, &self.input);
                self.ended = message.is_err();
                message.ok()
            }
            Scanned::Part if self.text.len() <= VALUE_BYTES_MAX => None,
            Scanned::Value(_) | Scanned::Part | Scanned::Other => {
                self.ended = true;
                None
            }
        }
    }
}

impl Source for Messages {
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(message) = self.take() {
                return Poll::Ready(Some(message));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.source.poll(context)) {
                Some(text) => self.text.extend_from_slice(&text),
                None => self.ended = true,
            }
        }
    }
}

/// Finds the end of an object, looking at each byte once.
#[derive(Default)]
struct Scan {
    looked_at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Scanned {
    /// The first bytes are white space and an object.
    Value(usize),
    /// More is to come.
    Part,
    /// Something else than an object.
    Other,
}

impl Scan {
    fn advance(&mut self, text: &[u8]) -> Scanned {
        while let Some(byte) = text.get(self.looked_at) {
            self.looked_at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if self.depth > 0 => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' => self.depth += 1,
                b'}' if self.depth == 1 => return Scanned::Value(self.looked_at),
                b'}' if self.depth > 1 => self.depth -= 1,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth == 0 => return Scanned::Other,
                _ => {}
            }
        }
        Scanned::Part
    }
}

/// The response to a call that answers with a stream. Its status is known with its first message.
pub(super) async fn respond(
    services: Arc<Services>,
    call: Result<Call, Refusal>,
    output: MessageDescriptor,
) -> Response<Body> {
    let first = match call {
        Ok(mut call) => call.next().await.map(|message| (call, message)),
        Err(refusal) => Err(refusal),
    };
    match first {
        Ok((call, Some(message))) => {
            let lines = lines(services, call, output, Some(message));
            json_response(Body::plain(Streamed(lines)))
        }
        Ok((_, None)) => Response::new(Body::empty()),
        Err(refusal) => refusal.respond(error_line(&refusal)),
    }
}

/// The lines of a call's answer, after a message of it that has been received already.
pub(super) fn lines(
    services: Arc<Services>,
    call: Call,
    output: MessageDescriptor,
    next: Option<Bytes>,
) -> BoxStream<'static, Bytes> {
    Lines { services, call, output, next }.stream()
}

pub(super) fn error_line(refusal: &Refusal) -> Bytes {
    format!("{}\n", serde_json::json!({ "error": refusal.to_json() })).into()
}

/// Makes lines of a call's messages.
struct Lines {
    services: Arc<Services>,
    call: Call,
    output: MessageDescriptor,
    /// Received and not yet sent.
    next: Option<Bytes>,
}

impl Lines {
    fn stream(self) -> BoxStream<'static, Bytes> {
        let lines = futures_util::stream::unfold(Some(self), |lines| async move {
            let mut lines = lines?;
            match lines.line().await {
                Ok(Some(line)) => Some((line, Some(lines))),
                Ok(None) => None,
                Err(refusal) => Some((error_line(&refusal), None)),
            }
        });
        lines.boxed()
    }

    async fn line(&mut self) -> Result<Option<Bytes>, Refusal> {
        let message = match self.next.take() {
            Some(message) => Some(message),
            None => self.call.next().await?,
        };
        let Some(message) = message else { return Ok(None) };
        let (length, output) = (message.len(), self.output.clone());
        let line = converted(&self.services, length, move || json::to_line(message, output));
        line.await?.map(Some)
    }
}

struct Streamed(BoxStream<'static, Bytes>);

impl Outgoing for Streamed {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        self.0.poll_next_unpin(context).map(|line| match line {
            Some(line) => Step::Data(line),
            None => Step::End(Ok(())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_however_they_are_cut() {
        let text = br#" {"a":"}\"{","b":{"c":[1]}}{} "#;
        let first = text.len() - 3;
        for cut in 0..first {
            let mut scan = Scan::default();
            assert_eq!(scan.advance(&text[..cut]), Scanned::Part, "cut at {cut}");
            assert_eq!(scan.advance(text), Scanned::Value(first), "cut at {cut}");
        }
        assert_eq!(Scan::default().advance(&text[first..]), Scanned::Value(2));
        for other in ["5", "[", "\"", "}", " null"] {
            assert_eq!(Scan::default().advance(other.as_bytes()), Scanned::Other, "{other}");
        }
    }
}
