//! Something made of files, made again when they change.
//!
//! Whoever asks gets what the files held at most a second ago. Files that cannot be used, perhaps
//! because only half of them have been replaced yet, are logged and change nothing: the last good ones
//! stay in force, and the next second it is tried again, whether or not a file has changed since.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::TlsError;
use crate::throttle::Throttle;

/// How often files are looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is logged that they cannot be used, at most.
const COMPLAINT: Duration = Duration::from_secs(60);

type Make<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// What tells a file from its replacement: device, inode, size, time of change.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// A `T` made of files.
pub(super) struct Reloading<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    held: Mutex<Held<T>>,
}

struct Held<T> {
    made: Arc<T>,
    /// Of the files that it was made of.
    stamps: Vec<Stamp>,
    looked: Instant,
    complaint: Throttle,
}

impl<T> Reloading<T> {
    /// Makes it for the first time; then errors are the caller's.
    pub(super) fn start(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let complaint = Throttle::every(COMPLAINT);
        let held = Held { made: Arc::new(make()?), stamps, looked: Instant::now(), complaint };
        Ok(Self { files, make: Box::new(make), held: Mutex::new(held) })
    }

    /// What the files say now. Looks at them if nobody did within the last second, so it may block
    /// for a disk's time.
    pub(super) fn current(&self) -> Arc<T> {
        self.current_at(Instant::now())
    }

    fn current_at(&self, now: Instant) -> Arc<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(held.looked) < INTERVAL {
            return held.made.clone();
        }
        held.looked = now;
        // Before they are read: a change meanwhile is seen the next time.
        let stamps = stamps(&self.files);
        if stamps == held.stamps {
            return held.made.clone();
        }
        match (self.make)() {
            Ok(made) => {
                held.made = Arc::new(made);
                held.stamps = stamps;
                held.complaint = Throttle::every(COMPLAINT);
                tracing::info!(files = ?self.files, "TLS files have changed and are in force");
            }
            Err(error) if held.complaint.pass(now).is_some() => {
                tracing::error!(%error, "TLS files have changed and cannot be used; the last ones stay in force");
            }
            Err(_) => {}
        }
        held.made.clone()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.dev(), data.ino(), data.size(), data.ctime(), data.ctime_nsec()))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_change_is_seen_within_a_second_and_a_bad_one_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        std::fs::write(&path, "one").expect("written");
        let source = path.clone();
        let reloading = Reloading::start(vec![path.clone()], move || {
            let text = std::fs::read_to_string(&source).expect("it is there");
            if text == "bad" { Err(TlsError::NoAuthorities) } else { Ok(text) }
        });
        let reloading = reloading.expect("made");
        let mut now = Instant::now();
        assert_eq!(*reloading.current_at(now), "one");
        std::fs::write(&path, "three").expect("written");
        assert_eq!(*reloading.current_at(now), "one", "looked at a moment ago");
        now += INTERVAL;
        assert_eq!(*reloading.current_at(now), "three");
        std::fs::write(&path, "bad").expect("written");
        now += INTERVAL;
        assert_eq!(*reloading.current_at(now), "three");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "four").expect("written");
        now += INTERVAL;
        assert_eq!(*reloading.current_at(now), "four");
    }

    #[test]
    fn what_failed_for_another_reason_than_the_files_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        std::fs::write(&path, "one").expect("written");
        let out_of_descriptors = Arc::new(AtomicBool::new(false));
        let (source, fails) = (path.clone(), out_of_descriptors.clone());
        let reloading = Reloading::start(vec![path.clone()], move || {
            if fails.load(Ordering::Relaxed) {
                return Err(TlsError::NoAuthorities);
            }
            Ok(std::fs::read_to_string(&source).expect("it is there"))
        });
        let reloading = reloading.expect("made");
        std::fs::write(&path, "three").expect("written");
        out_of_descriptors.store(true, Ordering::Relaxed);
        let now = Instant::now() + INTERVAL;
        assert_eq!(*reloading.current_at(now), "one");
        out_of_descriptors.store(false, Ordering::Relaxed);
        assert_eq!(*reloading.current_at(now + INTERVAL), "three");
    }
}
