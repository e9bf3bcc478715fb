//! Both modes against a store of numbers, under a clock that is moved by hand.

use std::cell::{Cell, RefCell};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// One revision a minute since the start.
struct Numbers {
    start: Instant,
    leads: Cell<bool>,
    fails: Cell<bool>,
    /// When, and to which revision.
    compacted: RefCell<Vec<(u64, i64)>>,
}

impl Numbers {
    fn new() -> Self {
        let (leads, fails) = (Cell::new(true), Cell::new(false));
        Self { start: Instant::now(), leads, fails, compacted: RefCell::default() }
    }

    fn minutes(&self) -> u64 {
        self.start.elapsed().as_secs() / 60
    }

    fn take(&self) -> Vec<(u64, i64)> {
        self.compacted.take()
    }
}

impl Store for Numbers {
    fn revision(&self) -> i64 {
        self.minutes() as i64 + 1
    }

    fn leads(&self) -> bool {
        self.leads.get()
    }

    async fn compact(&self, revision: i64) -> Result<(), String> {
        self.compacted.borrow_mut().push((self.minutes(), revision));
        if self.fails.get() { Err("no leader".to_owned()) } else { Ok(()) }
    }
}

/// Goes on for so long.
async fn run_for(compactor: &mut (impl Future<Output = ()> + Unpin), minutes: u32) {
    let ended = tokio::time::timeout(MINUTE * minutes, compactor).await;
    assert!(ended.is_err(), "a compactor does not end");
}

#[tokio::test(start_paused = true)]
async fn a_short_period_is_the_interval_too() {
    let store = Numbers::new();
    let mut compactor = std::pin::pin!(by_period(&store, 10 * MINUTE));
    run_for(&mut compactor, 9).await;
    assert_eq!(store.take(), [], "nothing goes within the first period");
    run_for(&mut compactor, 22).await;
    assert_eq!(store.take(), [(10, 1), (20, 10), (30, 20)]);
}

#[tokio::test(start_paused = true)]
async fn a_long_period_is_waited_for_once_and_then_history_is_cut_every_hour() {
    let store = Numbers::new();
    let mut compactor = std::pin::pin!(by_period(&store, 180 * MINUTE));
    run_for(&mut compactor, 305).await;
    assert_eq!(store.take(), [(180, 1), (240, 55), (300, 115)]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_after_a_tenth_of_the_interval() {
    let store = Numbers::new();
    store.fails.set(true);
    let mut compactor = std::pin::pin!(by_period(&store, 60 * MINUTE));
    run_for(&mut compactor, 70).await;
    assert_eq!(store.take(), [(60, 1), (66, 1)]);
    store.fails.set(false);
    run_for(&mut compactor, 70).await;
    assert_eq!(store.take(), [(72, 7), (132, 67)]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_notes_and_compacts_once_it_leads() {
    let store = Numbers::new();
    store.leads.set(false);
    let mut compactor = std::pin::pin!(by_period(&store, 10 * MINUTE));
    run_for(&mut compactor, 34).await;
    assert_eq!(store.take(), []);
    store.leads.set(true);
    run_for(&mut compactor, 2).await;
    assert_eq!(store.take(), [(35, 25)]);
}

#[tokio::test(start_paused = true)]
async fn revisions_are_counted_every_five_minutes() {
    let store = Numbers::new();
    let mut compactor = std::pin::pin!(by_revision(&store, 7));
    run_for(&mut compactor, 11).await;
    assert_eq!(store.take(), [(10, 4)], "at five minutes there were only six");
    store.leads.set(false);
    run_for(&mut compactor, 5).await;
    assert_eq!(store.take(), []);
    store.leads.set(true);
    store.fails.set(true);
    run_for(&mut compactor, 5).await;
    store.fails.set(false);
    run_for(&mut compactor, 5).await;
    assert_eq!(store.take(), [(20, 14), (25, 19)]);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_changed_is_not_compacted_again() {
    let mut notes = Notes::new(10 * MINUTE, Instant::now());
    for _ in 0..30 {
        notes.note(5);
    }
    assert_eq!(notes.revisions.len(), 11);
    tokio::time::advance(11 * MINUTE).await;
    assert_eq!(notes.due(Instant::now()), Some(5));
    notes.compacted(5, Instant::now());
    tokio::time::advance(100 * MINUTE).await;
    assert_eq!(notes.due(Instant::now()), None);
}
