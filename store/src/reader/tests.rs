//! What a reading transaction holds still.

use super::*;
use crate::command::{Change, Command, Compact, LEVEL_CURRENT, Operation, Put};
use crate::testing::{files, options, position};
use crate::{Context, Opened, Worked, open};

fn apply(opened: &mut Opened, index: u64, change: Change) {
    let position = position(index);
    let context = Context { position, level: LEVEL_CURRENT, respond: false };
    let command = Command::from(change);
    opened.state.apply(&context, &command).unwrap().result.unwrap();
    opened.state.finish_entry(position);
    opened.state.publish().unwrap();
}

fn range(revision: i64) -> Range {
    Range { key: Bytes::from_static(b"k"), revision, ..Range::default() }
}

fn operation(kind: OperationKind) -> Operation {
    Operation { kind: Some(kind) }
}

/// One branch asks for a revision that is compacted, the other for one that is not: that one stays
/// readable, whatever is compacted meanwhile.
#[test]
fn a_transaction_holds_the_oldest_revision_that_it_may_read() {
    let mut opened = open(options(&files())).unwrap();
    for index in 1..20 {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from(index.to_string()));
        let put = OperationKind::Put(Put { key, value, ..Put::default() });
        let success = vec![operation(put)];
        apply(&mut opened, index, Change::Txn(Txn { success, ..Txn::default() }));
    }
    apply(&mut opened, 20, Change::Compact(Compact { revision: 10 }));
    while opened.maintainer.step(20).unwrap() == Worked::Something {}

    let txn = Txn {
        success: vec![operation(OperationKind::Range(range(5)))],
        failure: vec![operation(OperationKind::Range(range(12)))],
        ..Txn::default()
    };
    let reader = opened.reader.clone();
    let view = txn_view(&reader.shared, &txn, Effort::Blocking).unwrap();
    apply(&mut opened, 21, Change::Compact(Compact { revision: 15 }));
    while opened.maintainer.step(21).unwrap() == Worked::Something {}
    let found = range::execute(&view, &range(12)).unwrap();
    assert_eq!(found.records.len(), 1, "the version of revision 12 is still there");
    assert!(matches!(
        range::execute(&view, &range(5)),
        Err(ReadError::Rejected(Rejected::Compacted))
    ));
}
