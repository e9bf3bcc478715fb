//! The keeper of what lies on disk below the log: seals blocks, compacts, takes checkpoints.
//!
//! One thread owns the store's maintainer and does its work in bounded steps; between two steps it
//! answers questions. It persists only what the log has flushed, so that the disk never knows more
//! than the log does. A checkpoint of what the log has no room for waits, and the keeper goes on: it may
//! be what gives some.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_store::{
    Export, Fatal, Frozen, Held, MANIFESTS_KEPT, Maintainer, ManifestInfo, Receiving, Taken, Worked,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::apply::Applier;
use crate::log_facts::LogFacts;
use crate::room::Room;
use crate::shared::Shared;
use crate::wal::limits::SHORT_SEGMENT_BYTES;
use crate::work::Actor;

/// Questions that wait for the keeper.
const QUEUE: usize = 16;
/// How long the keeper sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_millis(100);
/// A checkpoint is due after so many bytes of log,
const DUE_BYTES: u64 = 64 << 20;
/// (with little room already after this part of the file system)
const SEGMENT_SHARE: u64 = 32;
/// or after so long,
const DUE_AFTER: Duration = Duration::from_secs(300);
/// or after `--snapshot-count` entries if that is below its default; and always,
const COUNT_DEFAULT: u64 = 10_000;
/// after so many bytes of log however few the entries, since all of it is read at a start,
const GROWTH_BYTES_MAX: u64 = 256 << 20;
/// and after this part of its file system: what is written fast would fill the rest before a second
/// checkpoint lets go of what came before the first.
const GROWTH_SHARE: u64 = 16;

/// How often the state may move on under a checkpoint before it waits for its next turn.
const TAKE_ATTEMPTS: usize = 3;
/// After a checkpoint that could not be taken: every attempt costs a disk that may be full, and the
/// applier's time.
const TAKE_PAUSE: Duration = Duration::from_secs(10);
/// How long everything else waits for the log to be flushed as far as a checkpoint goes: without room
/// that may take until somebody frees some.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// The same for the one after a checkpoint that came too late: otherwise each might, where the log
/// is slow and compactions are many.
const FLUSH_WAIT_AGAIN: Duration = Duration::from_secs(30);
/// The same where somebody can do nothing without the checkpoint.
const FLUSH_WAIT_ASKED: Duration = Duration::MAX;
/// Between checkpoints while the file system has little room: each lets go of something.
const LITTLE_PAUSE: Duration = Duration::from_millis(500);
/// The same where there is twice as much: nothing waits for it.
const ENOUGH_PAUSE: Duration = Duration::from_secs(5);

/// How long a node that stops waits for a checkpoint that is being taken.
const STOP: Duration = Duration::from_secs(5);

enum Question {
    Export(oneshot::Sender<Result<Option<Export>, Fatal>>),
    Take(oneshot::Sender<Result<(), Fatal>>),
    Receive(Bytes, oneshot::Sender<Result<Receiving, Fatal>>),
    Installed(oneshot::Sender<Result<(), Fatal>>),
    Stop(oneshot::Sender<Result<(), Fatal>>),
}

/// The way to the keeper.
#[derive(Clone)]
pub(crate) struct Keeper {
    questions: mpsc::Sender<Question>,
    taken: watch::Receiver<Vec<ManifestInfo>>,
    log: LogFacts,
}

impl Keeper {
    /// A keeper, and the loop to run apart.
    pub(crate) fn new(parts: KeeperParts) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (questions, queue) = mpsc::channel(QUEUE);
        let (sender, taken) = watch::channel(parts.maintainer.manifests());
        let shared = parts.shared.clone();
        let log = parts.log.clone();
        let work = Work {
            last_bytes: parts.log.bytes(),
            last_taken: Instant::now(),
            not_before: Instant::now(),
            giving: 0,
            given_up: 0,
            unflushed: None,
            parts,
            queue,
            taken: sender,
        };
        let run = async move {
            if let Err(fatal) = work.run().await {
                shared.fail(fatal);
            }
        };
        (Self { questions, taken, log }, run)
    }

    /// Bytes that the log has made durable since it was opened.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The checkpoints there are, oldest first, with every change.
    pub(crate) fn taken(&self) -> watch::Receiver<Vec<ManifestInfo>> {
        self.taken.clone()
    }

    /// The newest checkpoint, pinned; none before there is one.
    pub(crate) async fn export(&self) -> Result<Option<Export>, Fatal> {
        self.ask(Question::Export).await
    }

    /// Takes a checkpoint now.
    pub(crate) async fn take(&self) -> Result<(), Fatal> {
        self.ask(Question::Take).await
    }

    /// Prepares to receive the checkpoint of `manifest`.
    pub(crate) async fn receive(&self, manifest: Bytes) -> Result<Receiving, Fatal> {
        self.ask(|answer| Question::Receive(manifest, answer)).await
    }

    /// A received checkpoint has become the state.
    pub(crate) async fn installed(&self) -> Result<(), Fatal> {
        self.ask(Question::Installed).await
    }

    /// Returns once the keeper has let go of everything on disk, or takes long over it.
    pub(crate) async fn stop(&self) {
        // One that has stopped by itself has let go too.
        let _ = tokio::time::timeout(STOP, self.ask(Question::Stop)).await;
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, Fatal>>) -> Question,
    ) -> Result<T, Fatal> {
        let gone = || Fatal::new("the keeper of checkpoints has stopped");
        let (answer, result) = oneshot::channel();
        self.questions.send(question(answer)).await.map_err(|_| gone())?;
        result.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// What the keeper works with.
pub(crate) struct KeeperParts {
    pub(crate) maintainer: Maintainer,
    pub(crate) applier: Actor<Applier>,
    pub(crate) log: LogFacts,
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot_count: u64,
    /// A planted fault: how far the log has been flushed is not asked.
    pub(crate) skip_flushed_comparison: bool,
}

struct Work {
    parts: KeeperParts,
    queue: mpsc::Receiver<Question>,
    taken: watch::Sender<Vec<ManifestInfo>>,
    last_taken: Instant,
    last_bytes: u64,
    /// Of the next checkpoint that nobody asks for.
    not_before: Instant,
    /// How many more checkpoints may give something back that only older ones need.
    giving: usize,
    /// The bytes that had been given up when that was last found worth checkpoints.
    given_up: u64,
    /// What a checkpoint is to be taken of as soon as the log has been flushed that far.
    unflushed: Option<Frozen>,
}

/// What is left is for the log, and for a checkpoint that gives something back.
fn held(room: Room) -> Held {
    match room {
        Room::Dregs | Room::Least => Held::Writes,
        Room::Last => Held::Seals,
        Room::Short | Room::Little => Held::Eighths,
        // Many file systems are always this full, and moving the rest costs as much as it gives.
        Room::Enough => Held::Quarters,
        Room::Ample => Held::Nothing,
    }
}

impl Work {
    /// Ends when it is told to, or the last handle is gone.
    async fn run(mut self) -> Result<(), Fatal> {
        loop {
            let gauge = &self.parts.shared.gauge;
            self.parts.maintainer.hold_back(held(gauge.look()), gauge.moved_max());
            let started = Instant::now();
            let worked = self.parts.maintainer.step(self.parts.log.flushed())?;
            if worked == Worked::Something {
                self.parts.shared.counts.commit.observe(started.elapsed());
            }
            self.look_at_room();
            if self.is_due() {
                self.take(FLUSH_WAIT).await?;
            }
            let pause = match worked {
                Worked::Something => Duration::ZERO,
                Worked::Nothing | Worked::Paused => IDLE,
            };
            match tokio::time::timeout(pause, self.queue.recv()).await {
                Ok(Some(Question::Stop(answer))) => {
                    drop(self);
                    let _ = answer.send(Ok(()));
                    return Ok(());
                }
                Ok(Some(question)) => self.answer(question).await?,
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
        }
    }

    fn is_due(&self) -> bool {
        if let Some(frozen) = &self.unflushed {
            return self.parts.log.flushed() >= frozen.position.index;
        }
        let newest = self.taken.borrow().last().map_or(0, |info| info.position.index);
        let entries = self.parts.shared.status.applied_index().saturating_sub(newest);
        if entries == 0 || Instant::now() < self.not_before {
            return false;
        }
        let pause = match self.parts.shared.gauge.room() {
            Room::Ample => None,
            Room::Enough => Some(ENOUGH_PAUSE),
            _ => Some(LITTLE_PAUSE),
        };
        if self.giving > 0 && pause.is_some_and(|pause| self.last_taken.elapsed() >= pause) {
            return true;
        }
        let growth = self.growth();
        if growth >= GROWTH_BYTES_MAX.min(self.parts.shared.gauge.total() / GROWTH_SHARE) {
            return true;
        }
        if entries < self.parts.snapshot_count.max(1) {
            return false;
        }
        self.parts.snapshot_count < COUNT_DEFAULT
            || growth >= DUE_BYTES
            || self.last_taken.elapsed() >= DUE_AFTER
    }

    /// Bytes of log since the last checkpoint.
    fn growth(&self) -> u64 {
        self.parts.log.bytes().saturating_sub(self.last_bytes)
    }

    /// Says whether another checkpoint would give room back that there is too little of.
    fn look_at_room(&mut self) {
        let gauge = &self.parts.shared.gauge;
        let room = gauge.room();
        let is_little = room <= Room::Little;
        let segment = if is_little { SHORT_SEGMENT_BYTES } else { DUE_BYTES };
        let segment = segment.min(gauge.total() / SEGMENT_SHARE);
        // The log gives whole segments back, once there are checkpoints of what they hold.
        let has_grown = self.growth() >= segment;
        let given_up = self.parts.maintainer.given_up();
        let gives_back = match given_up - self.given_up {
            0 => false,
            // Where room is sought, everything that there is to give: all that was found at once.
            bytes => bytes >= segment || is_little && !self.parts.maintainer.is_searching(),
        };
        if has_grown || gives_back {
            self.giving = MANIFESTS_KEPT;
            self.given_up = given_up;
        }
        gauge.set_wants_entry(self.giving > 0 && room.is_pressed());
    }

    /// What the next checkpoint is of: what waited for the log, or else what is applied now.
    async fn freeze(&mut self) -> Result<Frozen, Fatal> {
        match self.unflushed.take() {
            Some(frozen) => Ok(frozen),
            None => self.parts.applier.call(|applier| applier.freeze()).await.map_err(Fatal::new),
        }
    }

    async fn take(&mut self, mut patience: Duration) -> Result<(), Fatal> {
        self.last_taken = Instant::now();
        for _ in 0..TAKE_ATTEMPTS {
            let has_waited = self.unflushed.is_some();
            let frozen = self.freeze().await?;
            if !self.parts.skip_flushed_comparison {
                let log = self.parts.log.clone();
                let flushed = log.wait_flushed(frozen.position.index);
                if tokio::time::timeout(patience, flushed).await.is_err() {
                    self.unflushed = Some(frozen);
                    return Ok(());
                }
            }
            let started = Instant::now();
            match self.parts.maintainer.take_manifest(frozen, self.parts.log.flushed())? {
                Taken::Manifest(info) => {
                    self.parts.shared.counts.commit.observe(started.elapsed());
                    let (index, revision) = (info.position.index, info.revision);
                    tracing::info!(index, revision, "took a checkpoint");
                    self.last_bytes = self.parts.log.bytes();
                    self.giving = self.giving.saturating_sub(1);
                    self.tell();
                    return Ok(());
                }
                Taken::Stale if has_waited => patience = patience.max(FLUSH_WAIT_AGAIN),
                Taken::Stale | Taken::NotFlushed => {}
                Taken::NoSpace => {
                    tracing::warn!("no space for a checkpoint; the log keeps growing");
                    break;
                }
            }
        }
        self.not_before = Instant::now() + TAKE_PAUSE;
        Ok(())
    }

    /// The newest checkpoint that reads back. When none does, the state in memory gives another.
    async fn export(&mut self) -> Result<Option<Export>, Fatal> {
        if self.parts.maintainer.manifests().is_empty() {
            return Ok(None);
        }
        if let Some(export) = self.parts.maintainer.checkpoints().export()? {
            return Ok(Some(export));
        }
        tracing::error!("no checkpoint on disk reads back; taking another");
        self.take(FLUSH_WAIT_ASKED).await?;
        self.parts.maintainer.export().map(Some)
    }

    fn tell(&self) {
        self.taken.send_replace(self.parts.maintainer.manifests());
    }

    async fn answer(&mut self, question: Question) -> Result<(), Fatal> {
        // A caller that is gone needs no answer.
        match question {
            Question::Export(answer) => {
                let result = self.export().await;
                let _ = answer.send(result);
            }
            Question::Take(answer) => {
                let result = self.take(FLUSH_WAIT_ASKED).await;
                let _ = answer.send(result.clone());
                result?;
            }
            Question::Receive(manifest, answer) => {
                let received = self.parts.maintainer.receive(manifest);
                let _ = answer.send(received.map_err(Fatal::new));
            }
            Question::Installed(answer) => {
                // What waited for the log is behind it.
                self.unflushed = None;
                self.tell();
                let _ = answer.send(Ok(()));
            }
            Question::Stop(_) => unreachable!("the loop ends with it"),
        }
        Ok(())
    }
}
