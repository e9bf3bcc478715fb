//! Sending a snapshot: pieces of the file, and at the end the SHA-256 of all of them.
//!
//! The messages are etcd's: 32 KiB each, with what remains after them and the version that the
//! file is made for. They are read and hashed on the pool.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use holdfast_proto::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};

use super::Built;
use crate::pool::Pool;
use crate::rpc::{self, Outgoing, Step};
use crate::status::Error;

/// Bytes of the file in one message.
const MESSAGE_BYTES: u64 = 32 << 10;
/// Messages that are read together.
const MESSAGES: usize = 8;

/// A snapshot on its way.
pub struct Sending {
    pool: Pool,
    state: State,
}

enum State {
    Ready(Progress),
    Reading(BoxFuture<'static, Result<(Progress, io::Result<Bytes>), Error>>),
    Over,
}

struct Progress {
    built: Arc<Built>,
    sent: u64,
    hash: Sha256,
    /// The last message is read.
    over: bool,
}

impl Sending {
    pub(super) fn new(pool: Pool, built: Arc<Built>) -> Self {
        let progress = Progress { built, sent: 0, hash: Sha256::new(), over: false };
        Self { pool, state: State::Ready(progress) }
    }
}

impl Progress {
    /// The next messages.
    fn read(&mut self) -> io::Result<Bytes> {
        let mut messages = BytesMut::new();
        for _ in 0..MESSAGES {
            let left = self.built.bytes - self.sent;
            let mut blob = vec![0; left.min(MESSAGE_BYTES) as usize];
            if left == 0 {
                blob = std::mem::take(&mut self.hash).finalize().to_vec();
                self.over = true;
            } else {
                self.built.file.read_exact_at(&mut blob, self.sent)?;
                self.hash.update(&blob);
                self.sent += blob.len() as u64;
            }
            let message = SnapshotResponse {
                remaining_bytes: self.built.bytes - self.sent,
                blob: blob.into(),
                version: self.built.version.clone(),
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
                        pool.run(read).await
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
                        Ok((_, Err(error))) => Step::End(Err(Error::internal(format!(
                            "the snapshot's file cannot be read: {error}"
                        )))),
                        Err(error) => Step::End(Err(error)),
                    });
                }
            }
        }
    }
}
