//! A history that is read out and imported elsewhere is the same history.

use bytes::Bytes;

use crate::command::{
    Change, Command, Compact, DeleteRange, LEVEL_CURRENT, LeaseGrant, Operation, OperationKind,
    Put, Txn,
};
use crate::testing::{files, options, position};
use crate::{Context, Import, Imported, Opened, Position, Worked, open};

fn apply(opened: &mut Opened, index: u64, change: Change) {
    let position = position(index);
    let context = Context { position, level: LEVEL_CURRENT, respond: false };
    let outcome = opened.state.apply(&context, &Command::from(change)).unwrap();
    outcome.result.unwrap();
    opened.state.finish_entry(position);
    opened.state.publish().unwrap();
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{:02}", number % 17))
}

fn put(number: u64, lease: i64) -> OperationKind {
    let value = Bytes::from(vec![number as u8; (number * 37 % 900) as usize]);
    OperationKind::Put(Put { key: key(number), value, lease, ..Put::default() })
}

/// Puts with and without a lease, deletes, transactions of two, and a compaction in between.
fn fill(opened: &mut Opened) {
    apply(opened, 1, Change::LeaseGrant(LeaseGrant { id: 77, ttl: 600 }));
    for index in 2..400 {
        let change = match index % 7 {
            0 => Change::DeleteRange(DeleteRange { key: key(index / 3), ..DeleteRange::default() }),
            1 => {
                let kinds = [put(index, 0), put(index + 1, 77)];
                let success = kinds.map(|kind| Operation { kind: Some(kind) }).to_vec();
                Change::Txn(Txn { success, ..Txn::default() })
            }
            _ => {
                let success = vec![Operation { kind: Some(put(index, 0)) }];
                Change::Txn(Txn { success, ..Txn::default() })
            }
        };
        apply(opened, index, change);
    }
    let success = vec![Operation { kind: Some(put(7, 77)) }];
    apply(opened, 400, Change::Txn(Txn { success, ..Txn::default() }));
    let revision = opened.reader.revision() / 2;
    apply(opened, 401, Change::Compact(Compact { revision }));
}

fn import(from: &Opened) -> Opened {
    let mut history = from.reader.history(&from.state.freeze()).unwrap();
    let files = files();
    let at = Position { term: 1, index: 1 };
    let mut import = Import::begin(options(&files), at).unwrap();
    let mut push = |record: &crate::Record| {
        import.push(record.clone()).map_err(crate::Fatal::new)?;
        Ok(())
    };
    while history.step(3000, &mut push).unwrap() {}
    let imported = Imported {
        revision: history.revision(),
        compacted: history.compacted(),
        leases: history.leases(),
        ..Imported::default()
    };
    assert_eq!(import.finish(imported).unwrap().position, at);
    open(options(&files)).unwrap()
}

fn check(from: &Opened, to: &Opened) {
    assert_eq!(from.reader.hash_kv(0).unwrap(), to.reader.hash_kv(0).unwrap());
    assert_eq!(from.reader.leases(), to.reader.leases());
    assert_eq!(from.reader.lease_keys(77), to.reader.lease_keys(77));
    assert!(!to.reader.lease_keys(77).is_empty());
    let compacted = from.reader.compacted();
    for revision in [compacted, compacted + 1, from.reader.revision() - 1] {
        assert_eq!(from.reader.hash_kv(revision).unwrap(), to.reader.hash_kv(revision).unwrap());
    }
}

#[test]
fn a_history_survives_the_way_to_another_store() {
    let mut from = open(options(&files())).unwrap();
    fill(&mut from);
    check(&from, &import(&from));
    while from.maintainer.step(401).unwrap() == Worked::Something {}
    let mut to = import(&from);
    check(&from, &to);
    while to.maintainer.step(1).unwrap() == Worked::Something {}
    check(&from, &to);
}

#[test]
fn compaction_leaves_a_history_alone_that_is_being_read() {
    let mut from = open(options(&files())).unwrap();
    fill(&mut from);
    let frozen = from.state.freeze();
    let (mut whole, mut slow) = (Vec::new(), Vec::new());
    let mut first = from.reader.history(&frozen).unwrap();
    while first
        .step(usize::MAX, &mut |record| {
            whole.push(record.clone());
            Ok(())
        })
        .unwrap()
    {}
    let mut second = from.reader.history(&frozen).unwrap();
    let mut index = 401;
    while second
        .step(2000, &mut |record| {
            slow.push(record.clone());
            Ok(())
        })
        .unwrap()
    {
        index += 1;
        let delete = DeleteRange { key: key(index), ..DeleteRange::default() };
        apply(&mut from, index, Change::DeleteRange(delete));
        let revision = from.reader.revision() - 1;
        if revision > from.reader.compacted() {
            index += 1;
            apply(&mut from, index, Change::Compact(Compact { revision }));
        }
        while from.maintainer.step(index).unwrap() == Worked::Something {}
    }
    assert_eq!(whole, slow);
    assert!(index > 411, "the reading took several steps");
    assert!(whole.iter().all(|record| record.revision.main <= frozen.revision));
}
