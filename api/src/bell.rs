//! Wakes the watch streams of one runtime, many at once.
//!
//! The apply thread rings; it may do so for thousands of streams in a row. It only appends to a list,
//! and wakes the runtime when the list was empty. A task of the runtime then wakes the streams,
//! which costs no crossing of threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use holdfast_store::watch::Wake;
use tokio::sync::Notify;

/// The bells of one runtime.
#[derive(Clone, Default)]
pub struct Bells {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    rung: Mutex<Vec<Arc<Stream>>>,
    notify: Notify,
}

#[derive(Default)]
struct Stream {
    waker: AtomicWaker,
    /// In `rung`, or about to be: bounds the list by the number of streams.
    rung: AtomicBool,
}

/// One stream's bell; rung by the store, heard by the task that serves the stream.
pub struct Bell {
    stream: Arc<Stream>,
    shared: Arc<Shared>,
}

impl Bells {
    /// A bell for one stream of this runtime.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::new(Bell { stream: Arc::default(), shared: self.shared.clone() })
    }

    /// Wakes the streams whose bells ring, for as long as it is polled.
    pub async fn listen(&self) {
        loop {
            self.shared.notify.notified().await;
            let rung = std::mem::take(&mut *self.shared.lock());
            for stream in rung {
                stream.rung.store(false, Ordering::Release);
                stream.waker.wake();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Stream>>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell {
    /// Names the task to wake. Look for news after this, not before.
    pub fn register(&self, waker: &Waker) {
        self.stream.waker.register(waker);
    }
}

impl Wake for Bell {
    fn wake(&self) {
        if self.stream.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut rung = self.shared.lock();
        rung.push(self.stream.clone());
        let first = rung.len() == 1;
        drop(rung);
        if first {
            self.shared.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_bell_rung_from_another_thread_wakes_its_stream() {
        let bells = Bells::default();
        let bell = bells.bell();
        let listener = bells.clone();
        tokio::spawn(async move { listener.listen().await });
        for _ in 0..100 {
            let ringer = bell.clone();
            let mut rung = None;
            poll_fn(|context| {
                bell.register(context.waker());
                match &rung {
                    None => {
                        let ringer = ringer.clone();
                        rung = Some(std::thread::spawn(move || ringer.wake()));
                        Poll::Pending
                    }
                    // Only the bell polls this again.
                    Some(_) => Poll::Ready(()),
                }
            })
            .await;
            rung.expect("it was started").join().expect("no panic");
        }
    }
}
