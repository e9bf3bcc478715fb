//! Watches over the real store: what a late watcher reads from blocks equals what a live one got.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::command::{Change, Command, Compact, DeleteRange, Put};
use holdfast_store::files::MemoryFiles;
use holdfast_store::watch::{Delivery, StreamLimits, Wake, WatchSpec, Worked};
use holdfast_store::{BackendKind, Context, Opened, Options, Position, WatchStream, open};

struct Deaf;

impl Wake for Deaf {
    fn wake(&self) {}
}

/// A small store: blocks of 1 KiB and next to no cache, so that late watchers read from disk.
fn small() -> Opened {
    let mut options = Options::new(Path::new("/data"));
    options.files = Arc::new(MemoryFiles::new());
    options.backend = BackendKind::Memory;
    options.block_bytes = 1 << 10;
    options.block_cache_bytes = 4 << 10;
    open(options).expect("an empty directory opens")
}

fn apply(opened: &mut Opened, index: u64, change: Change) {
    let position = Position { term: 1, index };
    let context = Context { position, level: 1, respond: false };
    let command = Command::from(change);
    opened.state.apply(&context, &command).expect("memory does not fail").result.expect("taken");
    opened.state.finish_entry(position);
    opened.state.publish().expect("memory does not fail");
    opened.maintainer.step(index).expect("memory does not fail");
}

/// Puts and deletes of thirty keys.
fn change(index: u64) -> Change {
    let key = Bytes::from(format!("k{:02}", index * 7 % 30));
    if index.is_multiple_of(5) {
        return Change::DeleteRange(DeleteRange { key, ..DeleteRange::default() });
    }
    let value = Bytes::from(format!("{index}").repeat(20));
    Change::Put(Put { key, value, ..Put::default() })
}

fn watch(opened: &Opened, start_revision: i64) -> WatchStream {
    let limits = StreamLimits { fragment_bytes: 1 << 20, queue_bytes: 64 << 20 };
    let stream = opened.hub.open_stream(Arc::new(Deaf), limits);
    stream.create(WatchSpec {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"l"),
        prev_kv: true,
        start_revision,
        ..WatchSpec::default()
    });
    stream
}

/// Every event so far.
fn events(opened: &Opened, stream: &WatchStream) -> Vec<Bytes> {
    let mut all = Vec::new();
    loop {
        let idle = opened.hub.catch_up_step().expect("memory does not fail") == Worked::Nothing;
        while let Some(delivery) = stream.next(1 << 16) {
            match delivery {
                Delivery::Events { events, .. } => all.extend(events),
                Delivery::Created { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if idle {
            return all;
        }
    }
}

#[test]
fn a_late_watcher_reads_what_a_live_one_got() {
    let mut opened = small();
    let live = watch(&opened, 0);
    (1..=3000).for_each(|index| apply(&mut opened, index, change(index)));
    let expected = events(&opened, &live);
    assert!(expected.len() > 2000);
    let late = watch(&opened, 2);
    assert_eq!(events(&opened, &late), expected);

    let revision = opened.reader.revision();
    apply(&mut opened, 3001, Change::Compact(Compact { revision: revision - 100 }));
    for index in 3002..3200 {
        apply(&mut opened, index, change(index));
    }
    let expected = events(&opened, &live);
    let all_of_them = watch(&opened, revision + 1);
    assert_eq!(events(&opened, &all_of_them), expected);
    let oldest = watch(&opened, revision - 99);
    let after_compaction = events(&opened, &oldest);
    assert_eq!(after_compaction[after_compaction.len() - expected.len()..], expected);
    assert_eq!(after_compaction.len() - expected.len(), 100);
}
