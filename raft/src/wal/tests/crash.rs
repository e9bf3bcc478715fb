//! Crashes at any moment: a power cut keeps any subset of unsynced sectors, a killed process keeps
//! the page cache, a failed sync forgets sectors that reads still show. Whatever happens, the log
//! comes back as it was after some operation, none of the confirmed ones missing.

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A run of operations, with all that the log has been.
struct Run {
    random: Random,
    log: Harness,
    model: Model,
    /// The log after each operation since it was opened; the first is as it was opened.
    history: Vec<Model>,
    /// Which of them was confirmed last.
    confirmed: Arc<Mutex<usize>>,
    context: String,
}

impl Run {
    fn new(seed: u64) -> Self {
        let log = Harness::open(&MemoryFiles::new(seed)).unwrap();
        let model = Model::of(&log.wal);
        let history = vec![model.clone()];
        let context = format!("seed {seed}");
        let confirmed = Arc::default();
        Self { random: Random(seed), log, model, history, confirmed, context }
    }

    /// Confirms the state that the operation under way leads to.
    fn completion(&self) -> Completion {
        let (confirmed, number) = (self.confirmed.clone(), self.history.len());
        Box::new(move |result| {
            if result.is_ok() {
                *confirmed.lock().unwrap() = number;
            }
        })
    }

    fn operate(&mut self) {
        let last = self.model.last();
        let (term, next) = last.map_or((1, 0), |last| (last.term, last.index + 1));
        match self.random.below(12) {
            0 => {
                let vote = Vote { term, node: Some(self.random.below(3)), committed: false };
                self.log.wal.save_vote(vote, self.completion()).unwrap();
                self.model.vote = Some(vote);
            }
            1 if !self.model.entries.is_empty() => self.truncate(),
            2 if !self.model.entries.is_empty() => self.purge(),
            3 => {
                last.map_or(Ok(()), |last| self.log.wal.save_committed(last)).unwrap();
            }
            _ => {
                let term = term + self.random.below(20) / 19;
                let count = 1 + self.random.below(3);
                let length = self.random.below(900) as usize;
                let entries: Vec<_> =
                    (next..next + count).map(|index| entry(term, index, length)).collect();
                self.log.wal.append(entries.clone(), self.completion()).unwrap();
                self.model.entries.extend(entries);
            }
        }
        self.history.push(self.model.clone());
    }

    fn truncate(&mut self) {
        let kept = self.random.below(self.model.entries.len() as u64) as usize;
        let after = kept.checked_sub(1).map(|at| self.model.entries[at].id).or(self.model.purged);
        self.log.wal.truncate_after(after).unwrap();
        self.model.truncate(after);
    }

    fn purge(&mut self) {
        let at = self.random.below(self.model.entries.len() as u64) as usize;
        let mut upto = self.model.entries[at].id;
        if self.random.below(10) == 0 {
            upto.index += 5;
        }
        if upto.index > self.model.last().unwrap().index {
            upto.term = self.model.last().unwrap().term;
        }
        self.log.wal.purge(upto).unwrap();
        self.model.purge(upto);
        self.log.wal.allow_removal_below(upto.index + 1);
    }

    fn drive(&mut self) {
        match self.random.below(8) {
            0 => self.log.idle(),
            1..5 => self.log.step(),
            5 => while self.log.maintenance.step() {},
            _ => {}
        }
    }

    /// Ends this life of the log at a random point of its writer's work.
    fn end(&mut self) {
        match self.random.below(4) {
            0 => self.log.idle(),
            1 => drop(self.log.core.begin()),
            2 => {
                // A sync fails; whoever waited learns it, and nothing is confirmed any more.
                self.log.files.fail_sync(1);
                let before = *self.confirmed.lock().unwrap();
                self.log.step();
                assert_eq!(*self.confirmed.lock().unwrap(), before, "{}", self.context);
                self.log.files.heal();
            }
            _ => {}
        }
    }

    /// Opens what is left, and finds which moment it is.
    fn reopen(&mut self, files: &MemoryFiles) {
        let log = Harness::open(files).unwrap_or_else(|error| panic!("{}: {error}", self.context));
        let found = Model::of(&log.wal);
        let confirmed = *self.confirmed.lock().unwrap();
        let position = self.history[confirmed..].iter().position(|model| *model == found);
        let Some(position) = position else {
            let last = self.history[confirmed].last();
            panic!("{}: {found:?} is none of those since {last:?}", self.context);
        };
        let committed = log.wal.state().committed;
        assert!(committed.is_none_or(|id| id.index < log.wal.state().next_index()));
        assert!(position + confirmed < self.history.len());
        self.log = log;
        self.model = found.clone();
        self.history = vec![found];
        self.confirmed = Arc::default();
    }
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    for life in 0..8 {
        run.context = format!("seed {seed}, life {life}");
        for _ in 0..run.random.below(40) {
            run.operate();
            run.drive();
        }
        run.end();
        let files = run.log.files.clone();
        if run.random.below(2) == 0 {
            run.reopen(&files.power_cut());
        } else {
            // Killed: the page cache survives, until the power goes too.
            run.reopen(&files);
            if run.random.below(2) == 0 {
                run.reopen(&files.power_cut());
            }
        }
    }
}

#[test]
fn a_log_comes_back_with_all_that_was_confirmed() {
    for seed in 0..400 {
        run(seed);
    }
}

#[test]
fn what_was_read_after_a_failed_sync_survives_a_power_cut() {
    for seed in 0..100 {
        let mut log = Harness::open(&MemoryFiles::new(seed)).unwrap();
        log.append([entry(1, 0, 300)]);
        log.step();
        log.append([entry(1, 1, 2000)]);
        log.files.fail_sync(1);
        log.step();
        assert_eq!((log.succeeded(), log.failed.lock().unwrap().len()), (1, 1));
        log.files.heal();
        let files = log.files.clone();
        let reported = Model::of(&open_on(&files).unwrap().wal);
        assert_eq!(reported.entries.len(), 2, "the page cache still shows it");
        let after = Model::of(&open_on(&files.power_cut()).unwrap().wal);
        assert_eq!(after, reported, "seed {seed}");
    }
}
