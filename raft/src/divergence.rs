//! Whether members still hold the same: hashes of their histories are compared now and then.
//!
//! ```text
//! who asks   its own hash at a revision  -> asks every other member, with the entry it has applied
//! a peer     applies as much, hashes     <- hash, and the compacted revision it was made under
//! ```
//!
//! Only hashes made under one compacted revision compare: whoever has compacted in between, or
//! cannot be asked, is left out until the next time. Whom a majority of all members contradicts gets
//! CORRUPT raised in its name; where members differ and no majority agrees, it is raised for member
//! 0. Nothing is repaired, and only a client clears the alarm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::peer;
use holdfast_store::command::{Change, Command, RaiseAlarm};
use holdfast_store::{AlarmCause, AlarmKind, HashKv, ReadError};
use tokio::sync::Mutex;
use tonic::Request;

use crate::config::Workers;
use crate::peer::{Lane, Peers};
use crate::port::Port;
use crate::shared::Shared;
use crate::work::block;

/// How long a member may take to apply what is to be hashed.
const APPLY: Duration = Duration::from_secs(5);
/// How long a peer may take to answer: it may have to read everything from its disk.
const ANSWER: Duration = Duration::from_secs(120);
/// The same, while a member starts: nobody is served before.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How many periods pass at most before members are compared again after one compaction.
const PERIODS_MAX: u32 = 64;
/// For whom CORRUPT is raised when nobody can be named.
const NOBODY: u64 = 0;

/// Hashes this member's history, for itself and for its peers, once at a time.
pub(crate) struct Hasher {
    shared: Arc<Shared>,
    workers: Workers,
    busy: Arc<Mutex<()>>,
}

impl Hasher {
    pub(crate) fn new(shared: Arc<Shared>, workers: Workers) -> Self {
        Self { shared, workers, busy: Arc::default() }
    }

    /// The hash at `revision`, once entry `applied` is. None if there is none to be had.
    pub(crate) async fn hash(&self, revision: i64, applied: u64) -> Option<HashKv> {
        tokio::time::timeout(APPLY, self.shared.status.wait_applied(applied)).await.ok()?;
        let guard = self.busy.clone().lock_owned().await;
        let reader = self.shared.reader.clone();
        let hashed = block(self.workers, move || {
            let _one_at_a_time = guard;
            reader.hash_kv(revision)
        });
        match hashed.await.ok()? {
            Ok(hash) => Some(hash),
            Err(ReadError::Fatal(fatal)) => {
                self.shared.fail(fatal);
                None
            }
            // Compacted meanwhile.
            Err(_) => None,
        }
    }

    /// What a peer asks.
    pub(crate) async fn answer(&self, asked: peer::HashRequest) -> peer::HashResponse {
        match self.hash(asked.revision, asked.applied).await {
            None => peer::HashResponse::default(),
            Some(hash) => peer::HashResponse {
                found: true,
                hash: hash.hash,
                compact_revision: hash.compact_revision,
            },
        }
    }
}

/// A member and the hash of its history.
type Found = (u64, u32);

/// What a member is asked, how long, and under which compacted revision its answer compares.
struct Question {
    asked: peer::HashRequest,
    compact_revision: i64,
    patience: Duration,
}

/// Compares members.
#[derive(Clone)]
pub(crate) struct Inspector {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    hasher: Arc<Hasher>,
}

/// What a comparison has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All members hold the same.
    Same,
    /// Those that could be compared do.
    SameSoFar,
    /// Some do not.
    Different,
}

/// When to compare again after a compaction, as long as not all members are found to hold the same:
/// after 1 period, 2, 4 and so on. It takes everybody a reading of everything, and the member that is
/// missing may be away for days.
#[derive(Default)]
struct Attempts {
    compacted: i64,
    wait: u32,
    left: u32,
}

impl Attempts {
    /// Asked once in a period.
    fn is_due(&mut self, compacted: i64) -> bool {
        if self.compacted != compacted {
            *self = Self { compacted, wait: 0, left: 0 };
        }
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.left = self.wait;
        self.wait = (2 * self.wait + 1).min(PERIODS_MAX - 1);
        true
    }
}

impl Inspector {
    pub(crate) fn new(shared: Arc<Shared>, peers: Arc<Peers>, hasher: Arc<Hasher>) -> Self {
        Self { shared, peers, hasher }
    }

    /// Compares the newest revision every so often while this member leads, until the node stops
    /// and drops it.
    pub(crate) async fn compare_newest(self, port: Port, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if self.leads() {
                self.compare(&port, self.shared.reader.revision()).await;
            }
        }
    }

    /// Looks every so often for a compaction after which members have not been compared, and
    /// compares what it has left.
    pub(crate) async fn compare_compacted(self, port: Port, every: Duration) {
        let mut compared = None;
        let mut attempts = Attempts::default();
        loop {
            tokio::time::sleep(every).await;
            let compacted = self.shared.reader.compacted();
            if compacted < 1 || compared == Some(compacted) || !self.leads() {
                continue;
            }
            if !attempts.is_due(compacted) {
                continue;
            }
            if self.compare(&port, compacted).await == Some(Verdict::Same) {
                compared = Some(compacted);
                tracing::info!(revision = compacted, "finished compaction hash check");
            }
        }
    }

    /// Compares this member with its peers before it serves anybody: false if one of them differs
    /// and no majority holds the same as this member. Who cannot be asked in time does not count.
    pub(crate) async fn agrees_with_peers(&self) -> bool {
        let revision = self.shared.reader.revision();
        tracing::info!(revision, patience = ?FIRST_ANSWER, "starting initial corruption check");
        let Some(found) = self.ask_all(revision, FIRST_ANSWER).await else {
            return true;
        };
        let blamed = self.blamed(&found);
        let me = self.shared.identity.member_id;
        let agrees = !blamed.contains(&me) && !blamed.contains(&NOBODY);
        // Where it does not, who differs has been said.
        if agrees {
            tell_passed(found.len(), self.members());
        }
        agrees
    }

    fn leads(&self) -> bool {
        self.shared.status.snapshot().is_leader
    }

    async fn compare(&self, port: &Port, revision: i64) -> Option<Verdict> {
        let found = self.ask_all(revision, ANSWER).await?;
        let blamed = self.blamed(&found);
        for member in &blamed {
            self.raise(port, *member).await;
        }
        Some(match blamed.is_empty() {
            false => Verdict::Different,
            true if found.len() == self.members() => Verdict::Same,
            true => Verdict::SameSoFar,
        })
    }

    fn members(&self) -> usize {
        self.shared.membership().nodes().count()
    }

    fn blamed(&self, found: &[Found]) -> Vec<u64> {
        let blamed = blame(found, self.members());
        if !blamed.is_empty() {
            let hashes: Vec<_> = found.iter().map(|(m, h)| format!("{m:x}: {h:08x}")).collect();
            tracing::error!(?hashes, "found data inconsistency between members");
        }
        blamed
    }

    /// The hashes of all members that can be compared with this one's, which comes first. None if
    /// it has none itself. Who is left out is named in the log, and nowhere else.
    async fn ask_all(&self, revision: i64, patience: Duration) -> Option<Vec<Found>> {
        let me = self.shared.identity.member_id;
        let Some(own) = self.hasher.hash(revision, 0).await else {
            tracing::warn!(
                revision,
                "members are not compared: this one has no hash of the revision"
            );
            return None;
        };
        // Read late: what is hashed has been applied by now.
        let applied = self.shared.status.applied_index();
        let asked = peer::HashRequest { revision: own.hash_revision, applied };
        let question = Question { asked, compact_revision: own.compact_revision, patience };
        let membership = self.shared.membership();
        let others = membership.nodes().filter(|(member, _)| **member != me);
        let answers =
            others.map(|(member, node)| self.compared(*member, &node.peer_urls, &question));
        let answers = join_all(answers).await;
        Some(std::iter::once((me, own.hash)).chain(answers.into_iter().flatten()).collect())
    }

    async fn compared(&self, member: u64, urls: &[String], question: &Question) -> Option<Found> {
        match self.ask(member, urls, question).await {
            Ok(hash) => Some((member, hash)),
            Err(reason) => {
                let revision = question.asked.revision;
                tracing::warn!(
                    member = format_args!("{member:x}"),
                    ?urls,
                    revision,
                    reason,
                    "a member is not compared"
                );
                None
            }
        }
    }

    async fn ask(&self, member: u64, urls: &[String], question: &Question) -> Result<u32, String> {
        let mut request = Request::new(question.asked);
        self.peers.gate().sign(&mut request, member);
        let mut client = self.peers.client(member, urls, Lane::Pulse);
        let answer = tokio::time::timeout(question.patience, client.hash(request)).await;
        let answer = answer.map_err(|_| format!("no answer within {:?}", question.patience))?;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        comparable(answer, question.compact_revision)
    }

    /// Raises CORRUPT unless it is raised for this reason already.
    async fn raise(&self, port: &Port, member: u64) {
        let is_raised = self.shared.reader.alarms().iter().any(|alarm| {
            (alarm.kind, alarm.member) == (AlarmKind::Corrupt, member)
                && alarm.has_cause(AlarmCause::Check)
        });
        if is_raised {
            return;
        }
        let (kind, cause) = (AlarmKind::Corrupt as i32, AlarmCause::Check as i32);
        let raise = Change::RaiseAlarm(RaiseAlarm { kind, member, cause });
        // What fails is tried again with the next comparison.
        if let Err(error) = port.propose(Command::from(raise)).await {
            tracing::error!(%error, "CORRUPT is not raised yet");
        }
    }
}

/// Says what a member that starts relies on.
fn tell_passed(compared: usize, members: usize) {
    if compared == members {
        tracing::info!(compared, members, "initial corruption checking passed; no corruption");
    } else {
        let what = "initial corruption checking passed, but not all members were compared";
        tracing::warn!(compared, members, "{what}");
    }
}

/// The hash that a member answers, or why it says nothing of one made under this compacted revision.
fn comparable(answer: peer::HashResponse, compact_revision: i64) -> Result<u32, String> {
    if !answer.found {
        return Err("it has no hash: it is behind, or has compacted the revision".to_owned());
    }
    if answer.compact_revision != compact_revision {
        let other = answer.compact_revision;
        return Err(format!(
            "its compacted revision is {other}, and this member's {compact_revision}"
        ));
    }
    Ok(answer.hash)
}

/// Whom to raise the alarm for, by the hashes of some of so many members: those that a majority
/// contradicts, or nobody by name.
fn blame(found: &[Found], members: usize) -> Vec<u64> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for (_, hash) in found {
        *counts.entry(*hash).or_default() += 1;
    }
    if counts.len() < 2 {
        return Vec::new();
    }
    match counts.into_iter().find(|(_, count)| *count > members / 2) {
        Some((majority, _)) => {
            found.iter().filter(|(_, hash)| *hash != majority).map(|(member, _)| *member).collect()
        }
        None => vec![NOBODY],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_away_is_not_waited_for_in_every_period() {
        let mut attempts = Attempts::default();
        let due: Vec<_> = (0..16).filter(|_| attempts.is_due(7)).collect();
        assert_eq!(due, [0, 1, 3, 7, 15]);
        assert!(attempts.is_due(8), "another compaction");
        let due = (0..64 * 100).filter(|_| attempts.is_due(8)).count();
        assert!((100..110).contains(&due), "{due}");
    }

    #[test]
    fn who_cannot_be_compared_is_left_out_for_a_reason() {
        let answer =
            |found, compact_revision| peer::HashResponse { found, hash: 7, compact_revision };
        assert_eq!(comparable(answer(true, 5), 5), Ok(7));
        let other = comparable(answer(true, 4), 5).expect_err("made of another history");
        assert!(other.contains("compacted revision is 4"), "{other}");
        let none = comparable(answer(false, 5), 5).expect_err("there is none");
        assert!(none.contains("no hash"), "{none}");
    }

    #[test]
    fn a_majority_names_who_differs() {
        assert_eq!(blame(&[(1, 7)], 1), []);
        assert_eq!(blame(&[(1, 7), (2, 7), (3, 7)], 3), []);
        assert_eq!(blame(&[(1, 7), (2, 8), (3, 7)], 3), [2]);
        assert_eq!(blame(&[(1, 6), (2, 7), (3, 7)], 3), [1], "who asks is no better");
        assert_eq!(blame(&[(1, 7), (2, 7), (3, 8), (4, 9), (5, 7)], 5), [3, 4]);
    }

    #[test]
    fn without_a_majority_nobody_is_named() {
        assert_eq!(blame(&[(1, 7), (2, 8)], 2), [NOBODY]);
        assert_eq!(blame(&[(1, 7), (2, 8)], 3), [NOBODY], "one was not asked");
        assert_eq!(blame(&[(1, 7), (2, 7), (3, 8)], 5), [NOBODY], "two are no majority of five");
        assert_eq!(blame(&[(1, 7), (2, 7)], 5), []);
    }
}
