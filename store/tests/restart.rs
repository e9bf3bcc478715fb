//! A store that is stopped, cut off from power and given checkpoints ends where one ends that was
//! left alone.
//!
//! Every entry follows from a seed and its index, so a restarted store can be given again what came
//! after its checkpoint, as a log would. The yardstick is HashKV at the published revision, the
//! whole range then and at an older revision, and the leases.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::command::{
    Change, Command, Compact, DeleteRange, LEVEL_CURRENT, LeaseGrant, LeaseRevoke, Operation,
    OperationKind, Put, RaiseAlarm, Range, SetDowngrade, SetQuota, Txn,
};
use holdfast_store::files::memory::Unsynced;
use holdfast_store::files::{Files, MemoryFiles};
use holdfast_store::{
    Alarm, AlarmCause, AlarmKind, BackendKind, Context, Effort, LeaseInfo, Opened, Options,
    Position, Quota, ReadError, RecordBytes, Rejected, Response, Taken, Worked, open,
};

const DIRECTORY: &str = "/data";

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// Entry `index` of the log of `seed`.
fn command(seed: u64, index: u64) -> Command {
    let mut numbers = Numbers(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers.below(1);
    let change = match numbers.below(100) {
        0..70 => Change::Put(put(&mut numbers, index)),
        70..80 => {
            let first = numbers.below(40);
            let range_end = match numbers.below(2) {
                0 => Bytes::new(),
                _ => key(first + 5),
            };
            Change::DeleteRange(DeleteRange { key: key(first), range_end, prev_kv: false })
        }
        80..90 => {
            let mut operations: Vec<_> = (0..numbers.below(5))
                .map(|at| {
                    let put = Put { key: key(100 + at), ..put(&mut numbers, index) };
                    Operation { kind: Some(OperationKind::Put(put)) }
                })
                .collect();
            let range_end = key(60);
            let delete = DeleteRange { key: key(55), range_end, prev_kv: false };
            operations.push(Operation { kind: Some(OperationKind::DeleteRange(delete)) });
            Change::Txn(Txn { compare: Vec::new(), success: operations, failure: Vec::new() })
        }
        90..94 => {
            let id = 1 + numbers.below(4) as i64;
            Change::LeaseGrant(LeaseGrant { id, ttl: 60 })
        }
        94..97 => {
            let id = 1 + numbers.below(4) as i64;
            Change::LeaseRevoke(LeaseRevoke { id, decided_in_term: 0 })
        }
        // Some are in the future or compacted already, and are rejected alike everywhere.
        _ => Change::Compact(Compact {
            revision: (index / 2 + numbers.below(50)) as i64,
            ..Compact::default()
        }),
    };
    Command::from(change)
}

fn put(numbers: &mut Numbers, index: u64) -> Put {
    let lease = if numbers.below(5) == 0 { 1 + numbers.below(4) as i64 } else { 0 };
    let value = Bytes::from(vec![index as u8; numbers.below(200) as usize]);
    Put { key: key(numbers.below(60)), value, lease, ..Put::default() }
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key{number:03}"))
}

/// What two stores must agree on.
#[derive(Debug, PartialEq)]
struct Picture {
    revision: i64,
    compacted: i64,
    hash: u32,
    now: Vec<RecordBytes>,
    /// Half way between the compacted and the present revision.
    before: Vec<RecordBytes>,
    leases: Vec<LeaseInfo>,
    lease_keys: Vec<Vec<Bytes>>,
}

struct Member {
    seed: u64,
    files: MemoryFiles,
    incarnation: u64,
    store: Opened,
}

impl Member {
    fn new(seed: u64, incarnation: u64) -> Self {
        let files = MemoryFiles::new();
        files.create_directory(Path::new(DIRECTORY)).unwrap();
        let store = open(options(&files, incarnation)).unwrap();
        Self { seed, files, incarnation, store }
    }

    fn applied(&self) -> u64 {
        self.store.state.applied().index
    }

    fn apply_to(&mut self, index: u64) {
        while self.applied() < index {
            let _ = self.apply(&command(self.seed, self.applied() + 1), 1);
        }
        self.store.state.publish().unwrap();
    }

    /// Applies the next entry.
    fn apply(&mut self, command: &Command, level: u32) -> Result<Response, Rejected> {
        let position = Position { term: 1, index: self.applied() + 1 };
        let context = Context { position, level, respond: false };
        let outcome = self.store.state.apply(&context, command).unwrap();
        self.store.state.finish_entry(position);
        outcome.result
    }

    /// Installs the newest checkpoint of another.
    fn receive_from(&mut self, sender: &Self) {
        let export = sender.store.maintainer.export().unwrap();
        let manifest = export.manifest().clone();
        let mut receiving = self.store.maintainer.receive(manifest).unwrap();
        for file in receiving.missing() {
            let length = (file.length - file.offset) as usize;
            let bytes = export.read(&file.name, file.offset, length).unwrap();
            receiving.write(&file.name, file.offset, &bytes).unwrap();
        }
        self.store.state.install(receiving.finish().unwrap()).unwrap();
        self.store.state.publish().unwrap();
    }

    fn step(&mut self) -> Worked {
        let flushed = self.applied();
        self.store.maintainer.step(flushed).unwrap()
    }

    fn settle(&mut self) {
        while self.step() == Worked::Something {}
    }

    fn take(&mut self) -> Taken {
        let frozen = self.store.state.freeze();
        let flushed = self.applied();
        self.store.maintainer.take_manifest(frozen, flushed).unwrap()
    }

    fn restart(mut self, unsynced: Unsynced, numbers: &mut Numbers) -> Self {
        drop(self.store);
        self.files.crash(unsynced, &mut |bound| numbers.below(bound));
        self.store = open(options(&self.files, self.incarnation)).unwrap();
        assert_eq!(self.store.notes, [""; 0]);
        self
    }

    fn picture(&self) -> Picture {
        let reader = &self.store.reader;
        let (revision, compacted) = (reader.revision(), reader.compacted());
        let hash = reader.hash_kv(0).unwrap().hash;
        let leases = reader.leases();
        let lease_keys = leases.iter().map(|lease| reader.lease_keys(lease.id)).collect();
        let before = self.all(compacted.max(1) + (revision - compacted.max(1)) / 2);
        Picture { revision, compacted, hash, now: self.all(0), before, leases, lease_keys }
    }

    fn all(&self, revision: i64) -> Vec<RecordBytes> {
        let end = Bytes::from_static(b"\0");
        let range = Range { key: end.clone(), range_end: end, revision, ..Range::default() };
        match self.store.reader.range(&range, Effort::Blocking) {
            Ok((_, result)) => result.records,
            Err(ReadError::Rejected(rejected)) => panic!("at {revision}: {rejected}"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn options(files: &MemoryFiles, incarnation: u64) -> Options {
    Options {
        files: Arc::new(files.clone()),
        backend: BackendKind::Memory,
        block_bytes: 1500,
        block_file_bytes: 10_000,
        block_cache_bytes: 20_000,
        incarnation,
        ..Options::new(DIRECTORY)
    }
}

#[test]
fn a_store_that_loses_power_ends_where_an_undisturbed_one_does() {
    for seed in 0..30 {
        let mut numbers = Numbers(seed);
        let mut undisturbed = Member::new(seed, 1);
        let mut member = Member::new(seed, 2);
        let mut reached = 0;
        for _ in 0..30 {
            match numbers.below(8) {
                0..=2 => reached += numbers.below(80),
                3 | 4 => drop(member.step()),
                5 => member.settle(),
                6 => drop(member.take()),
                _ => {
                    let kinds = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn, Unsynced::Prefix];
                    let kind = kinds[numbers.below(4) as usize];
                    member = member.restart(kind, &mut numbers);
                    // The log goes on from the checkpoint, with pauses for housekeeping.
                    let middle = member.applied() + reached.saturating_sub(member.applied()) / 2;
                    member.apply_to(middle);
                    member.step();
                }
            }
            member.apply_to(reached);
            undisturbed.apply_to(reached);
            assert_eq!(member.picture(), undisturbed.picture(), "seed {seed} at entry {reached}");
        }
        undisturbed.settle();
        member.settle();
        assert_eq!(member.picture(), undisturbed.picture(), "seed {seed}, all compacted");
    }
}

/// What is refused next, and why: alarms with their causes, the quota, and what is noted of a
/// downgrade.
fn limits(member: &Member) -> (Vec<Alarm>, Quota, String) {
    let reader = &member.store.reader;
    (reader.alarms(), reader.quota(), reader.downgrade_target())
}

#[test]
fn alarms_quota_and_downgrade_come_with_a_checkpoint_and_outlive_a_restart() {
    let mut numbers = Numbers(1);
    let mut sender = Member::new(1, 1);
    sender.apply_to(50);
    let raise = |kind: AlarmKind, member, cause: AlarmCause| {
        let (kind, cause) = (kind as i32, cause as i32);
        Change::RaiseAlarm(RaiseAlarm { kind, member, cause })
    };
    for change in [
        Change::SetQuota(SetQuota { bytes: 7 << 30, member: 3 }),
        Change::SetDowngrade(SetDowngrade { target: "3.5.0".to_owned() }),
        raise(AlarmKind::NoSpace, 1, AlarmCause::Disk),
        raise(AlarmKind::NoSpace, 1, AlarmCause::Client),
        raise(AlarmKind::NoSpace, 3, AlarmCause::Quota),
        raise(AlarmKind::Corrupt, 0, AlarmCause::Check),
    ] {
        sender.apply(&Command::from(change), LEVEL_CURRENT).unwrap();
    }
    sender.store.state.publish().unwrap();
    let expected = limits(&sender);
    let (alarms, quota, downgrade) = &expected;
    assert_eq!((alarms.len(), *quota), (3, Quota { member: 3, bytes: 7 << 30 }));
    assert!(alarms[0].has_cause(AlarmCause::Disk) && alarms[0].has_cause(AlarmCause::Client));
    assert_eq!(downgrade, "3.5.0");
    assert!(matches!(sender.take(), Taken::Manifest(_)));

    let mut member = Member::new(1, 2);
    member.receive_from(&sender);
    assert_eq!(limits(&member), expected, "installed");
    member = member.restart(Unsynced::Lost, &mut numbers);
    assert_eq!(limits(&member), expected, "started from what was received");
    sender = sender.restart(Unsynced::Lost, &mut numbers);
    assert_eq!(limits(&sender), expected, "started from what was taken");
    let put = Command::from(Change::Put(Put { key: key(1), ..Put::default() }));
    for mut member in [member, sender] {
        assert_eq!(member.apply(&put, LEVEL_CURRENT), Err(Rejected::Corrupt));
    }
}

#[test]
fn a_member_that_is_given_checkpoints_ends_where_their_sender_does() {
    for seed in 100..115 {
        let mut numbers = Numbers(seed);
        let mut sender = Member::new(seed, 1);
        let mut member = Member::new(seed, 2);
        for round in 1..6u64 {
            sender.apply_to(round * 150);
            sender.settle();
            assert!(matches!(sender.take(), Taken::Manifest(_)));
            // The member is behind, and busy with its own housekeeping.
            member.apply_to(round * 150 - 100);
            member.step();
            if numbers.below(2) == 0 {
                member.take();
            }
            member.receive_from(&sender);
            assert_eq!(member.applied(), round * 150);
            assert_eq!(member.picture(), sender.picture(), "seed {seed}, round {round}");
            if numbers.below(2) == 0 {
                member = member.restart(Unsynced::Lost, &mut numbers);
                assert_eq!(member.picture(), sender.picture(), "seed {seed}, round {round}");
            }
            member.settle();
            assert_eq!(member.picture(), sender.picture(), "seed {seed}, round {round}");
        }
    }
}
