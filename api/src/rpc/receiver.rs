//! The messages of a request body.
//!
//! A message that arrives in one piece, as nearly all do, is a slice of what was received. It pins
//! its buffer, so whoever keeps a part of it for long must copy that part.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::Request;

use super::{Incoming, PREFIX};
use crate::metrics::methods::Method;
use crate::metrics::tally;
use crate::status::Error;

/// Reads framed messages from a request body; never holds more than one message and one frame.
pub struct Receiver<B = Incoming> {
    body: B,
    limit: usize,
    /// Whose messages these are, for whoever counts them.
    method: Option<Method>,
    /// Received and not yet looked at.
    chunk: Bytes,
    /// The beginning of a message that did not arrive in one piece.
    partial: BytesMut,
}

impl<B> Receiver<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    /// Reads the body of a request; messages above `limit` bytes are refused.
    pub fn new(request: Request<B>, limit: usize) -> Result<Self, Error> {
        if let Some(encoding) = request.headers().get("grpc-encoding")
            && encoding != "identity"
        {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            return Err(Error::unimplemented(format!(
                "grpc: Decompressor is not installed for grpc-encoding \"{encoding}\""
            )));
        }
        let method = Method::of(request.uri().path());
        let body = request.into_body();
        Ok(Self { body, limit, method, chunk: Bytes::new(), partial: BytesMut::new() })
    }

    /// Where the messages come from.
    pub fn body(&self) -> &B {
        &self.body
    }

    /// The next message; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Receiver::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            if let Some(message) = self.take()? {
                tally::received(self.method, message.len());
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                // What is left in the chunk has just been moved to the partial message.
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => {
                    let gone = Error::Other(tonic::Code::Cancelled, "context canceled".into());
                    return Poll::Ready(Err(gone));
                }
                None if self.partial.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Error::internal("unexpected EOF"))),
            }
        }
    }

    /// Waits for the end of the body, where no message may come any more.
    pub async fn expect_end(&mut self) -> Result<(), Error> {
        if self.chunk.is_empty() && self.body.is_end_stream() {
            return Ok(());
        }
        match self.next().await? {
            None => Ok(()),
            Some(_) => Err(Error::internal("grpc: more than one message in a unary call")),
        }
    }

    /// A whole message from what has been received; without one, everything is in `partial`.
    fn take(&mut self) -> Result<Option<Bytes>, Error> {
        if self.partial.is_empty() {
            if let Some(length) = self.message_length(&self.chunk)?
                && self.chunk.len() >= PREFIX + length
            {
                self.chunk.advance(PREFIX);
                return Ok(Some(self.chunk.split_to(length)));
            }
            self.partial.extend_from_slice(&std::mem::take(&mut self.chunk));
            return Ok(None);
        }
        self.fill(PREFIX);
        let Some(length) = self.message_length(&self.partial)? else { return Ok(None) };
        self.fill(PREFIX + length);
        if self.partial.len() < PREFIX + length {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// Moves bytes to the partial message until it has `wanted`.
    fn fill(&mut self, wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len());
        let moved = self.chunk.split_to(missing.min(self.chunk.len()));
        self.partial.extend_from_slice(&moved);
    }

    /// The length that a prefix announces, if it is there whole.
    fn message_length(&self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let Some((flag, rest)) = bytes.split_first() else { return Ok(None) };
        if *flag != 0 {
            return Err(Error::internal(
                "grpc: compressed flag set with identity or empty encoding",
            ));
        }
        let Some(length) = rest.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.limit {
            return Err(Error::message_too_large(length, self.limit));
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body::Frame;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn receiver(bytes: &[u8], piece: usize) -> Receiver<Pieces> {
        let pieces = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
        Receiver::new(Request::new(Pieces(pieces)), 100).expect("no encoding")
    }

    fn message(text: &str) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, text.len() as u8];
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[tokio::test]
    async fn messages_are_found_however_they_are_cut() {
        let stream = [message("first"), message(""), message("the third one")].concat();
        for piece in 1..=stream.len() {
            let mut receiver = receiver(&stream, piece);
            for expected in ["first", "", "the third one"] {
                let found = receiver.next().await.expect("no error").expect("not the end");
                assert_eq!(found, expected.as_bytes(), "pieces of {piece}");
            }
            assert_eq!(receiver.next().await, Ok(None), "pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn a_message_cut_short_is_an_error() {
        let stream = message("first");
        for piece in 1..stream.len() {
            let mut receiver = receiver(&stream[..stream.len() - 1], piece);
            assert_eq!(receiver.next().await, Err(Error::internal("unexpected EOF")));
        }
    }

    #[tokio::test]
    async fn a_message_above_the_limit_is_refused_by_its_prefix() {
        let refused = receiver(&[0, 0, 0, 0, 101], 1).next().await;
        assert_eq!(refused, Err(Error::message_too_large(101, 100)));
        let refused = receiver(&[1, 0, 0, 0, 1, 7], 6).next().await;
        assert_eq!(refused.expect_err("compressed").code(), tonic::Code::Internal);
    }

    #[tokio::test]
    async fn a_unary_call_has_one_message() {
        let stream = [message("one"), message("two")].concat();
        let mut receiver = receiver(&stream, stream.len());
        assert!(receiver.next().await.expect("no error").is_some());
        assert!(receiver.expect_end().await.is_err());
    }
}
