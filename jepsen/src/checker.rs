//! The judge. Revisions order all writes, so linearizability needs no search:
//!
//! * every acknowledged write stands in the store's own history, at the revision it was given;
//! * no write that was refused does, and no other twice;
//! * a write's revision is above, and a read's at or above, every revision that any client had
//!   been shown before the request was sent;
//! * a read shows the newest version at or below its revision, and a guarded write found what it
//!   expected;
//! * each watcher saw the store's history from its beginning, without gap, repeat or disorder.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Change, History, Operation, Outcome, Record, Seen};

/// At most so many violations are described; the rest are counted.
const DESCRIBED_MAX: usize = 20;

/// What the judge found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// A sentence for each violation, at most [`DESCRIBED_MAX`].
    pub violations: Vec<String>,
    /// How many there were in all.
    pub count: usize,
}

impl Verdict {
    fn add(&mut self, violation: String) {
        self.count += 1;
        if self.violations.len() < DESCRIBED_MAX {
            self.violations.push(violation);
        }
    }
}

/// Judges a whole history.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let versions = Versions::new(&history.changes, &mut verdict);
    check_writes(history, &mut verdict);
    check_real_time(&history.records, &mut verdict);
    for record in &history.records {
        check_values(record, &versions, &mut verdict);
    }
    for (number, watched) in history.watched.iter().enumerate() {
        check_watch(number, watched, &history.changes, &mut verdict);
    }
    verdict
}

/// The versions of each key, by the revision that wrote them.
struct Versions(HashMap<u64, BTreeMap<i64, u64>>);

impl Versions {
    fn new(changes: &[Change], verdict: &mut Verdict) -> Self {
        let mut versions: HashMap<u64, BTreeMap<i64, u64>> = HashMap::new();
        let mut previous = 0;
        for change in changes {
            if change.revision <= previous {
                verdict.add(format!("the history goes back from {previous} at {change:?}"));
            }
            previous = change.revision;
            versions.entry(change.key).or_default().insert(change.revision, change.value);
        }
        Self(versions)
    }

    /// The version of `key` that a read at `revision` must show.
    fn at(&self, key: u64, revision: i64) -> Option<Seen> {
        let (mod_revision, value) = self.0.get(&key)?.range(..=revision).next_back()?;
        Some(Seen { value: *value, mod_revision: *mod_revision })
    }
}

fn check_writes(history: &History, verdict: &mut Verdict) {
    let mut by_value: HashMap<u64, Change> = HashMap::new();
    for change in &history.changes {
        if let Some(first) = by_value.insert(change.value, *change) {
            verdict.add(format!("one write happened twice: {first:?} and {change:?}"));
        }
    }
    let mut sent = HashSet::new();
    for record in &history.records {
        let (Operation::Put { key, value } | Operation::CompareAndSet { key, value, .. }) =
            record.operation
        else {
            continue;
        };
        sent.insert(value);
        let found = by_value.get(&value);
        match record.outcome {
            Outcome::Written { revision } => {
                if found != Some(&Change { revision, key, value }) {
                    verdict.add(format!("acknowledged write lost: {record:?}, found {found:?}"));
                }
            }
            Outcome::Failed | Outcome::Conflict { .. } => {
                if found.is_some() {
                    verdict.add(format!("refused write happened: {record:?}, found {found:?}"));
                }
            }
            Outcome::Unknown | Outcome::Read { .. } => {}
        }
    }
    for change in history.changes.iter().filter(|change| !sent.contains(&change.value)) {
        verdict.add(format!("nobody sent {change:?}"));
    }
}

/// Sweeps over all requests in the order of time.
fn check_real_time(records: &[Record], verdict: &mut Verdict) {
    let mut completions: Vec<(u64, i64)> =
        records.iter().filter_map(|r| Some((r.completed, r.outcome.revision()?))).collect();
    completions.sort_unstable();
    let mut invocations: Vec<&Record> = records.iter().collect();
    invocations.sort_unstable_by_key(|record| record.invoked);
    let mut completions = completions.into_iter().peekable();
    let mut shown = 0;
    for record in invocations {
        while let Some((_, revision)) = completions.next_if(|(at, _)| *at < record.invoked) {
            shown = shown.max(revision);
        }
        let Some(revision) = record.outcome.revision() else { continue };
        let stale = match record.outcome {
            Outcome::Written { .. } => revision <= shown,
            _ => revision < shown,
        };
        if stale {
            verdict.add(format!("revision {shown} had been shown before {record:?} was sent"));
        }
    }
}

fn check_values(record: &Record, versions: &Versions, verdict: &mut Verdict) {
    match (record.operation, record.outcome) {
        (Operation::Get { key }, Outcome::Read { revision, seen }) => {
            let expected = versions.at(key, revision);
            if seen != expected {
                verdict.add(format!("wrong read {record:?}, the store had {expected:?}"));
            }
        }
        (
            Operation::CompareAndSet { key, expected, .. },
            Outcome::Written { revision } | Outcome::Conflict { revision },
        ) => {
            let written = matches!(record.outcome, Outcome::Written { .. });
            let before = if written { revision - 1 } else { revision };
            let found = versions.at(key, before).map_or(0, |seen| seen.mod_revision);
            if (found == expected) != written {
                verdict.add(format!("wrong guard {record:?}, the store had revision {found}"));
            }
        }
        _ => {}
    }
}

fn check_watch(number: usize, watched: &[Change], changes: &[Change], verdict: &mut Verdict) {
    let same = watched.iter().zip(changes).take_while(|(seen, real)| seen == real).count();
    // A watcher may have stopped before the last changes, but may not have seen others.
    if same < watched.len() {
        verdict.add(format!(
            "watcher {number} saw {:?} where the store had {:?}",
            watched[same],
            changes.get(same)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(operation: Operation, invoked: u64, completed: u64, outcome: Outcome) -> Record {
        Record { client: 0, operation, invoked, completed, outcome }
    }

    fn put(key: u64, value: u64, invoked: u64, outcome: Outcome) -> Record {
        record(Operation::Put { key, value }, invoked, invoked + 5, outcome)
    }

    /// Two acknowledged writes and a read between them, all in order.
    fn sound() -> History {
        History {
            records: vec![
                put(1, 100, 0, Outcome::Written { revision: 2 }),
                record(
                    Operation::Get { key: 1 },
                    10,
                    15,
                    Outcome::Read { revision: 2, seen: Some(Seen { value: 100, mod_revision: 2 }) },
                ),
                put(1, 101, 20, Outcome::Written { revision: 3 }),
            ],
            changes: vec![
                Change { revision: 2, key: 1, value: 100 },
                Change { revision: 3, key: 1, value: 101 },
            ],
            watched: vec![vec![Change { revision: 2, key: 1, value: 100 }]],
        }
    }

    fn assert_violation(history: &History, words: &str) {
        let verdict = check(history);
        assert!(verdict.violations.iter().any(|v| v.contains(words)), "{verdict:?}");
    }

    #[test]
    fn a_sound_history_passes() {
        assert_eq!(check(&sound()).violations, Vec::<String>::new());
    }

    #[test]
    fn a_lost_acknowledgement_is_found() {
        let mut history = sound();
        history.changes.pop();
        assert_violation(&history, "acknowledged write lost");
    }

    #[test]
    fn a_refused_write_that_happened_is_found() {
        let mut history = sound();
        history.records[2].outcome = Outcome::Failed;
        assert_violation(&history, "refused write happened");
    }

    #[test]
    fn a_write_applied_twice_is_found() {
        let mut history = sound();
        history.changes.push(Change { revision: 4, key: 1, value: 101 });
        assert_violation(&history, "happened twice");
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut history = sound();
        history.records[1].invoked = 30;
        history.records[1].completed = 35;
        assert_violation(&history, "revision 3 had been shown");
    }

    #[test]
    fn a_read_of_a_wrong_version_is_found() {
        let mut history = sound();
        history.records[1].outcome = Outcome::Read { revision: 2, seen: None };
        assert_violation(&history, "wrong read");
    }

    #[test]
    fn a_guard_that_held_wrongly_is_found() {
        let mut history = sound();
        history.records[2].operation = Operation::CompareAndSet { key: 1, expected: 1, value: 101 };
        assert_violation(&history, "wrong guard");
    }

    #[test]
    fn a_gap_in_a_watch_is_found() {
        let mut history = sound();
        history.watched[0] = vec![history.changes[1]];
        assert_violation(&history, "watcher 0 saw");
    }
}
