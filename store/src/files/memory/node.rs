//! One file's bytes: those that are synced, and the changes since, in order.

use std::io;

use super::{Choose, SECTOR_BYTES, Unsynced};

/// A file without its name.
#[derive(Clone, Default)]
pub(super) struct Node {
    visible: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
struct Change {
    time: u64,
    kind: ChangeKind,
}

#[derive(Clone)]
enum ChangeKind {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Node {
    pub(super) fn visible(&self) -> &[u8] {
        &self.visible
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.visible.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(super) fn write(&mut self, time: u64, offset: u64, bytes: &[u8]) {
        let kind = ChangeKind::Write { offset: offset as usize, bytes: bytes.to_vec() };
        self.change(Change { time, kind });
    }

    pub(super) fn set_length(&mut self, time: u64, length: u64) {
        self.change(Change { time, kind: ChangeKind::Length(length as usize) });
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn flip(&mut self, offset: u64, mask: u8) -> io::Result<()> {
        let offset = offset as usize;
        *self.visible.get_mut(offset).ok_or(io::ErrorKind::UnexpectedEof)? ^= mask;
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= mask;
        }
        for change in &mut self.changes {
            change.flip(offset, mask);
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, unsynced: Unsynced, until: u64, choose: Choose<'_>) {
        for change in std::mem::take(&mut self.changes) {
            match unsynced {
                Unsynced::Lost => {}
                Unsynced::Kept => change.apply(&mut self.durable),
                Unsynced::Prefix if change.time < until => change.apply(&mut self.durable),
                Unsynced::Prefix if change.time == until => change.cut(choose, &mut self.durable),
                Unsynced::Prefix => {}
                Unsynced::Torn => change.tear(choose, &mut self.durable),
            }
        }
        self.visible = self.durable.clone();
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.changes.push(change);
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match &self.kind {
            ChangeKind::Write { offset, bytes } => put(to, *offset, bytes),
            ChangeKind::Length(length) => to.resize(*length, 0),
        }
    }

    /// Applies the sectors before a chosen one.
    fn cut(&self, choose: Choose<'_>, to: &mut Vec<u8>) {
        if let ChangeKind::Write { offset, bytes } = &self.kind {
            let sectors: Vec<_> = sectors(*offset, bytes.len()).collect();
            let kept = choose(sectors.len() as u64 + 1) as usize;
            for (start, end) in &sectors[..kept] {
                put(to, offset + start, &bytes[*start..*end]);
            }
        }
    }

    /// Applies any set of its sectors. What lies between them, beyond the old end, reads as zeros.
    fn tear(&self, choose: Choose<'_>, to: &mut Vec<u8>) {
        match &self.kind {
            ChangeKind::Write { offset, bytes } => {
                for (start, end) in sectors(*offset, bytes.len()) {
                    if choose(2) == 1 {
                        put(to, offset + start, &bytes[start..end]);
                    }
                }
            }
            ChangeKind::Length(length) => {
                if choose(2) == 1 {
                    to.resize(*length, 0);
                }
            }
        }
    }

    fn flip(&mut self, at: usize, mask: u8) {
        if let ChangeKind::Write { offset, bytes } = &mut self.kind
            && let Some(byte) = at.checked_sub(*offset).and_then(|within| bytes.get_mut(within))
        {
            *byte ^= mask;
        }
    }
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if to.len() < offset + bytes.len() {
        to.resize(offset + bytes.len(), 0);
    }
    to[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// The pieces of a write by the sectors they fall into, relative to its start.
fn sectors(offset: usize, length: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let boundary = (offset + start) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
        let end = length.min(boundary - offset);
        let piece = (start < length).then_some((start, end));
        start = end;
        piece
    })
}
