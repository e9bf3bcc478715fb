//! RangeStream: a range as a stream of responses that merge into the unary one.
//!
//! The first page has ten keys; from then on pages double or halve towards the largest request in
//! size. Only the last has a header, and with it the count and whether there is more.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use holdfast_proto::EncodedKeyValue;
use holdfast_proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use holdfast_store::auth::Access;
use holdfast_store::command::Range;
use holdfast_store::{Effort, RecordBytes};

use super::large::Chunks;
use crate::auth::Caller;
use crate::rpc::{self, Outgoing, Step};
use crate::services::Services;
use crate::status::Error;
use crate::{admit, convert};

/// Keys of the first page.
const FIRST_KEYS: usize = 10;
/// Keys of any page.
const KEYS_MAX: usize = 1 << 16;

/// Starts to answer a range page by page.
pub async fn range_stream(
    services: Arc<Services>,
    caller: &Caller,
    request: RangeRequest,
) -> Result<Pages, Error> {
    admit::range_stream(&request)?;
    if !request.serializable {
        services.port.key_barrier().await?;
    }
    let range = convert::range(request);
    let pass = services.may(caller, &Access::Range(&range)).await?;
    let pages = open(services.clone(), range).await?;
    services.still(pass)?;
    Ok(pages)
}

/// What the pages will hold is settled when this returns.
async fn open(services: Arc<Services>, range: Range) -> Result<Pages, Error> {
    let reader = services.reader.clone();
    if range.count_only {
        let read = services.shared.pool.run(move || reader.range(&range, Effort::Blocking)).await?;
        let (revision, result) = read.map_err(|error| services.read_error(error))?;
        let last = convert::range_response(services.headers.at(revision), result);
        return Ok(Pages { chunks: None, last, left: 0, keys: 0, target: 0, done: false });
    }
    let opened = services.shared.pool.run(move || reader.stream(&range)).await?;
    let stream = opened.map_err(|error| services.read_error(error))?;
    let last = RangeResponse {
        header: Some(services.headers.at(stream.revision())),
        kvs: Vec::new(),
        more: stream.more(),
        count: stream.count(),
    };
    let left = stream.records();
    let target = services.shared.limits.request_bytes;
    let chunks = Some(Chunks::new(services, Box::new(stream)));
    Ok(Pages { chunks, last, left, keys: FIRST_KEYS, target, done: false })
}

/// The pages of one range.
pub struct Pages {
    chunks: Option<Chunks>,
    /// The last page, but for its records.
    last: RangeResponse,
    /// Records still to come.
    left: u64,
    /// Keys of the next page.
    keys: usize,
    /// Bytes that a page should have, about.
    target: usize,
    done: bool,
}

impl Pages {
    fn page(&mut self, records: Vec<RecordBytes>) -> Step {
        self.keys = next_keys(self.keys, records.iter().map(|r| r.len()).sum(), self.target);
        self.left = self.left.saturating_sub(records.len() as u64);
        let kvs = records.into_iter().map(EncodedKeyValue::new).collect();
        self.done = self.left == 0;
        let page = if self.done {
            RangeResponse { kvs, ..std::mem::take(&mut self.last) }
        } else {
            RangeResponse { kvs, ..RangeResponse::default() }
        };
        Step::Data(rpc::framed(&RangeStreamResponse { range_response: Some(page) }))
    }
}

impl Outgoing for Pages {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.done {
            return Poll::Ready(Step::End(Ok(())));
        }
        let Some(chunks) = self.chunks.as_mut().filter(|_| self.left > 0) else {
            return Poll::Ready(self.page(Vec::new()));
        };
        // A page may be twice what it should be, and no more.
        match ready!(chunks.poll_next(context, 2 * self.target, self.keys)) {
            Ok(Some(records)) => Poll::Ready(self.page(records)),
            Ok(None) => {
                let lost = Error::internal("the range ended before its last record");
                Poll::Ready(Step::End(Err(lost)))
            }
            Err(error) => Poll::Ready(Step::End(Err(error))),
        }
    }
}

/// How many keys the page after one of `keys` keys and `bytes` bytes should have.
fn next_keys(keys: usize, bytes: usize, target: usize) -> usize {
    if bytes < target / 2 {
        (keys * 2).min(KEYS_MAX)
    } else if bytes > target * 2 {
        (keys / 2).max(1)
    } else {
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_and_shrink_towards_the_target() {
        assert_eq!(next_keys(10, 100, 1000), 20);
        assert_eq!(next_keys(10, 500, 1000), 10);
        assert_eq!(next_keys(10, 2001, 1000), 5);
        assert_eq!(next_keys(1, 2001, 1000), 1);
        assert_eq!(next_keys(KEYS_MAX, 1, 1000), KEYS_MAX);
    }
}
