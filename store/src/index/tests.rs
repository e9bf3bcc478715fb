//! The index against a plain list of versions.

use super::*;

impl Index {
    fn check(&mut self) {
        let mut last: Option<Cursor> = None;
        for (bound, chunk) in &mut self.chunks {
            chunk.check();
            assert!(chunk.key(0).is_none_or(|first| first >= bound.as_ref()));
            assert!(chunk.key(0) > last.as_deref() || chunk.len() == 0);
            last = chunk.last_key().map(Box::from).or(last);
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("/registry/pods/default/{number:08}").into_bytes()
}

fn keys_at(index: &Index, range: &KeyRange, at: i64) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let mut budget = 7;
        cursor = index.walk(range, cursor.as_deref(), at, &mut budget, |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        });
        if cursor.is_none() {
            return keys;
        }
    }
}

fn count_at(index: &Index, range: &KeyRange, at: i64) -> i64 {
    let (mut total, mut cursor) = (0, None);
    loop {
        let mut budget = 9;
        let (count, next) = index.count(range, cursor.as_deref(), at, &mut budget);
        total += count;
        cursor = next;
        if cursor.is_none() {
            return total;
        }
    }
}

#[test]
fn ranges_and_counts_agree_through_puts_deletes_and_sweeps() {
    let mut index = Index::default();
    for main in 2..3000 {
        let number = (main as u64).wrapping_mul(2654435761) % 500;
        if main % 5 == 0 {
            let range = KeyRange::new(&key(number).into(), &key(number + 3).into());
            index.delete(&range, None, Revision::new(main, 0), 1000, |_, _, _| {});
        } else {
            index.put(&key(number), Revision::new(main, 0), 0, |_| 20);
        }
        if main % 1000 == 0 {
            let mut next = None;
            loop {
                let part = index.sweep(next.as_deref(), main - 500, main - 500, 50);
                next = part.next;
                if next.is_none() {
                    break;
                }
            }
            index.check();
        }
    }
    index.check();
    for at in [2500, 2700, 2998] {
        for (from, to) in [(0, 500), (3, 4), (100, 200), (450, 600), (7, 7), (9, 2)] {
            let range = KeyRange::new(&key(from).into(), &key(to).into());
            let keys = keys_at(&index, &range, at);
            assert!(keys.is_sorted());
            let expected: Vec<_> =
                (from..to).map(key).filter(|key| index.live(key, at).is_some()).collect();
            assert_eq!(keys, expected);
            assert_eq!(count_at(&index, &range, at), keys.len() as i64);
        }
    }
}

#[test]
fn a_sweep_keeps_what_the_target_sees() {
    let mut index = Index::default();
    let all = KeyRange::everything();
    index.put(b"a", Revision::new(2, 0), 0, |_| 5);
    index.put(b"a", Revision::new(3, 0), 0, |_| 5);
    index.delete(&all, None, Revision::new(4, 0), 10, |_, _, _| {});
    index.put(b"b", Revision::new(5, 0), 0, |_| 5);
    let part = index.sweep(None, 3, 4, 10);
    assert_eq!(part.dead, [Revision::new(2, 0)]);
    assert_eq!(part.pinned_bytes, 5, "3.0 goes once nobody reads at 3");
    let part = index.sweep(None, 4, 4, 10);
    assert_eq!(part.dead, [Revision::new(3, 0)], "a tombstone at the compacted revision stays");
    let part = index.sweep(None, 5, 5, 10);
    assert_eq!(part.dead, [Revision::new(4, 0)]);
    assert!(index.versions(b"a").is_none());
    index.check();
}

/// Sweeps everything; gives how many parts it took.
fn sweep_all(index: &mut Index, to: i64) -> usize {
    let (mut next, mut parts): (Option<Cursor>, _) = (None, 0);
    loop {
        parts += 1;
        next = index.sweep(next.as_deref(), to, to, usize::MAX).next;
        if next.is_none() {
            return parts;
        }
    }
}

#[test]
fn chunks_go_with_their_keys() {
    let mut index = Index::default();
    let all = KeyRange::everything();
    for number in 0..20_000 {
        index.put(&key(number), Revision::new(2, number as i64), 0, |_| 9);
    }
    index.delete(&all, None, Revision::new(3, 0), usize::MAX, |_, _, _| {});
    sweep_all(&mut index, 4);
    index.check();
    assert_eq!(index.chunks.len(), 1, "a deleted prefix leaves nothing behind");

    // A queue: keys that rise for ever, and go in the same order.
    for number in 0..20_000i64 {
        index.put(&key(number as u64), Revision::new(10 + number, 0), 0, |_| 9);
        if number >= 100 {
            let gone = KeyRange::new(&key(number as u64 - 100).into(), &bytes::Bytes::new());
            index.delete(&gone, None, Revision::new(10 + number, 1), 1, |_, _, _| {});
        }
        if number % 500 == 0 {
            sweep_all(&mut index, 10 + number);
            assert!(index.chunks.len() < 20, "{} chunks", index.chunks.len());
        }
    }
    index.check();
    assert_eq!(count_at(&index, &all, 20_009), 100);
}

#[test]
fn a_part_of_a_sweep_looks_at_few_keys_even_when_none_is_dead() {
    let mut index = Index::default();
    for main in [2, 5] {
        for number in 0..10_000 {
            index.put(&key(number), Revision::new(main, number as i64), 0, |_| 9);
        }
    }
    assert!(sweep_all(&mut index, 3) > 4, "everything is garbage later, and nothing is dead now");
}

#[test]
fn deletes_go_in_slices() {
    let mut index = Index::default();
    for number in 0..200 {
        index.put(&key(number), Revision::new(2, number as i64), 0, |_| 9);
    }
    let range = KeyRange::new(&key(10).into(), &key(190).into());
    let (mut cursor, mut slices, mut subs) = (None, 0, 0);
    loop {
        let at = Revision::new(3, subs);
        cursor = index.delete(&range, cursor.as_deref(), at, 50, |_, previous, tombstone| {
            assert_eq!(previous.mod_revision(), 2);
            assert_eq!(tombstone.revision(), Revision::new(3, subs));
            subs += 1;
        });
        slices += 1;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((slices, subs), (4, 180));
    assert_eq!(count_at(&index, &KeyRange::everything(), 3), 20);
    assert_eq!(count_at(&index, &KeyRange::everything(), 2), 200);
    index.check();
}

#[test]
fn keys_that_arrive_in_order_fill_their_chunks() {
    let mut index = Index::default();
    for number in 0..100_000 {
        index.put(&key(number), Revision::new(number as i64 + 2, 0), 0, |_| 300);
    }
    let chunks = index.chunks.len();
    assert!(chunks < 100_000 / 60, "{chunks} chunks");
    index.check();
}

#[test]
fn a_pending_delete_is_seen_at_its_revision_and_not_before() {
    let mut index = Index::default();
    for number in 0..400 {
        index.put(&key(number), Revision::new(2, number as i64), 0, |_| 9);
    }
    let gone = KeyRange::new(&key(100).into(), &key(300).into());
    let ranges = [(0, 400), (0, 100), (50, 150), (120, 280), (299, 301), (300, 400), (7, 7)];
    let alive = |number: &u64| !(100..300).contains(number);
    let (mut cursor, mut subs) = (None, 0);
    loop {
        let at = Revision::new(3, subs);
        cursor = index.delete(&gone, cursor.as_deref(), at, 33, |_, _, _| subs += 1);
        index.set_pending(&gone, cursor.as_deref(), 3);
        for (from, to) in ranges {
            let range = KeyRange::new(&key(from).into(), &key(to).into());
            let all: Vec<_> = (from..to).map(key).collect();
            let left: Vec<_> = (from..to).filter(alive).map(key).collect();
            assert_eq!(keys_at(&index, &range, 2), all);
            assert_eq!(count_at(&index, &range, 2), all.len() as i64);
            assert_eq!(keys_at(&index, &range, 3), left);
            assert_eq!(count_at(&index, &range, 3), left.len() as i64);
        }
        assert_eq!(count_at(&index, &KeyRange::everything(), 3), 200);
        for number in [0, 99, 100, 200, 299, 300] {
            assert_eq!(index.live(&key(number), 3).is_some(), alive(&number), "{number}");
            assert!(index.live(&key(number), 2).is_some());
            let single = KeyRange::new(&key(number).into(), &Bytes::new());
            assert_eq!(keys_at(&index, &single, 3).len(), usize::from(alive(&number)));
        }
        if cursor.is_none() {
            break;
        }
    }
    index.put(&key(200), Revision::new(4, 0), 0, |_| 9);
    assert_eq!(count_at(&index, &gone, 4), 1);
    index.check();
}

#[test]
fn counting_around_a_pending_delete_costs_no_more_than_chunks() {
    let mut index = Index::default();
    for number in 0..64 * 100 {
        index.put(&key(number), Revision::new(2, number as i64), 0, |_| 9);
    }
    let gone = KeyRange::new(&key(1000).into(), &Bytes::from_static(b"\0"));
    let cursor = index.delete(&gone, None, Revision::new(3, 0), 10, |_, _, _| {});
    index.set_pending(&gone, cursor.as_deref(), 3);
    let mut budget = 400;
    assert_eq!(index.count(&KeyRange::everything(), None, 3, &mut budget), (1000, None));
}

#[test]
#[should_panic = "a delete is carried out before anything follows it"]
fn nothing_is_written_over_a_pending_delete() {
    let mut index = Index::default();
    for number in 0..9 {
        index.put(&key(number), Revision::new(2, number as i64), 0, |_| 9);
    }
    let all = KeyRange::everything();
    let cursor = index.delete(&all, None, Revision::new(3, 0), 5, |_, _, _| {});
    index.set_pending(&all, cursor.as_deref(), 3);
    index.put(b"k", Revision::new(4, 0), 0, |_| 9);
}
