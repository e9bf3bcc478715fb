//! What each connection runtime counts of its calls, by itself; added up when somebody asks.
//!
//! A runtime is one thread, so raising a counter is a load and a store in a line of memory that no
//! other thread writes.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_store::measure::{Counter, Distribution, Histogram};
use http::Response;

use super::methods::{CODES, COUNT, Flow, HANDLING, Method};
use crate::rpc::{Body, PREFIX};

/// The counters of one runtime.
pub(crate) struct Tally {
    methods: [OfMethod; COUNT],
    sent_bytes: Counter,
    received_bytes: Counter,
    /// `--warning-unary-request-duration`.
    expected: Duration,
    /// Events sent to watchers.
    pub(crate) events: Counter,
    /// Ranges read outside of the log.
    pub(crate) ranges: Counter,
}

#[derive(Default)]
struct OfMethod {
    started: Counter,
    received: Counter,
    sent: Counter,
    handled: [Counter; CODES.len()],
    /// Only with `--metrics=extensive`.
    handling: Option<Histogram>,
}

/// The tallies of all runtimes.
#[derive(Clone)]
pub(crate) struct Tallies {
    all: Arc<Mutex<Vec<Arc<Tally>>>>,
    extensive: bool,
    expected: Duration,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Tally>>> = const { RefCell::new(None) };
}

impl Tallies {
    /// None as yet; `extensive` ones also tell how long calls take. Unary calls that take longer
    /// than is `expected` are told of in the log.
    pub(crate) fn new(extensive: bool, expected: Duration) -> Self {
        Self { all: Arc::default(), extensive, expected }
    }

    /// A tally for the calling thread, which is to be a runtime's.
    pub(crate) fn open(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally {
            methods: std::array::from_fn(|_| OfMethod {
                handling: self.extensive.then(|| Histogram::new(HANDLING)),
                ..OfMethod::default()
            }),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            expected: self.expected,
            events: Counter::default(),
            ranges: Counter::default(),
        });
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(tally.clone());
        CURRENT.with_borrow_mut(|current| *current = Some(tally.clone()));
        tally
    }

    /// The sum of all.
    pub(crate) fn sum(&self) -> Sums {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = Sums::default();
        for method in Method::all() {
            let mut sum = MethodSums::default();
            all.iter().for_each(|tally| sum.add(&tally.methods[method.index()]));
            sums.methods.push((method, sum));
        }
        for tally in all.iter() {
            sums.sent_bytes += tally.sent_bytes.get();
            sums.received_bytes += tally.received_bytes.get();
            sums.events += tally.events.get();
            sums.ranges += tally.ranges.get();
        }
        sums
    }
}

/// What all runtimes have counted together.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) methods: Vec<(Method, MethodSums)>,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) events: u64,
    pub(crate) ranges: u64,
}

/// The same of one call.
#[derive(Default)]
pub(crate) struct MethodSums {
    pub(crate) started: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) handled: [u64; CODES.len()],
    pub(crate) handling: Option<Distribution>,
}

impl MethodSums {
    fn add(&mut self, counted: &OfMethod) {
        self.started += counted.started.get();
        self.received += counted.received.get();
        self.sent += counted.sent.get();
        for (sum, count) in self.handled.iter_mut().zip(&counted.handled) {
            *sum += count.get();
        }
        let Some(handling) = counted.handling.as_ref().map(Histogram::distribution) else { return };
        match &mut self.handling {
            Some(sum) => sum.add(&handling),
            none => *none = Some(handling),
        }
    }
}

/// A message of `method` has come, of so many bytes.
pub(crate) fn received(method: Option<Method>, bytes: usize) {
    CURRENT.with_borrow(|current| {
        let Some(tally) = current else { return };
        tally.received_bytes.add_alone(bytes as u64);
        if let Some(method) = method {
            tally.methods[method.index()].received.add_alone(1);
        }
    });
}

/// One call, counted as canceled if nobody says how it ended.
pub(crate) struct Call {
    tally: Arc<Tally>,
    method: Option<Method>,
    started: Instant,
    is_over: bool,
    frames: Frames,
}

impl Call {
    /// Counts a call that begins.
    pub(crate) fn start(tally: &Arc<Tally>, path: &str) -> Self {
        let method = Method::of(path);
        if let Some(method) = method {
            tally.methods[method.index()].started.add_alone(1);
        }
        let started = Instant::now();
        Self { tally: tally.clone(), method, started, is_over: false, frames: Frames::default() }
    }

    /// The answer, which counts the rest of the call if there is more to come.
    pub(crate) fn answered(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(status) = response.headers().get("grpc-status") {
            let code = status.to_str().ok().and_then(|code| code.parse().ok());
            self.end(code.unwrap_or(tonic::Code::Unknown as usize));
            return response;
        }
        if let Some(length) = response.body().unary_length() {
            self.sent(length);
            self.count_sent(1);
            self.end(tonic::Code::Ok as usize);
            return response;
        }
        response.map(|body| body.counted(self))
    }

    /// Bytes of a stream have been sent.
    pub(crate) fn stream_sent(&mut self, bytes: &[u8]) {
        self.sent(bytes.len());
        let messages = self.frames.count(bytes);
        self.count_sent(messages);
    }

    /// The call has ended with a code.
    pub(crate) fn end(&mut self, code: usize) {
        self.is_over = true;
        let Some(method) = self.method else { return };
        let counted = &self.tally.methods[method.index()];
        counted.handled[code.min(CODES.len() - 1)].add_alone(1);
        let took = self.started.elapsed();
        if let Some(handling) = &counted.handling {
            handling.observe(took);
        }
        if took > self.tally.expected && method.flow() == Flow::Unary {
            warn(method, took, code);
        }
    }

    fn sent(&self, bytes: usize) {
        self.tally.sent_bytes.add_alone(bytes as u64);
    }

    fn count_sent(&self, messages: u64) {
        if let Some(method) = self.method {
            self.tally.methods[method.index()].sent.add_alone(messages);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(tonic::Code::Cancelled as usize);
        }
    }
}

/// Tells of a call that took long, as etcd does; the request's content is not kept for it.
#[cold]
fn warn(method: Method, took: Duration, code: usize) {
    tracing::warn!(
        "time spent" = ?took,
        "response type" = method.path(),
        code = CODES[code.min(CODES.len() - 1)],
        "request stats"
    );
}

/// Counts the messages in a stream of bytes, wherever the bytes are cut.
#[derive(Default)]
struct Frames {
    prefix: Vec<u8>,
    /// Bytes of the present message still to come.
    left: usize,
}

impl Frames {
    /// How many messages end within the next bytes.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while !bytes.is_empty() {
            if self.left == 0 {
                let taken = (PREFIX - self.prefix.len()).min(bytes.len());
                self.prefix.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                if self.prefix.len() < PREFIX {
                    break;
                }
                let length = self.prefix[1..].try_into().expect("four bytes follow the flag");
                self.left = u32::from_be_bytes(length) as usize;
                self.prefix.clear();
                if self.left == 0 {
                    ended += 1;
                }
                continue;
            }
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            bytes = &bytes[taken..];
            if self.left == 0 {
                ended += 1;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc;
    use crate::status::Error;
    use bytes::Bytes;

    fn put(tallies: &Tallies) -> MethodSums {
        let find = |(method, _): &(Method, MethodSums)| method.path() == "/etcdserverpb.KV/Put";
        tallies.sum().methods.into_iter().find(find).expect("it is in the table").1
    }

    #[test]
    fn every_call_ends_in_one_code() {
        let tallies = Tallies::new(true, Duration::from_secs(60));
        let tally = tallies.open();
        let start = || Call::start(&tally, "/etcdserverpb.KV/Put");
        received(Method::of("/etcdserverpb.KV/Put"), 7);
        start().answered(rpc::unary_response(Ok(Bytes::from_static(b"\0\0\0\0\0"))));
        start().answered(rpc::error_response(&Error::NoLeader));
        drop(start());
        Call::start(&tally, "/nobody/knows").answered(rpc::error_response(&Error::NoLeader));
        let sum = put(&tallies);
        assert_eq!((sum.started, sum.received, sum.sent), (3, 1, 1));
        let codes = [tonic::Code::Ok, tonic::Code::Unavailable, tonic::Code::Cancelled];
        assert!(codes.iter().all(|code| sum.handled[*code as usize] == 1), "{:?}", sum.handled);
        assert_eq!(sum.handled.iter().sum::<u64>(), 3);
        assert_eq!(sum.handling.expect("asked for").counts.iter().sum::<u64>(), 3);
        assert_eq!(tallies.sum().received_bytes, 7);
    }

    #[test]
    fn messages_are_counted_wherever_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [3_u8, 0, 1, 9] {
            bytes.extend([0, 0, 0, 0, length]);
            bytes.extend(std::iter::repeat_n(7, usize::from(length)));
        }
        for piece in 1..bytes.len() {
            let mut frames = Frames::default();
            let counted: u64 = bytes.chunks(piece).map(|piece| frames.count(piece)).sum();
            assert_eq!(counted, 4, "in pieces of {piece}");
        }
    }

    #[test]
    fn flows_are_labelled_as_in_etcd() {
        let watch = Method::of("/etcdserverpb.Watch/Watch").expect("in the table");
        assert_eq!(watch.flow(), Flow::Both);
        assert_eq!(watch.flow().label(), "bidi_stream");
    }
}
