//! Big ranges, a chunk at a time, at one registered revision.
//!
//! Opening walks the index once, so that count, number and lengths are known before the first
//! record is read. In key order the stream then needs nothing but a cursor; in any other order it
//! keeps the versions in that order.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::command::Range;
use crate::index::Cursor;
use crate::range::{self, Content, Item, Order, Plan};
use crate::reader::registry::Registration;
use crate::state::shared::Shared;
use crate::view::{INLINE_BYTES_MAX, View, WALK_KEYS_MAX};
use crate::{Effort, Fatal, ReadError, RecordBytes};

/// A range at a registered revision, read in chunks.
pub struct RangeStream {
    shared: Arc<Shared>,
    plan: Plan,
    at: i64,
    current: i64,
    compacted: i64,
    registration: Option<Registration>,
    count: i64,
    more: bool,
    totals: Totals,
    given: Totals,
    /// Found and not given yet.
    pending: VecDeque<Item>,
    /// Where the walk goes on, in key order.
    cursor: Option<Cursor>,
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    records: u64,
    bytes: u64,
    framed_bytes: u64,
}

impl Totals {
    fn add(&mut self, length: u64) {
        self.records += 1;
        self.bytes += length;
        self.framed_bytes += 1 + prost::length_delimiter_len(length as usize) as u64 + length;
    }
}

impl RangeStream {
    pub(super) fn open(shared: Arc<Shared>, range: &Range) -> Result<Self, ReadError> {
        let mut view = super::registered_view(&shared, range.revision, Effort::Blocking)?;
        let at = view.resolve(range.revision)?;
        let plan = Plan::new(range);
        let opened = if plan.order == Order::Key && plan.content != Content::WithoutValues {
            survey(&view, &plan, at)?
        } else {
            collect(&view, &plan, at)?
        };
        let (current, compacted) = (view.current, view.compacted);
        let registration = view.registration.take();
        let Opened { count, more, totals, pending, cursor } = opened;
        let given = Totals::default();
        Ok(Self {
            shared,
            plan,
            at,
            current,
            compacted,
            registration,
            count,
            more,
            totals,
            given,
            pending,
            cursor,
        })
    }

    /// The visible revision when the stream began, for the response header.
    pub fn revision(&self) -> i64 {
        self.current
    }

    /// As in [`crate::RangeResult`].
    pub fn count(&self) -> i64 {
        self.count
    }

    /// As in [`crate::RangeResult`].
    pub fn more(&self) -> bool {
        self.more
    }

    /// How many records there will be.
    pub fn records(&self) -> u64 {
        self.totals.records
    }

    /// The sum of their lengths.
    pub fn record_bytes(&self) -> u64 {
        self.totals.bytes
    }

    /// The length of all of them as a repeated field of one message with a one-byte tag: each with
    /// its tag and length prefix.
    pub fn framed_bytes(&self) -> u64 {
        self.totals.framed_bytes
    }

    /// The next records: at least one, and then until either bound is reached; None at the end.
    /// After [`ReadError::WouldBlock`] the same call may be made again with more effort.
    pub fn next_chunk(
        &mut self,
        max_bytes: usize,
        max_keys: usize,
        effort: Effort,
    ) -> Result<Option<Vec<RecordBytes>>, ReadError> {
        let max_bytes = match effort {
            Effort::Inline => (max_bytes as u64).min(INLINE_BYTES_MAX),
            Effort::Blocking => max_bytes as u64,
        };
        if self.pending.is_empty() {
            self.walk_on(max_keys.clamp(1, WALK_KEYS_MAX), effort)?;
        }
        if self.pending.is_empty() {
            return self.end();
        }
        let view = View {
            shared: &self.shared,
            current: self.current,
            compacted: self.compacted,
            effort,
            registration: None,
        };
        let mut records = Vec::new();
        let mut totals = self.given;
        for item in self.pending.iter().take(max_keys.max(1)) {
            let read = self.plan.record(&view, item);
            if let (Err(ReadError::Fatal(_)), Some(held)) = (&read, &self.registration) {
                held.holds()?;
            }
            let record = read?;
            totals.add(record.len() as u64);
            records.push(record);
            if totals.bytes - self.given.bytes >= max_bytes {
                break;
            }
        }
        self.pending.drain(..records.len());
        self.given = totals;
        Ok(Some(records))
    }

    fn end(&mut self) -> Result<Option<Vec<RecordBytes>>, ReadError> {
        self.registration = None;
        if self.given != self.totals {
            let (given, totals) = (self.given, self.totals);
            return Err(Fatal::new(format_args!(
                "a range at revision {} gave {given:?} and announced {totals:?}",
                self.at
            ))
            .into());
        }
        Ok(None)
    }

    /// Finds the next keys that pass, at most `max` of them. Inline it looks at no more than a
    /// slice of the index; what it found stays found.
    fn walk_on(&mut self, max: usize, effort: Effort) -> Result<(), ReadError> {
        let left = self.totals.records - self.given.records;
        let max = max.min(usize::try_from(left).unwrap_or(usize::MAX));
        while self.cursor.is_some() && self.pending.len() < max {
            let index = self.shared.index();
            if let Some(registration) = &self.registration {
                registration.holds()?;
            }
            let (plan, pending) = (&self.plan, &mut self.pending);
            let mut budget = WALK_KEYS_MAX;
            let from = self.cursor.as_deref();
            let next = index.walk(&plan.keys, from, self.at, &mut budget, |key, version| {
                if plan.passes(version) {
                    pending.push_back(plan.item(key, version));
                }
                if pending.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            drop(index);
            self.cursor = next;
            if effort == Effort::Inline {
                break;
            }
        }
        if self.cursor.is_some() && self.pending.is_empty() && max > 0 {
            return Err(ReadError::WouldBlock);
        }
        Ok(())
    }
}

/// What opening found out.
struct Opened {
    count: i64,
    more: bool,
    totals: Totals,
    pending: VecDeque<Item>,
    cursor: Option<Cursor>,
}

/// Walks the whole range once and keeps nothing but sums.
fn survey(view: &View<'_>, plan: &Plan, at: i64) -> Result<Opened, ReadError> {
    let limit = plan.limit.map_or(u64::MAX, |limit| limit as u64);
    let fetch_limit = plan.fetch_limit() as u64;
    let (mut seen, mut passed) = (0, 0);
    let mut totals = Totals::default();
    let mut budget = usize::MAX;
    let is_count = plan.content == Content::Count;
    let mut rest = None;
    if is_count {
        rest = Some(Cursor::from(plan.keys.start.as_ref()));
    } else {
        let cursor = view.walk(&plan.keys, at, &mut budget, |key, version| {
            seen += 1;
            if plan.passes(version) {
                passed += 1;
                if passed <= limit {
                    totals.add(plan.length(key, version));
                }
            }
            if passed < fetch_limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        rest = cursor.or(rest);
    }
    let uncounted = match rest {
        Some(_) => view.count(&plan.keys, rest, at, &mut budget)?,
        None => 0,
    };
    let cursor = (!is_count).then(|| Cursor::from(plan.keys.start.as_ref()));
    let more = passed > limit;
    Ok(Opened { count: seen + uncounted, more, totals, pending: VecDeque::new(), cursor })
}

/// Finds, sorts and keeps every version of the answer.
fn collect(view: &View<'_>, plan: &Plan, at: i64) -> Result<Opened, ReadError> {
    if plan.content == Content::Count {
        return survey(view, plan, at);
    }
    let mut budget = usize::MAX;
    let (mut items, count) = range::fetch(view, plan, at, &mut budget)?;
    range::sort(view, plan, &mut items)?;
    let limit = plan.limit.unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let mut totals = Totals::default();
    for item in &items {
        let length = match plan.content {
            // What is left without the value is known only from the record.
            Content::WithoutValues => plan.record(view, item)?.len() as u64,
            _ => plan.length(item.key.as_deref().unwrap_or_default(), &item.version),
        };
        totals.add(length);
    }
    Ok(Opened { count, more, totals, pending: items.into(), cursor: None })
}
