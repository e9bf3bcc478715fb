//! A few threads for work that would hold up a connection runtime: disk reads, long walks, hashes.
//!
//! Long work gives way: its threads have a lower priority than the connection runtimes, and a read
//! of one key that needs the disk does not queue behind it, but has threads for its kind. Both
//! queues are bounded; when one is full, new work for it is refused and the client is told so. A
//! job whose client has gone still runs to its end, but for passwords: they take so long that what
//! nobody waits for any more, or what has waited for too long, is not begun.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::status::Error;

/// How much nicer than the rest of the process the threads are.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Jobs of one kind that may wait.
const QUEUE: usize = 1024;
/// How long a password waits for a thread at most: its client would give up soon after.
const PASSWORD_WAIT_MAX: Duration = Duration::from_secs(2);
/// Threads for short jobs, which mostly wait for the disk.
const SHORT_THREADS: usize = 2;

/// How long a step of work under way waits for a place, and how often it looks.
const NEXT_PATIENCE: Duration = Duration::from_secs(30);
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

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

    /// Runs the next step of long work. Where new work would be refused, this waits for a place: what
    /// has been done already is not thrown away because others are busy.
    pub async fn run_next<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (mut job, receiver) = boxed(job);
        let (mut pause, longest) = PAUSES;
        let deadline = Instant::now() + NEXT_PATIENCE;
        loop {
            match self.long.try_send(job) {
                Ok(()) => return receiver.await.map_err(|_| Error::Stopped),
                Err(TrySendError::Full(refused)) if Instant::now() < deadline => job = refused,
                Err(TrySendError::Full(_)) => return Err(Error::TooManyRequests),
                Err(TrySendError::Disconnected(_)) => return Err(Error::Stopped),
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(longest);
        }
    }

    /// Runs `job`, which reads no more than a record, ahead of all that may take long.
    pub async fn run_short<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        Self::run_on(&self.short, job).await
    }

    /// Runs `job`, which hashes a password, apart from all reads; unless it has to wait for long.
    pub async fn run_password<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let asked = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            if sender.is_closed() {
                return;
            }
            let is_late = asked.elapsed() > PASSWORD_WAIT_MAX;
            let result = if is_late { Err(Error::TooManyRequests) } else { Ok(job()) };
            // Its client has just gone.
            let _ = sender.send(result);
        };
        Self::queue(&self.passwords, Box::new(job))?;
        receiver.await.unwrap_or(Err(Error::Stopped))
    }

    async fn run_on<T: Send + 'static>(
        jobs: &SyncSender<Job>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (job, receiver) = boxed(job);
        Self::queue(jobs, job)?;
        receiver.await.map_err(|_| Error::Stopped)
    }

    fn queue(jobs: &SyncSender<Job>, job: Job) -> Result<(), Error> {
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::TooManyRequests,
            TrySendError::Disconnected(_) => Error::Stopped,
        })
    }
}

fn boxed<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> (Job, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    let job = move || {
        // Nobody waits any more: the result has no use.
        let _ = sender.send(job());
    };
    (Box::new(job), receiver)
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
    async fn passwords_of_clients_that_left_or_waited_for_long_are_not_looked_at() {
        let pool = Pool::start(1).expect("a thread");
        let (release, gate) = sync_channel::<()>(0);
        let (looked, looks) = sync_channel(8);
        let look = |at: &'static str| {
            let looked = looked.clone();
            pool.run_password(move || looked.send(at))
        };
        let blocked = pool.clone();
        let first = tokio::spawn(async move { blocked.run_password(move || gate.recv()).await });
        tokio::task::yield_now().await;
        let mut left = Box::pin(look("left"));
        let mut late = Box::pin(look("late"));
        assert!(futures_util::poll!(&mut left).is_pending());
        assert!(futures_util::poll!(&mut late).is_pending());
        drop(left);
        std::thread::sleep(PASSWORD_WAIT_MAX + Duration::from_millis(10));
        release.send(()).expect("the job waits");
        assert_eq!(late.await, Err(Error::TooManyRequests));
        look("in time").await.expect("it ran").expect("the test listens");
        assert_eq!(looks.try_iter().collect::<Vec<_>>(), ["in time"]);
        first.await.expect("no panic").expect("it ran").expect("it was released");
    }

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
        let mut next = Box::pin(pool.run_next(|| 7));
        assert!(futures_util::poll!(&mut next).is_pending(), "work under way is not refused");
        release.send(()).expect("the job waits");
        first.await.expect("no panic").expect("it ran").expect("it was released");
        for job in waiting {
            assert_eq!(job.await, Ok(()));
        }
        assert_eq!(next.await, Ok(7));
    }
}
