//! The floor's log: one thread appends what has gathered, syncs once, and completes the whole group.
//!
//! Completions go back to each runtime as one list. The file is filled with zeros ahead and used
//! as a ring, so that a sync commits no metadata.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use tokio::sync::{Notify, oneshot};
use tonic::Status;

const RING_BYTES: u64 = 64 << 20;

/// A handle to the log.
#[derive(Clone)]
pub(super) struct Wal(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    completions: Vec<Completions>,
}

/// Appends that wait. There is one for each request under way, which connections bound.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    waiting: Vec<(usize, oneshot::Sender<()>)>,
}

#[derive(Default)]
struct Completions {
    done: Mutex<Vec<oneshot::Sender<()>>>,
    notify: Notify,
}

impl Wal {
    /// Opens the file and starts the thread.
    pub(super) fn start(path: &Path, runtimes: usize) -> Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        file.write_all_at(&vec![0; RING_BYTES as usize], 0)?;
        file.sync_all()?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            completions: (0..runtimes).map(|_| Completions::default()).collect(),
        });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("wal".to_owned()).spawn(move || {
            if let Err(error) = of_thread.write(&file) {
                eprintln!("the log failed: {error}");
                std::process::exit(1);
            }
        })?;
        Ok(Self(shared))
    }

    /// Returns when the record is on disk.
    pub(super) async fn append(&self, runtime: usize, record: Vec<u8>) -> Result<(), Status> {
        let (done, is_done) = oneshot::channel();
        {
            let mut queue = lock(&self.0.queue);
            queue.bytes.extend_from_slice(&record);
            queue.waiting.push((runtime, done));
            if queue.waiting.len() == 1 {
                self.0.arrived.notify_one();
            }
        }
        is_done.await.map_err(|_| Status::unavailable("the log ended"))
    }

    /// Wakes a runtime's own requests, a list at a time; runs on that runtime.
    pub(super) async fn complete(self, runtime: usize) {
        let completions = &self.0.completions[runtime];
        loop {
            completions.notify.notified().await;
            let done = std::mem::take(&mut *lock(&completions.done));
            for sender in done {
                // The request may have been cancelled.
                let _ = sender.send(());
            }
        }
    }
}

impl Shared {
    fn write(&self, file: &File) -> std::io::Result<()> {
        let mut offset = 0;
        loop {
            let group = self.next_group();
            let length = group.bytes.len() as u64;
            if offset + length > RING_BYTES {
                offset = 0;
            }
            file.write_all_at(&group.bytes, offset)?;
            file.sync_data()?;
            offset += length;
            self.complete(group.waiting);
        }
    }

    fn next_group(&self) -> Queue {
        let queue = lock(&self.queue);
        let mut queue = self
            .arrived
            .wait_while(queue, |queue| queue.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *queue)
    }

    fn complete(&self, waiting: Vec<(usize, oneshot::Sender<()>)>) {
        let mut lists: Vec<Vec<oneshot::Sender<()>>> = Vec::new();
        lists.resize_with(self.completions.len(), Vec::new);
        for (runtime, sender) in waiting {
            lists[runtime].push(sender);
        }
        for (completions, list) in self.completions.iter().zip(lists) {
            if !list.is_empty() {
                lock(&completions.done).extend(list);
                completions.notify.notify_one();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
