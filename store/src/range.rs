//! Ranges as etcd answers them: which keys, in which order, how many.
//!
//! The order of operations: fetch (one more than the limit, if nothing but the key order is asked
//! for), filter by revisions, sort, cut to the limit. The index has every fact that filters and
//! sorts need except the value, so that only the records of the answer are read.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::{Range, SortOrder, SortTarget};
use crate::index::{KeyRange, Version};
use crate::view::{INLINE_BYTES_MAX, View, WALK_KEYS_MAX};
use crate::{Effort, Fatal, RangeResult, ReadError, record};

/// A [`Range`] request, understood.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub keys: KeyRange,
    /// None for no limit.
    pub limit: Option<usize>,
    pub order: Order,
    pub content: Content,
    filters: Filters,
    /// Whether the limit bounds what is fetched; with a filter or another order it cannot.
    limits_fetch: bool,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As the index has them.
    Key,
    /// By something else.
    By { target: SortTarget, descending: bool },
}

/// What of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// All of it.
    Records,
    /// What the index knows, which is everything but value and lease.
    IndexOnly,
    /// All but the value.
    WithoutValues,
    /// Nothing: only how many there are.
    Count,
}

/// Bounds on revisions; 0 for none.
#[derive(Clone, Copy, Debug)]
struct Filters {
    min_mod: i64,
    max_mod: i64,
    min_create: i64,
    max_create: i64,
}

/// One key of an answer in the making.
pub(crate) struct Item {
    /// Only where the record is made from the index.
    pub key: Option<Bytes>,
    pub version: Version,
}

impl Plan {
    pub(crate) fn new(range: &Range) -> Self {
        let target = range.sort_target();
        let order = match (target, range.sort_order()) {
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => Order::Key,
            (_, order) => Order::By { target, descending: order == SortOrder::Descend },
        };
        let content = match (range.count_only, range.keys_only, target) {
            (true, _, _) => Content::Count,
            (_, true, SortTarget::Value) => Content::WithoutValues,
            (_, true, _) => Content::IndexOnly,
            _ => Content::Records,
        };
        let filters = Filters {
            min_mod: range.min_mod_revision,
            max_mod: range.max_mod_revision,
            min_create: range.min_create_revision,
            max_create: range.max_create_revision,
        };
        let unordered = range.sort_order() == SortOrder::None || order == Order::Key;
        Self {
            keys: KeyRange::new(&range.key, &range.range_end),
            limit: usize::try_from(range.limit).ok().filter(|limit| *limit > 0),
            order,
            content,
            filters,
            limits_fetch: unordered && filters.are_absent(),
        }
    }

    /// How many passing keys to fetch at most.
    pub(crate) fn fetch_limit(&self) -> usize {
        match self.limit {
            Some(limit) if self.limits_fetch => limit.saturating_add(1),
            _ => usize::MAX,
        }
    }

    pub(crate) fn passes(&self, version: &Version) -> bool {
        self.filters.pass(version)
    }

    fn is_sorted_by_value(&self) -> bool {
        matches!(self.order, Order::By { target: SortTarget::Value, .. })
    }

    /// The item for a key, with only what its record will need.
    pub(crate) fn item(&self, key: &[u8], version: &Version) -> Item {
        let keep = self.content == Content::IndexOnly;
        Item { key: keep.then(|| Bytes::copy_from_slice(key)), version: *version }
    }

    /// The length of the record of a key in the answer.
    pub(crate) fn length(&self, key: &[u8], version: &Version) -> u64 {
        match self.content {
            Content::Records => u64::from(version.length()),
            Content::IndexOnly => index_only_length(key.len(), version) as u64,
            Content::WithoutValues | Content::Count => 0,
        }
    }

    /// The record of an item.
    pub(crate) fn record(&self, view: &View<'_>, item: &Item) -> Result<Bytes, ReadError> {
        match self.content {
            Content::IndexOnly => {
                let key = item.key.as_deref().expect("kept for this content");
                let v = &item.version;
                let (create, modified) = (v.create_revision(), v.mod_revision());
                Ok(record::encode_put(key, &[], create, modified, v.version(), 0))
            }
            Content::WithoutValues => Ok(record::without_value(&view.record(&item.version)?)?),
            Content::Records | Content::Count => view.record(&item.version),
        }
    }
}

fn index_only_length(key: usize, v: &Version) -> usize {
    record::put_length(key, 0, v.create_revision(), v.mod_revision(), v.version(), 0)
}

impl Filters {
    fn are_absent(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create] == [0; 4]
    }

    fn pass(&self, version: &Version) -> bool {
        let within = |revision: i64, min: i64, max: i64| {
            (min == 0 || revision >= min) && (max == 0 || revision <= max)
        };
        within(version.mod_revision(), self.min_mod, self.max_mod)
            && within(version.create_revision(), self.min_create, self.max_create)
    }
}

/// Answers a range from a view.
pub(crate) fn execute(view: &View<'_>, range: &Range) -> Result<RangeResult, ReadError> {
    let at = view.resolve(range.revision)?;
    let plan = Plan::new(range);
    let mut budget = WALK_KEYS_MAX;
    if plan.content == Content::Count {
        let count = view.count(&plan.keys, None, at, &mut budget)?;
        return Ok(RangeResult { records: Vec::new(), more: false, count });
    }
    let (mut items, count) = fetch(view, &plan, at, &mut budget)?;
    sort(view, &plan, &mut items)?;
    let limit = plan.limit.unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let records = items.iter().map(|item| plan.record(view, item)).collect::<Result<_, _>>()?;
    Ok(RangeResult { records, more, count })
}

/// The keys that pass, in key order, and the count of all.
pub(crate) fn fetch(
    view: &View<'_>,
    plan: &Plan,
    at: i64,
    budget: &mut usize,
) -> Result<(Vec<Item>, i64), ReadError> {
    let fetch_limit = plan.fetch_limit();
    let mut items = Vec::new();
    let (mut seen, mut bytes) = (0_i64, 0_u64);
    let inline = view.effort == Effort::Inline;
    let cursor = view.walk(&plan.keys, at, budget, |key, version| {
        seen += 1;
        if plan.passes(version) {
            items.push(plan.item(key, version));
            bytes += u64::from(version.length());
        }
        let too_much = inline && bytes > INLINE_BYTES_MAX && items.len() > 1;
        if items.len() >= fetch_limit || too_much {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    // The record over the limit is not read, so its size does not count.
    let over = items.len() > plan.limit.unwrap_or(usize::MAX);
    let unread = items.last().filter(|_| over).map_or(0, |item| item.version.length().into());
    if inline && bytes.saturating_sub(unread) > INLINE_BYTES_MAX {
        return Err(ReadError::WouldBlock);
    }
    let rest = match cursor {
        None => 0,
        Some(cursor) => view.count(&plan.keys, Some(cursor), at, budget)?,
    };
    Ok((items, seen + rest))
}

/// Puts items in the order asked for. Ties keep the order of keys.
pub(crate) fn sort(view: &View<'_>, plan: &Plan, items: &mut Vec<Item>) -> Result<(), ReadError> {
    let Order::By { target, descending } = plan.order else { return Ok(()) };
    if plan.is_sorted_by_value() {
        return sort_by_value(view, items, descending);
    }
    let by = |item: &Item| match target {
        SortTarget::Version => item.version.version(),
        SortTarget::Create => item.version.create_revision(),
        SortTarget::Mod => item.version.mod_revision(),
        SortTarget::Key | SortTarget::Value => 0,
    };
    match (target, descending) {
        (SortTarget::Key, _) => items.reverse(),
        (_, false) => items.sort_by_key(by),
        (_, true) => items.sort_by_key(|item| Reverse(by(item))),
    }
    Ok(())
}

fn sort_by_value(
    view: &View<'_>,
    items: &mut Vec<Item>,
    descending: bool,
) -> Result<(), ReadError> {
    if view.effort == Effort::Inline {
        return Err(ReadError::WouldBlock);
    }
    let value = |item: Item| -> Result<(Bytes, Item), ReadError> {
        Ok((record::value_of(&view.record(&item.version)?)?, item))
    };
    let mut valued = items.drain(..).map(value).collect::<Result<Vec<_>, _>>()?;
    if descending {
        valued.sort_by(|(a, _), (b, _)| b.cmp(a));
    } else {
        valued.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    items.extend(valued.into_iter().map(|(_, item)| item));
    Ok(())
}

/// A read by the apply thread cannot be refused or put off: its request was checked before.
pub(crate) fn no_refusal(error: ReadError) -> Fatal {
    match error {
        ReadError::Fatal(fatal) => fatal,
        ReadError::WouldBlock => Fatal::new("apply reads without a bound on its effort"),
        ReadError::Rejected(rejected) => {
            Fatal::new(format_args!("a checked read was refused: {rejected}"))
        }
    }
}
