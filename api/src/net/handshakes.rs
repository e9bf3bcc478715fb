//! Threads for handshakes, apart from the connection runtimes: a handshake is a millisecond of
//! arithmetic, and after a failover every client makes one.
//!
//! Bounded by `Permits`, which say who goes when too many are under way. What a handshake is, and how
//! long it may take, is the caller's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::permits::{Hello, Permits};

/// The threads. They end when the last clone is gone.
#[derive(Clone)]
pub struct Handshakes {
    threads: Arc<[mpsc::Sender<BoxFuture<'static, ()>>]>,
    next: Arc<AtomicUsize>,
    permits: Permits,
}

impl Handshakes {
    /// Starts `threads` threads under `permits`; each begins with `first`.
    pub fn start(name: &str, threads: usize, permits: Permits, first: fn()) -> io::Result<Self> {
        let mut started = Vec::with_capacity(threads);
        for number in 0..threads.max(1) {
            // Room for everybody: a job that has a permit is always taken.
            let (sender, jobs) = mpsc::channel(permits.holders_max());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            thread.spawn(move || {
                first();
                runtime.block_on(work(jobs));
            })?;
            started.push(sender);
        }
        Ok(Self { threads: started.into(), next: Arc::default(), permits })
    }

    /// Runs `job` on one of the threads, where it may be dropped for the sake of newer ones; says
    /// whether it was taken.
    pub fn spawn<F>(&self, job: impl FnOnce(Hello) -> F + Send + 'static) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(permit) = self.permits.take() else { return false };
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        // Lost or done, it is over.
        let job = async move { permit.hold(job).await.unwrap_or_default() };
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
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn jobs_that_hang_hold_up_nobody_and_silent_ones_go() {
        let handshakes = Handshakes::start("test", 1, Permits::new("test", 2), || {});
        let handshakes = handshakes.expect("a thread");
        let (held, lost) = oneshot::channel::<()>();
        assert!(handshakes.spawn(|_| async move {
            let _held = held;
            std::future::pending().await
        }));
        assert!(handshakes.spawn(|hello| async move {
            hello.said();
            std::future::pending().await
        }));
        for _ in 0..100 {
            let (done, finished) = oneshot::channel();
            let run = move |_| async move { done.send(()).expect("the test waits") };
            assert!(handshakes.spawn(run));
            finished.await.expect("it ran beside those that hang");
        }
        lost.await.expect_err("the silent one was dropped");
    }
}
