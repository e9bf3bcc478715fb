//! The encoding of one `mvccpb.Event`, spliced from stored records.
//!
//! ```text
//! Event { 1: type (left out for PUT, 1 for DELETE), 2: kv, 3: prev_kv (left out if there is none) }
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::EventSource;
use crate::record::RecordKind;
use crate::{Fatal, Revision};

const TYPE_DELETE: [u8; 2] = [1 << 3, 1];
const KV: u8 = (2 << 3) | 2;
const PREV_KV: u8 = (3 << 3) | 2;

/// The event of a change whose record is `record`, with the version before if there was one.
pub(super) fn encode(kind: &RecordKind, record: &[u8], previous: Option<&[u8]>) -> Bytes {
    let deleted = matches!(kind, RecordKind::Tombstone);
    let head = if deleted { TYPE_DELETE.len() } else { 0 };
    let length = head + field_length(record) + previous.map_or(0, field_length);
    let mut out = BytesMut::with_capacity(length);
    if deleted {
        out.put_slice(&TYPE_DELETE);
    }
    put_field(&mut out, KV, record);
    if let Some(previous) = previous {
        put_field(&mut out, PREV_KV, previous);
    }
    debug_assert_eq!(out.len(), length);
    out.freeze()
}

fn field_length(bytes: &[u8]) -> usize {
    1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

fn put_field(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// Where the bytes of a record may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Memory only.
    Memory,
    /// Disk as well.
    Disk,
}

/// What a look-up gave.
pub(super) enum Found<T> {
    /// This.
    Ready(T),
    /// It is not in memory.
    WouldBlock,
}

/// The record of the change at `revision`.
pub(super) fn record(
    source: &dyn EventSource,
    revision: Revision,
    effort: Effort,
) -> Result<Found<Bytes>, Fatal> {
    match effort {
        Effort::Disk => source.record(revision).map(Found::Ready),
        Effort::Memory => match source.try_record(revision) {
            Ok(found) => Ok(found.map_or(Found::WouldBlock, Found::Ready)),
            // Compacted in the very batch that published it. Whoever catches up will notice.
            Err(_) if source.compacted() >= revision.main => Ok(Found::WouldBlock),
            Err(fatal) => Err(fatal),
        },
    }
}

/// The record at `previous`, which the change of main revision `main` replaced. A compaction up to
/// `main` may have removed it: then there is none.
pub(super) fn previous_record(
    source: &dyn EventSource,
    main: i64,
    previous: Revision,
    effort: Effort,
) -> Result<Found<Option<Bytes>>, Fatal> {
    match record(source, previous, effort) {
        Ok(Found::Ready(bytes)) => Ok(Found::Ready(Some(bytes))),
        // Asked after the attempt: the compacted revision rises before anything is removed.
        Ok(Found::WouldBlock) | Err(_) if source.compacted() >= main => Ok(Found::Ready(None)),
        Ok(Found::WouldBlock) => Ok(Found::WouldBlock),
        Err(fatal) => Err(fatal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    struct Event {
        #[prost(int32, tag = "1")]
        kind: i32,
        #[prost(bytes = "bytes", optional, tag = "2")]
        kv: Option<Bytes>,
        #[prost(bytes = "bytes", optional, tag = "3")]
        prev_kv: Option<Bytes>,
    }

    #[test]
    fn equals_what_a_protobuf_library_writes() {
        let put = RecordKind::Put { create_revision: 2, version: 1, lease: 0 };
        let long = vec![7u8; 300];
        for (number, kind) in [(0, put), (1, RecordKind::Tombstone)] {
            for previous in [None, Some(&b""[..]), Some(&b"before"[..]), Some(&long)] {
                let expected = Event {
                    kind: number,
                    kv: Some(Bytes::copy_from_slice(&long)),
                    prev_kv: previous.map(Bytes::copy_from_slice),
                };
                assert_eq!(encode(&kind, &long, previous), expected.encode_to_vec());
            }
        }
    }
}
