//! Response bodies: a single message, a stream of bytes that ends in a status, or plain HTTP content
//! in one piece or as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use crate::metrics::tally::Call;
use crate::status::Error;

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const SUCCESS: HeaderValue = HeaderValue::from_static("0");

/// What a stream does next.
pub enum Step {
    /// Sends bytes, which need not be whole messages.
    Data(Bytes),
    /// Ends with a status. No message may be unfinished.
    End(Result<(), Error>),
    /// Resets the stream, because a message cannot be finished.
    Abort(Aborted),
}

/// Where the bytes of a streamed response come from. Polled only while the client has room.
pub trait Outgoing: Send {
    /// The next step; not called again after `End` or `Abort`.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step>;
}

/// Why a stream was reset.
#[derive(Debug, thiserror::Error)]
#[error("response abandoned: {0}")]
pub struct Aborted(pub Error);

/// A response body.
pub struct Body {
    kind: Kind,
    /// Of a stream: who counts it.
    call: Option<Call>,
}

enum Kind {
    Done,
    Text(Bytes),
    Unary(Bytes),
    Trailers(Result<(), Error>),
    Stream(Box<dyn Outgoing>),
    /// A stream without a status.
    Plain(Box<dyn Outgoing>),
}

impl Body {
    /// Nothing at all.
    pub fn empty() -> Self {
        Self::of(Kind::Done)
    }

    /// Plain HTTP content.
    pub fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self::of(if text.is_empty() { Kind::Done } else { Kind::Text(text) })
    }

    /// One framed message, and a status of success.
    pub fn unary(message: Bytes) -> Self {
        Self::of(Kind::Unary(message))
    }

    /// A stream.
    pub fn stream(stream: impl Outgoing + 'static) -> Self {
        Self::of(Kind::Stream(Box::new(stream)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, call: None }
    }

    /// The length of a single message, with its prefix.
    pub(crate) fn unary_length(&self) -> Option<usize> {
        match &self.kind {
            Kind::Unary(message) => Some(message.len()),
            _ => None,
        }
    }

    /// The same, counted by `call`.
    pub(crate) fn counted(self, call: Call) -> Self {
        Self { call: Some(call), ..self }
    }

    /// Plain HTTP content that comes bit by bit; the status at its end is not sent.
    pub fn plain(stream: impl Outgoing + 'static) -> Self {
        Self::of(Kind::Plain(Box::new(stream)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let Self { kind, call } = self.get_mut();
        let (frame, next) = match std::mem::replace(kind, Kind::Done) {
            Kind::Done => return Poll::Ready(None),
            Kind::Text(text) => (Frame::data(text), Kind::Done),
            Kind::Unary(message) => (Frame::data(message), Kind::Trailers(Ok(()))),
            Kind::Trailers(result) => (Frame::trailers(trailers(&result)), Kind::Done),
            Kind::Stream(mut stream) => match stream.poll_step(context) {
                Poll::Pending => {
                    *kind = Kind::Stream(stream);
                    return Poll::Pending;
                }
                Poll::Ready(Step::Data(bytes)) => {
                    if let Some(call) = call {
                        call.stream_sent(&bytes);
                    }
                    (Frame::data(bytes), Kind::Stream(stream))
                }
                Poll::Ready(Step::End(result)) => {
                    end(call, result.as_ref().err());
                    (Frame::trailers(trailers(&result)), Kind::Done)
                }
                Poll::Ready(Step::Abort(aborted)) => {
                    end(call, Some(&aborted.0));
                    return Poll::Ready(Some(Err(aborted)));
                }
            },
            Kind::Plain(mut stream) => match stream.poll_step(context) {
                Poll::Pending => {
                    *kind = Kind::Plain(stream);
                    return Poll::Pending;
                }
                Poll::Ready(Step::Data(bytes)) => (Frame::data(bytes), Kind::Plain(stream)),
                Poll::Ready(Step::End(_)) => return Poll::Ready(None),
                Poll::Ready(Step::Abort(aborted)) => return Poll::Ready(Some(Err(aborted))),
            },
        };
        *kind = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Done => SizeHint::with_exact(0),
            Kind::Text(text) => SizeHint::with_exact(text.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// Counts the end of a stream.
fn end(call: &mut Option<Call>, error: Option<&Error>) {
    if let Some(mut call) = call.take() {
        call.end(error.map_or(tonic::Code::Ok, Error::code) as usize);
    }
}

fn trailers(result: &Result<(), Error>) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    put_status(&mut trailers, result.as_ref().copied());
    trailers
}

/// Writes a status as headers or trailers.
pub(super) fn put_status(headers: &mut HeaderMap, result: Result<(), &Error>) {
    match result {
        Ok(()) => {
            headers.insert(STATUS, SUCCESS);
        }
        Err(error) => {
            headers.insert(STATUS, HeaderValue::from(error.code() as i32));
            headers.insert(MESSAGE, percent_encoded(error.text()));
        }
    }
}

/// gRPC's form of a message: printable ASCII but for the percent sign, the rest as hex.
fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::try_from(encoded).expect("only printable ASCII is left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("etcdserver: no leader"), "etcdserver: no leader");
        assert_eq!(percent_encoded("100% \u{e9}\n"), "100%25 %C3%A9%0A");
    }

    #[test]
    fn an_error_becomes_a_code_and_a_message() {
        let mut headers = HeaderMap::new();
        put_status(&mut headers, Err(&Error::Compacted));
        assert_eq!(headers["grpc-status"], "11");
        assert_eq!(
            headers["grpc-message"],
            "etcdserver: mvcc: required revision has been compacted"
        );
        let mut headers = HeaderMap::new();
        put_status(&mut headers, Ok(()));
        assert_eq!(headers["grpc-status"], "0");
        assert_eq!(headers.len(), 1);
    }
}
