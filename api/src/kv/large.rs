//! A unary range response that is too big to be built in memory.
//!
//! Its length is known before the first record is read, so the message begins at once and its
//! records follow as the client takes them, from memory or by way of the pool. If the revision is
//! lost meanwhile the message cannot be finished, and the stream is reset.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use holdfast_store::{Effort, RangeStream, ReadError, RecordBytes};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::read::{field_length, put_header, put_record, tag};
use crate::rpc::{self, Aborted, Outgoing, Step};
use crate::services::Services;
use crate::status::Error;

/// Bytes of records in one piece, unless a single record is longer.
const PIECE_BYTES: usize = 64 << 10;
/// Records in one piece.
const PIECE_KEYS: usize = 256;

/// The wait for the next turn on this runtime.
type Turn = Pin<Box<dyn Future<Output = ()> + Send>>;

type Chunk = Result<Option<Vec<RecordBytes>>, ReadError>;

/// Gives the chunks of a [`RangeStream`]: inline when they are in memory, else from the pool. All
/// of one runtime take turns, and others are served in between.
pub(super) struct Chunks {
    services: Arc<Services>,
    state: State,
    turn: Option<Turn>,
}

enum State {
    Ready(Box<RangeStream>),
    Reading(BoxFuture<'static, Result<(Box<RangeStream>, Chunk), Error>>),
    Lost,
}

impl Chunks {
    pub(super) fn new(services: Arc<Services>, stream: Box<RangeStream>) -> Self {
        Self { services, state: State::Ready(stream), turn: None }
    }

    /// The next chunk; none at the end.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        bytes: usize,
        keys: usize,
    ) -> Poll<Result<Option<Vec<RecordBytes>>, Error>> {
        if let Some(turn) = &mut self.turn {
            ready!(turn.as_mut().poll(context));
            self.turn = None;
        }
        loop {
            match std::mem::replace(&mut self.state, State::Lost) {
                State::Ready(mut stream) => match stream.next_chunk(bytes, keys, Effort::Inline) {
                    Err(ReadError::WouldBlock) => self.read_on_pool(stream, bytes, keys),
                    chunk => return Poll::Ready(self.finish(stream, chunk)),
                },
                State::Reading(mut reading) => {
                    let read = reading.as_mut().poll(context);
                    if read.is_pending() {
                        self.state = State::Reading(reading);
                    }
                    return Poll::Ready(match ready!(read) {
                        Ok((stream, chunk)) => self.finish(stream, chunk),
                        Err(error) => Err(error),
                    });
                }
                State::Lost => return Poll::Ready(Err(Error::Stopped)),
            }
        }
    }

    fn read_on_pool(&mut self, mut stream: Box<RangeStream>, bytes: usize, keys: usize) {
        let pool = self.services.shared.pool.clone();
        self.state = State::Reading(Box::pin(async move {
            let read = move || {
                let chunk = stream.next_chunk(bytes, keys, Effort::Blocking);
                (stream, chunk)
            };
            pool.run(read).await
        }));
    }

    fn finish(
        &mut self,
        stream: Box<RangeStream>,
        chunk: Chunk,
    ) -> Result<Option<Vec<RecordBytes>>, Error> {
        self.state = State::Ready(stream);
        self.turn = Some(Box::pin(self.services.turns.clone().take()));
        chunk.map_err(|error| self.services.read_error(error))
    }
}

/// A response in the making.
pub struct Large {
    /// The frame's prefix and the header, until they are sent.
    head: Option<Bytes>,
    chunks: Chunks,
    /// What follows the records, until it is sent.
    tail: Option<Bytes>,
    /// Bytes of records still to come.
    left: u64,
}

impl Large {
    /// Begins the response to the range of `stream`.
    pub(super) fn open(services: Arc<Services>, stream: Box<RangeStream>) -> Result<Self, Error> {
        let header = services.headers.at(stream.revision());
        let tail = tail(stream.more(), stream.count());
        let left = stream.framed_bytes();
        let length = field_length(header.encoded_len()) + left as usize + tail.len();
        if length > rpc::SEND_BYTES_MAX {
            return Err(rpc::send_too_large(length));
        }
        let mut head = BytesMut::new();
        rpc::put_prefix(&mut head, length);
        put_header(&mut head, &header);
        let chunks = Chunks::new(services, stream);
        Ok(Self { head: Some(head.freeze()), chunks, tail: Some(tail), left })
    }

    fn piece(&mut self, records: &[RecordBytes]) -> Step {
        let length = records.iter().map(|record| field_length(record.len())).sum();
        let mut piece = BytesMut::with_capacity(length);
        for record in records {
            put_record(&mut piece, record);
        }
        assert!(length as u64 <= self.left, "more records than were announced");
        self.left -= length as u64;
        Step::Data(piece.freeze())
    }
}

impl Outgoing for Large {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Step::Data(head));
        }
        if self.tail.is_none() {
            return Poll::Ready(Step::End(Ok(())));
        }
        match ready!(self.chunks.poll_next(context, PIECE_BYTES, PIECE_KEYS)) {
            Ok(Some(records)) => Poll::Ready(self.piece(&records)),
            Ok(None) => {
                assert_eq!(self.left, 0, "fewer records than were announced");
                let tail = self.tail.take().expect("it was there a moment ago");
                Poll::Ready(Step::Data(tail))
            }
            Err(error) => Poll::Ready(Step::Abort(Aborted(error))),
        }
    }
}

/// The fields after the records.
fn tail(more: bool, count: i64) -> Bytes {
    let count = count as u64;
    let mut tail = BytesMut::with_capacity(3 + encoded_len_varint(count));
    if more {
        tail.put_slice(&[tag::MORE, 1]);
    }
    if count != 0 {
        tail.put_u8(tag::COUNT);
        encode_varint(count, &mut tail);
    }
    tail.freeze()
}
