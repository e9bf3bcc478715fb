//! Threads for handshakes, apart from the connection runtimes: a handshake is a millisecond of
//! arithmetic, and after a failover every client makes one.
//!
//! Bounded: when too many are under way, mostly with clients that do not go on, a new connection is
//! closed. What a handshake is, and how long it may take, is the caller's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

/// Handshakes under way, all threads together.
const UNDER_WAY_MAX: usize = 4096;

/// The threads. They end when the last clone is gone.
#[derive(Clone)]
pub struct Handshakes {
    threads: Arc<[mpsc::Sender<BoxFuture<'static, ()>>]>,
    next: Arc<AtomicUsize>,
    permits: Arc<Semaphore>,
}

impl Handshakes {
    /// Starts `threads` threads.
    pub fn start(name: &str, threads: usize) -> io::Result<Self> {
        let mut started = Vec::with_capacity(threads);
        for number in 0..threads.max(1) {
            // Room for every permit: a job that has one is always taken.
            let (sender, jobs) = mpsc::channel(UNDER_WAY_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            thread.spawn(move || runtime.block_on(work(jobs)))?;
            started.push(sender);
        }
        let permits = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Ok(Self { threads: started.into(), next: Arc::default(), permits })
    }

    /// Runs `job` on one of the threads; says whether it will run.
    pub fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) -> bool {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else { return false };
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let job = async move {
            let _permit = permit;
            job.await;
        };
        self.threads[number].try_send(Box::pin(job)).is_ok()
    }
}

async fn work(mut jobs: mpsc::Receiver<BoxFuture<'static, ()>>) {
    let mut under_way = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => drop(under_way.spawn(job)),
                // Whoever waits for the rest learns that it was given up.
                None => return,
            },
            Some(_) = under_way.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_many_are_refused_and_one_that_hangs_holds_up_nobody() {
        let handshakes = Handshakes::start("test", 1).expect("a thread");
        let (release, hold) = tokio::sync::watch::channel(false);
        for _ in 0..UNDER_WAY_MAX - 1 {
            let mut hold = hold.clone();
            assert!(handshakes.spawn(async move { drop(hold.wait_for(|go| *go).await) }));
        }
        let (done, finished) = tokio::sync::oneshot::channel();
        assert!(handshakes.spawn(async move { done.send(()).expect("the test waits") }));
        finished.await.expect("it ran beside those that hang");
        let limit = std::time::Duration::from_secs(60);
        let refused = async {
            // The finished one gives its place back some time after it has told.
            while handshakes.spawn(std::future::pending()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(limit, refused).await.expect("refused at the bound");
        release.send(true).expect("they wait");
        let freed = async {
            while !handshakes.spawn(async {}) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(limit, freed).await.expect("there is room again");
    }
}
