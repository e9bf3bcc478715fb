//! Sending a snapshot: pieces of the file, and at the end the SHA-256 of all of them.
//!
//! The messages are etcd's: 32 KiB each, with what remains after them and the version that the
//! file is made for. They are read and hashed on the pool. A client that takes nothing for
//! [`STALL`] loses the file, which others may need the place of.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use holdfast_proto::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tonic::Code;

use super::Built;
use crate::pool::Pool;
use crate::rpc::{self, Outgoing, Step};
use crate::status::Error;

/// Bytes of the file in one message.
const MESSAGE_BYTES: u64 = 32 << 10;
/// Messages that are read together.
const MESSAGES: usize = 8;

/// A client that has taken nothing for so long is not waited for.
const STALL: Duration = Duration::from_secs(60);

/// A snapshot on its way.
pub struct Sending {
    pool: Pool,
    state: State,
    watch: JoinHandle<()>,
}

/// The file, for as long as the client takes something of it.
struct Held {
    built: Mutex<Option<Arc<Built>>>,
    sent: AtomicU64,
}

/// What a read of the file gave, and how far it is now.
type Slice = (Progress, Result<Bytes, Error>);

enum State {
    Ready(Progress),
    Reading(BoxFuture<'static, Result<Slice, Error>>),
    Over,
}

struct Progress {
    held: Arc<Held>,
    sent: u64,
    hash: Sha256,
    /// The last message is read.
    over: bool,
}

impl Sending {
    pub(super) fn new(pool: Pool, built: Arc<Built>) -> Self {
        let held = Held { built: Mutex::new(Some(built)), sent: AtomicU64::new(0) };
        let held = Arc::new(held);
        let watch = tokio::spawn(let_go_when_stalled(held.clone()));
        let progress = Progress { held, sent: 0, hash: Sha256::new(), over: false };
        Self { pool, state: State::Ready(progress), watch }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn let_go_when_stalled(held: Arc<Held>) {
    let mut before = None;
    loop {
        let sent = held.sent.load(Ordering::Relaxed);
        if before == Some(sent) {
            tracing::warn!(sent, "a client has taken nothing of a snapshot for too long");
            held.let_go();
            return;
        }
        before = Some(sent);
        tokio::time::sleep(STALL).await;
    }
}

impl Held {
    fn file(&self) -> Option<Arc<Built>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn let_go(&self) {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Progress {
    /// The next messages.
    fn read(&mut self) -> Result<Bytes, Error> {
        let Some(built) = self.held.file() else {
            let text = "nothing of the snapshot was taken for too long";
            return Err(Error::Other(Code::Aborted, text.into()));
        };
        let failed = |error: io::Error| {
            Error::internal(format!("the snapshot's file cannot be read: {error}"))
        };
        if built.room.is_short().map_err(failed)? {
            self.held.let_go();
            let text = "the disk is needed for something more urgent than a snapshot";
            return Err(Error::Other(Code::ResourceExhausted, text.into()));
        }
        let messages = self.messages(&built).map_err(failed)?;
        self.held.sent.store(self.sent, Ordering::Relaxed);
        Ok(messages)
    }

    fn messages(&mut self, built: &Built) -> io::Result<Bytes> {
        let mut messages = BytesMut::new();
        for _ in 0..MESSAGES {
            let left = built.bytes - self.sent;
            let mut blob = vec![0; left.min(MESSAGE_BYTES) as usize];
            if left == 0 {
                blob = std::mem::take(&mut self.hash).finalize().to_vec();
                self.over = true;
            } else {
                built.file.read_exact_at(&mut blob, self.sent)?;
                self.hash.update(&blob);
                self.sent += blob.len() as u64;
            }
            let message = SnapshotResponse {
                remaining_bytes: built.bytes - self.sent,
                blob: blob.into(),
                version: built.version.clone(),
                ..SnapshotResponse::default()
            };
            rpc::put_message(&mut messages, &message);
            if self.over {
                break;
            }
        }
        Ok(messages.freeze())
    }
}

impl Outgoing for Sending {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(Step::End(Err(Error::Stopped))),
                State::Ready(progress) if progress.over => {
                    return Poll::Ready(Step::End(Ok(())));
                }
                State::Ready(mut progress) => {
                    let pool = self.pool.clone();
                    self.state = State::Reading(Box::pin(async move {
                        let read = move || {
                            let read = progress.read();
                            (progress, read)
                        };
                        pool.run_next(read).await
                    }));
                }
                State::Reading(mut reading) => {
                    let read = reading.as_mut().poll(context);
                    if read.is_pending() {
                        self.state = State::Reading(reading);
                    }
                    return Poll::Ready(match ready!(read) {
                        Ok((progress, Ok(messages))) => {
                            self.state = State::Ready(progress);
                            Step::Data(messages)
                        }
                        Ok((_, Err(error))) | Err(error) => Step::End(Err(error)),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::snapshot::room::Room;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_loses_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Arc::new(Semaphore::new(1));
        let built = Built {
            file: tempfile::tempfile().expect("a file"),
            bytes: 0,
            version: String::new(),
            index: 1,
            room: Room::of(folder.path().to_owned()),
            _permit: places.clone().try_acquire_owned().expect("free"),
        };
        let mut sending = Sending::new(Pool::start(1).expect("threads"), Arc::new(built));
        tokio::time::sleep(STALL / 2).await;
        assert_eq!(places.available_permits(), 0);
        tokio::time::sleep(STALL).await;
        assert_eq!(places.available_permits(), 1);
        let step = std::future::poll_fn(|context| sending.poll_step(context)).await;
        assert!(matches!(step, Step::End(Err(Error::Other(Code::Aborted, _)))));
    }
}
