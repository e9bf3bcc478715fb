//! The log against a vector: any order of appends, truncations, purges, votes, writes and
//! reopenings, and any range read.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    Append { count: u64, length: usize, raise: bool },
    Truncate { keep: usize },
    Purge { count: usize, beyond: u64 },
    Vote,
    Commit { at: usize },
    Step,
    Idle,
    Upkeep,
    Read { from: u64, count: u64, bytes: u64 },
    Reopen,
}

fn operations() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        6 => (1..6u64, 0..1500usize, any::<bool>())
            .prop_map(|(count, length, raise)| Append { count, length, raise }),
        1 => (0..40usize).prop_map(|keep| Truncate { keep }),
        1 => (0..30usize, prop_oneof![4 => Just(0u64), 1 => 1..10u64])
            .prop_map(|(count, beyond)| Purge { count, beyond }),
        1 => Just(Vote),
        1 => (0..40usize).prop_map(|at| Commit { at }),
        4 => Just(Step),
        1 => Just(Idle),
        1 => Just(Upkeep),
        3 => (0..60u64, 0..30u64, 0..5000u64)
            .prop_map(|(from, count, bytes)| Read { from, count, bytes }),
        1 => Just(Reopen),
    ]
}

struct Pair {
    log: Harness,
    model: Model,
    committed: Option<LogId>,
}

impl Pair {
    fn operate(&mut self, operation: &Operation) {
        match *operation {
            Operation::Append { count, length, raise } => self.append(count, length, raise),
            Operation::Truncate { keep } => {
                // What is committed is never truncated.
                let committed = self.committed.map_or(0, |committed| committed.index + 1);
                let held = self.model.entries.iter().map(|entry| entry.id.index);
                let keep = keep.max(held.filter(|index| *index < committed).count());
                let at = keep.min(self.model.entries.len()).checked_sub(1);
                let after = at.map(|at| self.model.entries[at].id).or(self.model.purged);
                self.log.wal.truncate_after(after).unwrap();
                self.model.truncate(after);
            }
            Operation::Purge { count, beyond } => self.purge(count, beyond),
            Operation::Vote => {
                self.log.vote(7);
                self.model.vote = Some(super::Vote { term: 7, node: Some(1), committed: false });
            }
            Operation::Commit { at } => {
                if let Some(entry) = self.model.entries.get(at) {
                    self.log.wal.save_committed(entry.id).unwrap();
                    self.committed = Some(entry.id);
                }
            }
            Operation::Step => self.log.step(),
            Operation::Idle => self.log.idle(),
            Operation::Upkeep => while self.log.maintenance.step() {},
            Operation::Read { from, count, bytes } => self.read(from, count, bytes),
            Operation::Reopen => self.reopen(),
        }
        assert_eq!(self.log.wal.state().last, self.model.last());
    }

    fn append(&mut self, count: u64, length: usize, raise: bool) {
        let last = self.model.last();
        let (term, next) = last.map_or((1, 0), |last| (last.term, last.index + 1));
        let term = term + u64::from(raise);
        let entries: Vec<_> =
            (next..next + count).map(|index| entry(term, index, length)).collect();
        self.log.append(entries.clone());
        self.model.entries.extend(entries);
    }

    fn purge(&mut self, count: usize, beyond: u64) {
        let Some(mut upto) = self.model.last() else { return };
        match self.model.entries.get(count) {
            Some(entry) if beyond == 0 => upto = entry.id,
            _ => upto.index += beyond,
        }
        self.log.wal.purge(upto).unwrap();
        self.log.wal.allow_removal_below(upto.index + 1);
        self.model.purge(upto);
    }

    fn read(&mut self, from: u64, count: u64, bytes: u64) {
        let all = self.model.range(from..from + count);
        assert_eq!(self.log.wal.entries(from, from + count).unwrap(), all);
        let limited = self.log.wal.entries_limited(from, from + count, bytes).unwrap();
        assert_eq!(limited[..], all[..limited.len()]);
        let cost = |entries: &[Entry]| entries.iter().map(Entry::cost).sum::<u64>();
        assert_eq!(limited.is_empty(), all.is_empty());
        assert!(limited.len() <= 1 || cost(&limited) <= bytes);
        let one_more = &all[..(limited.len() + 1).min(all.len())];
        assert!(one_more.len() == limited.len() || cost(one_more) > bytes);
    }

    /// Everything is written first, so nothing may be missing afterwards.
    fn reopen(&mut self) {
        self.log.vote(7);
        self.model.vote = Some(super::Vote { term: 7, node: Some(1), committed: false });
        while self.log.wal.unflushed().bytes > 0 {
            self.log.step();
        }
        let flushed = self.log.wal.flushed_index();
        assert_eq!(flushed, self.model.last().map(|last| last.index));
        assert_eq!(self.log.failed.lock().unwrap()[..], [] as [String; 0]);
        self.log = Harness::open(&self.log.files.power_cut()).unwrap();
        assert_eq!(Model::of(&self.log.wal), self.model);
        let last = self.model.last();
        let committed = self.committed.map(|committed| match last {
            Some(last) if last.index < committed.index => Some(last),
            _ => last.and(Some(committed)),
        });
        assert_eq!(self.log.wal.state().committed, committed.flatten());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector(operations in prop::collection::vec(operations(), 1..120)) {
        let log = Harness::open(&MemoryFiles::new(1)).unwrap();
        let mut pair = Pair { log, model: Model::default(), committed: None };
        for operation in &operations {
            pair.operate(operation);
        }
        pair.reopen();
        pair.read(0, 1000, 1000);
    }
}

#[test]
fn purged_segments_are_recycled_and_the_folder_stays_small() {
    let mut log = Harness::open(&MemoryFiles::new(1)).unwrap();
    for index in 0..400 {
        log.append([entry(1, index, 900)]);
        log.step();
        if let Some(upto) = (index % 10 == 0).then(|| index.checked_sub(5)).flatten() {
            log.wal.purge(id(1, upto)).unwrap();
            log.wal.allow_removal_below(upto + 1);
        }
        while log.maintenance.step() {}
    }
    let paths = log.files.paths();
    assert!(paths.len() <= 8, "{paths:?}");
    assert_eq!(Model::of(&open_on(&log.files).unwrap().wal), Model::of(&log.wal));
}

#[test]
fn nothing_is_removed_without_permission() {
    let mut log = Harness::open(&MemoryFiles::new(1)).unwrap();
    for index in 0..20 {
        log.append([entry(1, index, 900)]);
        log.step();
    }
    log.wal.purge(id(1, 15)).unwrap();
    log.append([entry(1, 20, 1)]);
    log.step();
    let segments = |log: &Harness| {
        let paths = log.files.paths();
        paths.iter().filter(|path| path.extension().is_some_and(|end| end == "wal")).count()
    };
    let before = segments(&log);
    while log.maintenance.step() {}
    assert_eq!(segments(&log), before);
    log.wal.allow_removal_below(8);
    while log.maintenance.step() {}
    let some = segments(&log);
    assert!(some < before);
    log.wal.allow_removal_below(u64::MAX);
    while log.maintenance.step() {}
    assert!(segments(&log) < some);
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let mut log = Harness::open(&MemoryFiles::new(1)).unwrap();
    for (index, length) in [100, 50_000, 100, 5_000_000, 100].into_iter().enumerate() {
        log.append([entry(1, index as u64, length)]);
    }
    while log.wal.unflushed().bytes > 0 {
        log.step();
    }
    let held = Model::of(&log.wal);
    assert_eq!(held.entries.len(), 5);
    assert_eq!(Model::of(&open_on(&log.files.power_cut()).unwrap().wal), held);
}
