//! A small log of several segments, groups and marks; then every byte of it is flipped, and every
//! file cut at every byte, and the verdict must be the one that the position demands: damage at or
//! below the newest mark, a torn tail above it, and never a wrong record.

use std::path::PathBuf;

use super::super::{newest, segment};
use super::*;

/// A group of the last segment: where it lies, and what the log held before and after it.
struct Written {
    start: u64,
    end: u64,
    before: Model,
    after: Model,
}

/// A closed log, and what its writer knew.
struct Fixture {
    files: MemoryFiles,
    /// Paths of the segments, each with the end of what it holds.
    segments: Vec<(PathBuf, u64)>,
    /// The end of what the newest mark covers, in the last segment.
    mark: u64,
    /// The groups of the last segment.
    groups: Vec<Written>,
    whole: Model,
}

struct Builder {
    log: Harness,
    ends: Vec<(u64, u64)>,
    groups: Vec<Written>,
    before: Model,
}

impl Builder {
    fn new() -> Self {
        let log = Harness::open(&MemoryFiles::new(1)).unwrap();
        let before = Model::of(&log.wal);
        Self { log, ends: vec![(1, 512)], groups: Vec::new(), before }
    }

    /// Drives the writer once and notes where it wrote.
    fn write(&mut self, synced: bool) {
        if synced {
            self.log.step()
        } else {
            self.log.idle()
        }
        let place = self.log.core.position();
        let (last, start) = *self.ends.last().unwrap();
        let start = if last == place.segment {
            self.ends.pop();
            start
        } else {
            self.groups.clear();
            512
        };
        assert!(start < place.offset, "something was written");
        self.ends.push((place.segment, place.offset));
        let after = Model::of(&self.log.wal);
        let before = std::mem::replace(&mut self.before, after.clone());
        self.groups.push(Written { start, end: place.offset, before, after });
    }

    fn finish(self) -> Fixture {
        let path = |number| segment::path(Path::new(DIRECTORY), number);
        let files = self.log.files.copy();
        let present: Vec<_> = files.paths();
        let segments = self.ends.iter().map(|(number, end)| (path(*number), *end));
        let segments = segments.filter(|(path, _)| present.contains(path)).collect();
        // Every group carries the end of the one that was synced before it.
        let mark = self.groups.last().unwrap().start;
        Fixture { files, segments, mark, groups: self.groups, whole: self.before }
    }
}

/// Three or more segments; a truncation, a purge, votes; the last group synced, and known to be so
/// only by its writer.
fn in_flight() -> Builder {
    let mut build = Builder::new();
    build.log.vote(2);
    build.log.append([entry(2, 0, 40), entry(2, 1, 700)]);
    build.write(true);
    for index in 2..8 {
        build.log.append([entry(2, index, 300 + 11 * index as usize)]);
        build.log.wal.save_committed(id(2, index - 1)).unwrap();
        build.write(true);
    }
    build.log.vote(5);
    build.write(true);
    build.log.wal.truncate_after(Some(id(2, 5))).unwrap();
    build.log.append([entry(5, 6, 120), entry(5, 7, 900), entry(5, 8, 0)]);
    build.write(true);
    build.log.wal.purge(id(2, 3)).unwrap();
    build.log.append([entry(5, 9, 800)]);
    build.write(true);
    build.log.append([entry(5, 10, 5), entry(5, 11, 1500)]);
    build.write(true);
    for index in 12..18 {
        build.log.append([entry(5, index, 200)]);
        build.write(true);
    }
    build
}

/// As [`in_flight`], then idle: an empty group carries the mark.
fn idle() -> Builder {
    let mut build = in_flight();
    build.write(false);
    build
}

/// The last segment was recycled, so that old groups lie behind the new ones.
fn recycled() -> Builder {
    let mut build = in_flight();
    for index in 18.. {
        build.log.append([entry(5, index, 500)]);
        if index % 10 == 0 {
            build.log.wal.purge(id(5, index - 3)).unwrap();
            build.log.wal.allow_removal_below(index);
        }
        build.write(true);
        // The spare was used up since, so the first segment that goes becomes the next one.
        if index % 10 == 0 {
            while build.log.maintenance.step() {}
        }
        if index > 40 && index % 10 == 2 && build.groups.len() == 2 {
            break;
        }
    }
    let last = build.ends.last().unwrap();
    let content = build.log.files.content(&segment::path(Path::new(DIRECTORY), last.0));
    let behind = &content[last.1 as usize..];
    assert!(behind.iter().any(|byte| *byte != 0), "old bytes lie behind the new ones");
    build
}

enum Expected {
    Damage,
    /// A torn tail was cut, and this is left.
    Cut(Model),
    Holds(Model),
}

impl Fixture {
    /// The verdict of rule 1 on a wrong byte.
    fn verdict(&self, segment: usize, offset: u64) -> Expected {
        let end = self.segments[segment].1;
        let is_last = segment + 1 == self.segments.len();
        if offset >= end {
            return Expected::Holds(self.whole.clone());
        }
        if !is_last || offset < self.mark {
            return Expected::Damage;
        }
        let group = self.groups.iter().find(|group| (group.start..group.end).contains(&offset));
        Expected::Cut(group.expect("a byte below the end is in a group").before.clone())
    }

    /// Opens a log whose segment holds `bytes` instead, twice: what is recovered has to stay.
    fn check(&self, segment: usize, bytes: Vec<u8>, expected: &Expected, what: &str) {
        let files = self.files.copy();
        let path = &self.segments[segment].0;
        files.set_content(path, bytes);
        let result = open_on(&files);
        match (result, expected) {
            (Err(WalError::Damage(damage)), Expected::Damage) => {
                assert_eq!(&damage.file, path, "{what}: {damage}");
                assert!(damage.to_string().contains(path.to_str().unwrap()));
            }
            (Ok(opened), Expected::Holds(model) | Expected::Cut(model)) => {
                let cut = matches!(expected, Expected::Cut(_));
                assert!(!cut || opened.torn.is_some_and(|torn| torn.file == *path), "{what}");
                assert_eq!(&Model::of(&opened.wal), model, "{what}");
                let again = open_on(&files.power_cut()).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(&Model::of(&again.wal), model, "{what}, opened again");
            }
            (Ok(_), Expected::Damage) => panic!("{what}: damage was not noticed"),
            (Err(error), _) => panic!("{what}: {error}"),
        }
    }

    fn flip_every_byte(&self, name: &str) {
        for (segment, (path, _)) in self.segments.iter().enumerate() {
            let content = self.files.content(path);
            for offset in 0..content.len() {
                let expected = self.verdict(segment, offset as u64);
                for mask in [1 << (offset % 8), 0xff] {
                    let mut bytes = content.clone();
                    bytes[offset] ^= mask;
                    let what = format!("{name}: {} at {offset} ^ {mask:#x}", path.display());
                    self.check(segment, bytes, &expected, &what);
                }
            }
        }
    }

    /// What a power cut leaves of the last segment when nothing from `offset` on was written: the
    /// zeros of a new file.
    fn zero_from_every_byte(&self, name: &str) {
        let segment = self.segments.len() - 1;
        let content = self.files.content(&self.segments[segment].0);
        for offset in 0..content.len() {
            let mut bytes = content.clone();
            bytes[offset..].fill(0);
            let intact = |end: u64| bytes[..end as usize] == content[..end as usize];
            let expected = if !intact(512) {
                Expected::Damage
            } else {
                let whole = self.groups.iter().take_while(|group| intact(group.end)).last();
                Expected::Holds(whole.map_or(&self.groups[0].before, |group| &group.after).clone())
            };
            self.check(segment, bytes, &expected, &format!("{name}: zeros from {offset}"));
        }
    }

    /// A sector that landed in the place of another, or of another segment.
    fn misplace_every_sector(&self, name: &str) {
        let contents = self.segments.iter().map(|(path, _)| self.files.content(path));
        let contents: Vec<_> = contents.collect();
        let sectors = contents.iter().flat_map(|content| content.chunks(512));
        for (number, sector) in sectors.enumerate() {
            for (segment, content) in contents.iter().enumerate() {
                for start in (0..content.len()).step_by(512) {
                    let old = &content[start..start + 512];
                    let Some(differs) = (0..512).find(|at| old[*at] != sector[*at]) else {
                        continue;
                    };
                    let mut bytes = content.clone();
                    bytes[start..start + 512].copy_from_slice(sector);
                    let expected = match self.verdict(segment, (start + differs) as u64) {
                        // Zeros look like the untouched rest of the segment.
                        Expected::Cut(model) => Expected::Holds(model),
                        expected => expected,
                    };
                    let what = format!("{name}: sector {number} at {start} of {segment}");
                    self.check(segment, bytes, &expected, &what);
                }
            }
        }
    }

    /// A file is never shorter than it was when it got its name, unless someone cut it.
    fn cut_every_file_at_every_byte(&self, name: &str) {
        for (segment, (path, _)) in self.segments.iter().enumerate() {
            let content = self.files.content(path);
            for length in 0..content.len() {
                let bytes = content[..length].to_vec();
                let what = format!("{name}: {} cut to {length}", path.display());
                self.check(segment, bytes, &Expected::Damage, &what);
            }
        }
    }
}

#[test]
fn the_fixtures_are_what_they_should_be() {
    let fixture = in_flight().finish();
    assert!(fixture.segments.len() >= 3, "several segments");
    assert!(fixture.groups.len() >= 2, "several groups in the last one");
    assert!(fixture.mark > 512, "a mark in the last one");
    assert_eq!(fixture.whole.entries.len(), 14);
    let model = Model::of(&open_on(&fixture.files).unwrap().wal);
    assert_eq!(model, fixture.whole);
}

#[test]
fn every_flipped_byte_gets_its_verdict() {
    in_flight().finish().flip_every_byte("in flight");
    idle().finish().flip_every_byte("idle");
}

#[test]
fn every_flipped_byte_of_a_recycled_segment_gets_its_verdict() {
    recycled().finish().flip_every_byte("recycled");
}

#[test]
fn every_cut_gets_its_verdict() {
    for (name, build) in [("in flight", in_flight()), ("idle", idle())] {
        let fixture = build.finish();
        fixture.zero_from_every_byte(name);
        fixture.cut_every_file_at_every_byte(name);
    }
}

#[test]
fn every_misplaced_sector_gets_its_verdict() {
    in_flight().finish().misplace_every_sector("in flight");
    recycled().finish().misplace_every_sector("recycled");
}

/// Groups of another history, valid by themselves and in the right place, do not follow here.
#[test]
fn a_group_of_another_history_gets_the_verdict_of_its_place() {
    let build = |first: &[usize]| {
        let mut build = Builder::new();
        for (index, length) in first.iter().enumerate() {
            build.log.append([entry(1, index as u64, *length)]);
            build.write(true);
        }
        build.finish()
    };
    let (ours, theirs) = (build(&[9, 9, 9, 9]), build(&[8, 9, 9, 9]));
    let path = &ours.segments[0].0;
    let (own, other) = (ours.files.content(path), theirs.files.content(path));
    for group in &ours.groups[1..] {
        let range = group.start as usize..group.end as usize;
        let mut bytes = own.clone();
        bytes[range.clone()].copy_from_slice(&other[range]);
        let expected = ours.verdict(0, group.start);
        ours.check(0, bytes, &expected, &format!("the group at {}", group.start));
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let fixture = in_flight().finish();
    for (path, _) in &fixture.segments[..fixture.segments.len() - 1] {
        let files = MemoryFiles::new(1);
        for kept in fixture.files.paths().iter().filter(|kept| *kept != path) {
            files.set_content(kept, fixture.files.content(kept));
        }
        let Err(WalError::Damage(damage)) = open_on(&files) else {
            panic!("{} was not missed", path.display());
        };
        assert_eq!(&damage.file, path);
        assert!(damage.reason.contains("missing"), "{damage}");
    }
}

/// The last one too, or all of them, once the note that names it was written.
#[test]
fn a_missing_last_segment_is_damage() {
    let mut build = in_flight();
    while build.log.maintenance.step() {}
    let fixture = build.finish();
    let last = &fixture.segments.last().unwrap().0;
    for all in [false, true] {
        let files = MemoryFiles::new(1);
        let gone = |path: &PathBuf| {
            path == last || (all && path.extension().is_some_and(|suffix| suffix == "wal"))
        };
        for kept in fixture.files.paths().iter().filter(|path| !gone(path)) {
            files.set_content(kept, fixture.files.content(kept));
        }
        let Err(WalError::Damage(damage)) = open_on(&files) else {
            panic!("it was not missed");
        };
        assert_eq!(&damage.file, last);
        assert!(damage.reason.contains("missing"), "{damage}");
    }
}

#[test]
fn a_damaged_note_of_the_newest_segment_says_nothing() {
    let mut build = in_flight();
    while build.log.maintenance.step() {}
    let fixture = build.finish();
    let path = newest::path(Path::new(DIRECTORY));
    let content = fixture.files.content(&path);
    let damaged = (0..content.len()).flat_map(|at| {
        let mut flipped = content.clone();
        flipped[at] ^= 1;
        [flipped, content[..at].to_vec()]
    });
    for bytes in damaged {
        let files = fixture.files.copy();
        files.set_content(&path, bytes);
        let mut log = Harness::open(&files).expect("the log is whole");
        assert_eq!(Model::of(&log.wal), fixture.whole);
        while log.maintenance.step() {}
        assert_ne!(files.content(&path), content, "it is written anew");
        Harness::open(&files.power_cut()).expect("and right");
    }
}

#[test]
fn rot_is_noticed_by_a_reader_too() {
    let mut log = Harness::open(&MemoryFiles::new(1)).unwrap();
    for index in 0..6 {
        log.append([entry(1, index, 200)]);
        log.step();
    }
    let path = segment::path(Path::new(DIRECTORY), 1);
    let file = holdfast_store::files::Files::open(&log.files, &path).unwrap();
    let content = log.files.content(&path);
    for (offset, byte) in content.iter().enumerate().take(1024).skip(512) {
        file.write_all_at(&[!byte], offset as u64).unwrap();
        let error = log.wal.entries(0, 1).unwrap_err();
        assert!(matches!(error, WalError::Damage(_)), "offset {offset}: {error}");
        file.write_all_at(&[*byte], offset as u64).unwrap();
    }
    assert_eq!(log.wal.entries(0, 1).unwrap(), [entry(1, 0, 200)]);
}
