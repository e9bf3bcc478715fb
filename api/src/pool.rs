//! A few threads for work that would hold up a connection runtime: disk reads, long walks, hashes.
//!
//! Long work gives way: its threads have a lower priority than the connection runtimes, and a read
//! of one key that needs the disk does not queue behind it, but has threads for its kind. Both
//! queues are bounded; when one is full, new work for it is refused and the client is told so. A
//! job whose client has gone still runs to its end.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::status::Error;

/// How much nicer than the rest of the process the threads are.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Jobs of one kind that may wait.
const QUEUE: usize = 1024;
/// Threads for short jobs, which mostly wait for the disk.
const SHORT_THREADS: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when the last clone is gone.
#[derive(Clone)]
pub struct Pool {
    long: SyncSender<Job>,
    short: SyncSender<Job>,
    passwords: SyncSender<Job>,
}

impl Pool {
    /// Starts `threads` threads for long work and as many for passwords, and those for short work.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let long = start("read", threads, give_way)?;
        let short = start("get", SHORT_THREADS, || {})?;
        let passwords = start("password", threads, give_way)?;
        Ok(Self { long, short, passwords })
    }

    /// Runs `job`, which may take long, on one of the threads and gives its result.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        Self::run_on(&self.long, job).await
    }

    /// Runs `job`, which reads no more than a record, ahead of all that may take long.
    pub async fn run_short<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        Self::run_on(&self.short, job).await
    }

    /// Runs `job`, which hashes a password, apart from all reads.
    pub async fn run_password<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        Self::run_on(&self.passwords, job).await
    }

    async fn run_on<T: Send + 'static>(
        jobs: &SyncSender<Job>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            // Nobody waits any more: the result has no use.
            let _ = sender.send(job());
        };
        match jobs.try_send(Box::new(job)) {
            Ok(()) => receiver.await.map_err(|_| Error::Stopped),
            Err(TrySendError::Full(_)) => Err(Error::TooManyRequests),
            Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
        }
    }
}

fn start(name: &str, threads: usize, first: fn()) -> std::io::Result<SyncSender<Job>> {
    let (jobs, queue) = sync_channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    for number in 0..threads {
        let queue = queue.clone();
        let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
        thread.spawn(move || {
            first();
            work(&queue);
        })?;
    }
    Ok(jobs)
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// Lowers the priority of the calling thread.
pub(crate) fn give_way() {
    // Elsewhere this would be the priority of the whole process.
    #[cfg(target_os = "linux")]
    if let Ok(now) = rustix::process::getpriority_process(None) {
        // Without it the thread only competes harder.
        let _ = rustix::process::setpriority_process(None, now + NICENESS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = Pool::start(1).expect("a thread");
        let (started, start) = oneshot::channel();
        let (release, gate) = sync_channel::<()>(0);
        let blocked = pool.clone();
        let first = tokio::spawn(async move {
            let job = move || {
                started.send(()).expect("the test waits");
                gate.recv()
            };
            blocked.run(job).await
        });
        start.await.expect("the only thread is taken");
        let mut waiting = Vec::new();
        let refused = loop {
            let mut job = Box::pin(pool.run(|| ()));
            match futures_util::poll!(&mut job) {
                std::task::Poll::Ready(result) => break result,
                std::task::Poll::Pending => waiting.push(job),
            }
            assert!(waiting.len() <= QUEUE);
        };
        assert_eq!(waiting.len(), QUEUE);
        assert_eq!(refused, Err(Error::TooManyRequests));
        release.send(()).expect("the job waits");
        first.await.expect("no panic").expect("it ran").expect("it was released");
        for job in waiting {
            assert_eq!(job.await, Ok(()));
        }
    }
}
