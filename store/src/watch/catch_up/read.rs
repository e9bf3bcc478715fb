//! The reading half of a step, without the hub's lock.

use bytes::Bytes;

use super::super::batch::Part;
use super::super::event::{self, Effort, Found};
use super::super::limits::Limits;
use super::super::matcher::Matcher;
use super::super::range::WatchedRange;
use super::super::registry::{Class, Watcher};
use super::super::slab::SlabKey;
use super::EventSource;
use crate::record::{RecordHeader, RecordKind};
use crate::{Fatal, Revision};

/// One watcher's part in a step.
pub(super) struct Reading {
    pub(super) key: SlabKey,
    /// The first change it has not been given.
    pub(super) next: Revision,
    range: WatchedRange,
    class: Class,
    fragment_bytes: Option<usize>,
    /// What was collected, ascending.
    pub(super) parts: Vec<Part>,
    /// The change at which a revision was cut for a watcher that allows it.
    pub(super) stopped_at: Option<Revision>,
}

impl Reading {
    pub(super) fn new(key: SlabKey, watcher: &Watcher, next: Revision) -> Self {
        Self {
            key,
            next,
            range: watcher.range.clone(),
            class: watcher.class,
            fragment_bytes: watcher.fragment_bytes(),
            parts: Vec::new(),
            stopped_at: None,
        }
    }

    fn wants(&self, header: &RecordHeader) -> bool {
        let filtered = match header.kind {
            RecordKind::Put { .. } => self.class.no_put,
            RecordKind::Tombstone => self.class.no_delete,
        };
        !filtered && self.stopped_at.is_none() && header.revision >= self.next
    }

    fn push(&mut self, revision: Revision, event: Bytes) {
        if self.parts.last().is_none_or(|part| part.revision < revision.main) {
            self.parts.push(Part::new(revision.main));
        }
        let part = self.parts.last_mut().expect("one was just pushed");
        if let Some(bound) = self.fragment_bytes
            && !part.events.is_empty()
            && part.bytes + event.len() >= bound
        {
            self.stopped_at = Some(revision);
            return;
        }
        part.push(event);
    }
}

/// Reads changes up to `limit` for everyone. Gives the last revision that was read whole: `limit`,
/// or an earlier one if it became too much.
pub(super) fn read(
    source: &dyn EventSource,
    readings: &mut [Reading],
    limit: i64,
    limits: &Limits,
) -> Result<i64, Fatal> {
    let (matcher, groups) = group(readings);
    let mut from = readings.iter().map(|reading| reading.next).min().expect("a step reads");
    let (mut at, mut bytes) = (from.main, 0);
    loop {
        let headers = source.headers(from, limits.step_headers)?;
        let Some(last) = headers.last() else { return Ok(limit) };
        from = Revision::new(last.revision.main, last.revision.sub + 1);
        for header in headers {
            if header.revision.main > limit {
                return Ok(limit);
            }
            if header.revision.main > at {
                if bytes >= limits.step_bytes {
                    return Ok(at);
                }
                at = header.revision.main;
            }
            let mut events = Events { source, header: &header, plain: None, with_prev: None };
            let mut touched = Vec::new();
            matcher.holding(&header.key, &mut |group: usize| touched.push(group));
            for reading in touched.into_iter().flat_map(|group| &groups[group]) {
                bytes += events.give(&mut readings[*reading])?;
            }
        }
        if readings.iter().all(|reading| reading.stopped_at.is_some()) {
            return Ok(limit);
        }
    }
}

/// The ranges, and the readings of each.
fn group(readings: &[Reading]) -> (Matcher<usize>, Vec<Vec<usize>>) {
    let mut matcher = Matcher::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, reading) in readings.iter().enumerate() {
        let group = matcher.find(&reading.range).unwrap_or_else(|| {
            matcher.insert(reading.range.clone(), groups.len());
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(place);
    }
    (matcher, groups)
}

/// The events of one change, encoded when first needed.
struct Events<'a> {
    source: &'a dyn EventSource,
    header: &'a RecordHeader,
    plain: Option<Bytes>,
    with_prev: Option<Bytes>,
}

impl Events<'_> {
    /// Gives the event, if it is still there, to a watcher that wants it; says how many bytes had to be encoded.
    fn give(&mut self, reading: &mut Reading) -> Result<usize, Fatal> {
        if !reading.wants(self.header) {
            return Ok(0);
        }
        let wants_prev = reading.class.prev_kv;
        if let Some(event) = if wants_prev { &self.with_prev } else { &self.plain } {
            reading.push(self.header.revision, event.clone());
            return Ok(0);
        }
        let Some(event) = self.encode(wants_prev)? else { return Ok(0) };
        *(if wants_prev { &mut self.with_prev } else { &mut self.plain }) = Some(event.clone());
        let bytes = event.len();
        reading.push(self.header.revision, event);
        Ok(bytes)
    }

    fn encode(&self, wants_prev: bool) -> Result<Option<Bytes>, Fatal> {
        let (header, at) = (self.header, self.header.revision);
        let record = match self.source.record(at) {
            Ok(record) => record,
            // A compaction to this very revision took it after the header was read, since the same
            // transaction wrote the key again. Asked after the attempt: the compacted revision
            // rises before anything is removed.
            Err(_) if self.source.compacted() >= at.main => return Ok(None),
            Err(fatal) => return Err(fatal),
        };
        let previous = if wants_prev { self.previous()? } else { None };
        Ok(Some(event::encode(&header.kind, &record, previous.as_deref())))
    }

    /// The version that the change replaced: none for a creation, none once it is compacted.
    fn previous(&self) -> Result<Option<Bytes>, Fatal> {
        let (header, at) = (self.header, self.header.revision);
        let creates = matches!(header.kind, RecordKind::Put { version: 1, .. });
        if creates || self.source.compacted() >= at.main {
            return Ok(None);
        }
        let Some(previous) = self.source.previous(&header.key, at) else { return Ok(None) };
        match event::previous_record(self.source, at.main, previous, Effort::Disk)? {
            Found::Ready(record) => Ok(record),
            Found::WouldBlock => unreachable!("reading from disk does not give up"),
        }
    }
}
