//! Work that owns its state: on a thread behind a bounded queue, or in place for a simulation.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::config::Workers;

/// Jobs that wait for a thread.
const QUEUE: usize = 64;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// The worker's thread is gone: it panicked, or the node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker has stopped")]
pub(crate) struct Gone;

/// The owner of a `T`, who does one job at a time, in order.
pub(crate) enum Actor<T> {
    Thread(mpsc::Sender<Job<T>>),
    Inline(Arc<Mutex<T>>),
}

impl<T> Clone for Actor<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Thread(jobs) => Self::Thread(jobs.clone()),
            Self::Inline(owned) => Self::Inline(owned.clone()),
        }
    }
}

impl<T: Send + 'static> Actor<T> {
    /// Starts a worker that owns `owned`. A thread ends when the last handle is gone.
    pub(crate) fn start(name: &str, workers: Workers, owned: T) -> Self {
        match workers {
            Workers::Inline => Self::Inline(Arc::new(Mutex::new(owned))),
            Workers::Threads => {
                let (jobs, mut queue) = mpsc::channel::<Job<T>>(QUEUE);
                spawn_thread(name, move || {
                    let mut owned = owned;
                    while let Some(job) = queue.blocking_recv() {
                        job(&mut owned);
                    }
                });
                Self::Thread(jobs)
            }
        }
    }

    /// Has the worker do `job`, and waits for what it gives.
    pub(crate) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        match self {
            Self::Inline(owned) => {
                Ok(job(&mut owned.lock().unwrap_or_else(PoisonError::into_inner)))
            }
            Self::Thread(jobs) => {
                let (answer, result) = oneshot::channel();
                let job: Job<T> = Box::new(move |owned| {
                    // A caller that is gone needs no answer.
                    let _ = answer.send(job(owned));
                });
                jobs.send(job).await.map_err(|_| Gone)?;
                result.await.map_err(|_| Gone)
            }
        }
    }
}

/// Runs a short piece of blocking work off the runtime, or in place for a simulation.
pub(crate) async fn block<R: Send + 'static>(
    workers: Workers,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Gone> {
    match workers {
        Workers::Inline => Ok(work()),
        Workers::Threads => tokio::task::spawn_blocking(work).await.map_err(|_| Gone),
    }
}

/// Runs a loop on a runtime of its own thread, or as a task for a simulation.
pub(crate) fn run_apart(
    name: &str,
    workers: Workers,
    work: impl Future<Output = ()> + Send + 'static,
) {
    match workers {
        Workers::Inline => {
            tokio::spawn(work);
        }
        Workers::Threads => spawn_thread(name, move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime without IO needs nothing that can be refused")
                .block_on(work);
        }),
    }
}

fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    // Without its threads a member cannot work, and it has only just started.
    drop(spawned.expect("the system starts threads"));
}
