//! Ranges: from memory where they stand if they are small, else on the pool.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_proto::etcdserverpb::{RangeRequest, ResponseHeader};
use holdfast_store::auth::Access;
use holdfast_store::command::{Range, SortOrder, SortTarget};
use holdfast_store::{Effort, RangeResult, RangeStream, ReadError, Reader, RecordBytes};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::large::Large;
use crate::auth::Caller;
use crate::rpc;
use crate::services::Services;
use crate::status::Error;
use crate::{admit, convert};

/// Answers with more bytes of records than this leave in pieces.
const WHOLE_BYTES: u64 = 256 << 10;
/// What is read in one piece when the answer is sent whole.
const WHOLE_KEYS: usize = 1 << 16;

/// The answer to a range.
pub enum Answer {
    /// A framed response.
    Whole(Bytes),
    /// A response whose records are read as the client takes them.
    Large(Box<Large>),
}

/// Reads a range, if the caller may.
pub async fn range(
    services: &std::sync::Arc<Services>,
    caller: &Caller,
    request: RangeRequest,
) -> Result<Answer, Error> {
    admit::range(&request)?;
    if !request.serializable {
        services.port.key_barrier().await?;
    }
    services.tally.ranges.add_alone(1);
    let range = convert::range(request);
    let pass = services.may(caller, &Access::Range(&range)).await?;
    let answer = read(services, range).await?;
    services.still(pass)?;
    Ok(answer)
}

async fn read(services: &std::sync::Arc<Services>, range: Range) -> Result<Answer, Error> {
    if is_single_key(&range) {
        match services.reader.get(&range.key, Effort::Inline) {
            Ok((revision, record)) => {
                let header = services.headers.at(revision);
                return Ok(Answer::Whole(single_key(&header, record.as_ref())));
            }
            Err(ReadError::WouldBlock) => {}
            Err(error) => return Err(services.read_error(error)),
        }
    } else {
        match services.reader.range(&range, Effort::Inline) {
            Ok((revision, result)) => return Ok(whole(services, revision, result)),
            Err(ReadError::WouldBlock) => {}
            Err(error) => return Err(services.read_error(error)),
        }
    }
    Box::pin(read_on_pool(services, range)).await
}

async fn read_on_pool(services: &std::sync::Arc<Services>, range: Range) -> Result<Answer, Error> {
    let (reader, pool) = (services.reader.clone(), &services.shared.pool);
    let read = if range.range_end.is_empty() {
        pool.run_short(move || read_blocking(&reader, &range)).await?
    } else {
        pool.run(move || read_blocking(&reader, &range)).await?
    };
    match read.map_err(|error| services.read_error(error))? {
        Read::Whole(revision, result) => Ok(whole(services, revision, result)),
        Read::Large(stream) => {
            Large::open(services.clone(), stream).map(Box::new).map(Answer::Large)
        }
    }
}

fn whole(services: &Services, revision: i64, result: RangeResult) -> Answer {
    let response = convert::range_response(services.headers.at(revision), result);
    Answer::Whole(rpc::framed(&response))
}

enum Read {
    Whole(i64, RangeResult),
    Large(Box<RangeStream>),
}

fn read_blocking(reader: &Reader, range: &Range) -> Result<Read, ReadError> {
    if range.count_only || !is_in_key_order(range) || is_filtered(range) {
        let (revision, result) = reader.range(range, Effort::Blocking)?;
        return Ok(Read::Whole(revision, result));
    }
    let mut stream = reader.stream(range)?;
    if stream.framed_bytes() > WHOLE_BYTES {
        return Ok(Read::Large(Box::new(stream)));
    }
    let mut records: Vec<RecordBytes> = Vec::with_capacity(stream.records() as usize);
    while let Some(chunk) = stream.next_chunk(WHOLE_BYTES as usize, WHOLE_KEYS, Effort::Blocking)? {
        records.extend(chunk);
    }
    let result = RangeResult { records, more: stream.more(), count: stream.count() };
    Ok(Read::Whole(stream.revision(), result))
}

fn is_in_key_order(range: &Range) -> bool {
    range.sort_target == SortTarget::Key as i32 && range.sort_order != SortOrder::Descend as i32
}

fn is_filtered(range: &Range) -> bool {
    range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0
}

/// Whether the range is the newest version of one key, whole.
fn is_single_key(range: &Range) -> bool {
    range.range_end.is_empty()
        && range.revision <= 0
        && !range.keys_only
        && !range.count_only
        && !is_filtered(range)
}

/// Field tags of `RangeResponse`, as they are on the wire.
pub(super) mod tag {
    pub(in crate::kv) const HEADER: u8 = 1 << 3 | 2;
    pub(in crate::kv) const KVS: u8 = 2 << 3 | 2;
    pub(in crate::kv) const MORE: u8 = 3 << 3;
    pub(in crate::kv) const COUNT: u8 = 4 << 3;
}

/// The framed response for one key, written without building it first.
fn single_key(header: &ResponseHeader, record: Option<&RecordBytes>) -> Bytes {
    let header_length = header.encoded_len();
    let found = record.map_or(0, |record| field_length(record.len()) + 2);
    let length = field_length(header_length) + found;
    let mut buffer = BytesMut::with_capacity(rpc::PREFIX + length);
    rpc::put_prefix(&mut buffer, length);
    put_header(&mut buffer, header);
    if let Some(record) = record {
        put_record(&mut buffer, record);
        buffer.put_slice(&[tag::COUNT, 1]);
    }
    buffer.freeze()
}

/// The length of a field with a one-byte tag that holds `length` bytes.
pub(super) fn field_length(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

pub(super) fn put_header(buffer: &mut BytesMut, header: &ResponseHeader) {
    buffer.put_u8(tag::HEADER);
    encode_varint(header.encoded_len() as u64, buffer);
    header.encode_raw(buffer);
}

pub(super) fn put_record(buffer: &mut BytesMut, record: &RecordBytes) {
    buffer.put_u8(tag::KVS);
    encode_varint(record.len() as u64, buffer);
    buffer.put_slice(record);
}

#[cfg(test)]
mod tests {
    use holdfast_proto::EncodedKeyValue;
    use holdfast_proto::etcdserverpb::RangeResponse;

    use super::*;

    #[test]
    fn a_single_key_is_encoded_as_the_generated_type_would() {
        let header =
            ResponseHeader { cluster_id: 1 << 60, member_id: 7, revision: 300, raft_term: 2 };
        for record in [None, Some(Bytes::from(vec![0x0a; 300]))] {
            let kvs: Vec<_> = record.iter().cloned().map(EncodedKeyValue::new).collect();
            let count = kvs.len() as i64;
            let response = RangeResponse { header: Some(header), kvs, more: false, count };
            assert_eq!(single_key(&header, record.as_ref()), rpc::framed(&response));
        }
    }
}
