//! What drives the writer and the maintenance: threads in production, a task in simulation. Thin
//! on purpose; everything that can be wrong is in `core.rs`.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};

use super::core::WalCore;
use super::handle::{Shared, Wal};
use super::limits::{IDLE_BEFORE_MARK, ROOM_PAUSE};
use super::queue::Sleep;
use super::upkeep::Maintenance;

/// The threads of an open log. They end, with everything queued written, when this is dropped.
pub struct WalThreads {
    wal: Wal,
    threads: Vec<JoinHandle<()>>,
}

impl WalThreads {
    /// Starts the writer and the maintenance.
    pub fn spawn(core: WalCore, maintenance: Maintenance) -> io::Result<Self> {
        let wal = core.wal();
        let builder = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let mut threads = Self { wal, threads: Vec::new() };
        threads.threads.push(builder("wal").spawn(move || run_writer(core))?);
        threads.threads.push(builder("wal-upkeep").spawn(move || run_maintenance(maintenance))?);
        Ok(threads)
    }
}

impl Drop for WalThreads {
    fn drop(&mut self) {
        self.wal.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the WAL panicked");
            }
        }
    }
}

/// Why a wait for work ended.
enum Wake {
    Work,
    Idle,
    /// Only a task that does the maintenance too is woken for it.
    Upkeep,
    Closed,
}

fn run_writer(mut core: WalCore) {
    loop {
        if core.is_stuck() {
            if has_ended_within(&core, ROOM_PAUSE) {
                return core.give_up().fire();
            }
            core.step().fire();
            continue;
        }
        let limit = core.has_idle_work().then_some(IDLE_BEFORE_MARK);
        match wait_for_work(&core, limit) {
            Wake::Work => core.step().fire(),
            Wake::Idle => core.idle().fire(),
            Wake::Upkeep => {}
            Wake::Closed => {
                core.idle().fire();
                return core.give_up().fire();
            }
        }
    }
}

/// Waits until there is something to sync, the log was closed, or `limit` has passed; without a
/// limit, also until there is something that rides along.
fn wait_for_work(core: &WalCore, limit: Option<Duration>) -> Wake {
    let (shared, next) = (&core.shared, core.next_index());
    let end = limit.map(|limit| Instant::now() + limit);
    let mut queue = shared.queue();
    loop {
        if queue.wants_write() {
            return Wake::Work;
        }
        if queue.closed || queue.failure.is_some() {
            return Wake::Closed;
        }
        let lock = "a panic under this lock stops the process";
        match end {
            None if queue.has_riders(next) => return Wake::Idle,
            None => {
                queue.sleep = Sleep::Deep;
                queue = shared.work.wait(queue).expect(lock);
            }
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Wake::Idle;
                }
                queue.sleep = Sleep::Light;
                queue = shared.work.wait_timeout(queue, left).expect(lock).0;
            }
        }
        queue.sleep = Sleep::Awake;
    }
}

/// Whether the log is closed or has failed before `pause` is over.
fn has_ended_within(core: &WalCore, pause: Duration) -> bool {
    let end = Instant::now() + pause;
    let mut queue = core.shared.queue();
    // What is queued meanwhile waits behind what found no room.
    queue.sleep = Sleep::Awake;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if queue.closed || queue.failure.is_some() || left.is_zero() {
            return queue.closed || queue.failure.is_some();
        }
        let lock = "a panic under this lock stops the process";
        queue = core.shared.work.wait_timeout(queue, left).expect(lock).0;
    }
}

fn run_maintenance(mut maintenance: Maintenance) {
    let shared = maintenance.shared.clone();
    loop {
        while !shared.upkeep().closed && maintenance.step() {}
        let mut upkeep = shared.upkeep();
        while !upkeep.requested && !upkeep.closed {
            let lock = "a panic under this lock stops the process";
            upkeep = shared.upkeep_work.wait(upkeep).expect(lock);
        }
        if upkeep.closed {
            return;
        }
    }
}

/// What the simulated disk and clock do to a task that drives the log.
pub trait Pace {
    /// Sleeps on the simulation's clock.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
    /// How long the next fsync takes.
    fn sync_latency(&self) -> Duration;
}

/// Drives writer and maintenance in one task, without a thread, until the log is closed or fails.
/// Dropping the future is a crash: nothing is written on the way out.
pub async fn drive(mut core: WalCore, mut maintenance: Maintenance, pace: impl Pace) {
    loop {
        while maintenance.step() {}
        if core.is_stuck() {
            pace.sleep(ROOM_PAUSE).await;
            if core.has_ended() {
                return core.give_up().fire();
            }
            core.step().fire();
            continue;
        }
        let limit = core.has_idle_work();
        let (shared, next) = (core.shared.clone(), core.next_index());
        let work = WorkReady { shared, next, resting: !limit };
        let wake = if limit {
            match select(pin!(work), pin!(pace.sleep(IDLE_BEFORE_MARK))).await {
                Either::Left((wake, _)) => wake,
                Either::Right(_) => Wake::Idle,
            }
        } else {
            work.await
        };
        match wake {
            Wake::Work => {
                core.begin();
                pace.sleep(pace.sync_latency()).await;
                core.finish().fire();
            }
            Wake::Idle => core.idle().fire(),
            Wake::Upkeep => {}
            Wake::Closed => {
                core.idle().fire();
                return core.give_up().fire();
            }
        }
    }
}

struct WorkReady {
    shared: Arc<Shared>,
    next: u64,
    resting: bool,
}

impl Future for WorkReady {
    type Output = Wake;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Wake> {
        let mut queue = self.shared.queue();
        if queue.wants_write() {
            return Poll::Ready(Wake::Work);
        }
        if queue.closed || queue.failure.is_some() {
            return Poll::Ready(Wake::Closed);
        }
        if self.resting && queue.has_riders(self.next) {
            return Poll::Ready(Wake::Idle);
        }
        if self.shared.upkeep().requested {
            return Poll::Ready(Wake::Upkeep);
        }
        queue.sleep = if self.resting { Sleep::Deep } else { Sleep::Light };
        queue.writer = Some(context.waker().clone());
        Poll::Pending
    }
}
