//! One stream's queue: deliveries in the order in which the client is to see them.
//!
//! While one watcher is in the middle of a revision that reaches the client in fragments, whatever
//! else happens is held back: clients put fragments together by position, not by watcher.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use super::batch::Share;
use super::limits::DELIVERY_WEIGHT;
use super::{Delivery, StreamLimits, Wake};

/// What hub and consumer share of a stream.
pub(super) struct StreamCore {
    /// Its place among the hub's streams.
    pub(super) number: u64,
    pub(super) limits: StreamLimits,
    pub(super) wake: Arc<dyn Wake>,
    queue: Mutex<Queue>,
}

impl StreamCore {
    pub(super) fn new(number: u64, limits: StreamLimits, wake: Arc<dyn Wake>) -> Self {
        Self { number, limits, wake, queue: Mutex::new(Queue::default()) }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics under a queue's lock")
    }

    /// Whether the stream is above its bound, as far as this watcher is concerned.
    pub(super) fn is_full_for(&self, id: i64) -> bool {
        self.queue().weight_before(id) >= self.limits.queue_bytes
    }

    /// As [`StreamCore::is_full_for`]; if so, the consumer will call for the hub once it has
    /// drained the queue to half its bound. While another watcher is in the middle of a revision
    /// that would be in vain, since what is held stays: whoever waits for that is called at its
    /// end.
    pub(super) fn park_if_full(&self, id: i64) -> bool {
        let mut queue = self.queue();
        let full = queue.weight_before(id) >= self.limits.queue_bytes;
        let waits_for_another = queue.fragmenting.is_some_and(|other| other != id);
        queue.parked |= full && !waits_for_another;
        full
    }
}

/// One queued message.
#[derive(Debug)]
pub(super) enum Item {
    /// As it is.
    Plain(Delivery),
    /// Events of a shared batch.
    Events(Share),
}

impl Item {
    /// The watcher it is about; `None` if it is about the stream.
    fn watcher(&self) -> Option<i64> {
        match self {
            Self::Events(share) => Some(share.id),
            Self::Plain(Delivery::Compacted { id, .. } | Delivery::Canceled { id }) => Some(*id),
            Self::Plain(_) => None,
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Events(share) => DELIVERY_WEIGHT + share.bytes(),
            Self::Plain(_) => DELIVERY_WEIGHT,
        }
    }
}

/// The queue itself.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    items_weight: usize,
    /// What waits until the watcher `fragmenting` has the rest of its revision.
    held: VecDeque<Item>,
    held_weight: usize,
    fragmenting: Option<i64>,
    /// Somebody was turned away because the queue was full.
    parked: bool,
    /// The consumer was woken and has not found the queue empty since.
    awake: bool,
}

impl Queue {
    /// The watcher in the middle of a revision.
    pub(super) fn fragmenting(&self) -> Option<i64> {
        self.fragmenting
    }

    /// What the client has yet to take before something new for this watcher.
    fn weight_before(&self, id: i64) -> usize {
        let held = if self.fragmenting == Some(id) { 0 } else { self.held_weight };
        self.items_weight + held
    }

    /// Adds at the end. True if the consumer must be woken.
    #[must_use]
    pub(super) fn push(&mut self, item: Item) -> bool {
        if self.fragmenting.is_some() && item.watcher() != self.fragmenting {
            self.held_weight += item.weight();
            self.held.push_back(item);
            return false;
        }
        let unfinished = match &item {
            Item::Events(share) if share.is_unfinished() => Some(share.id),
            _ => None,
        };
        let released = self.fragmenting.is_some() && unfinished.is_none();
        self.fragmenting = unfinished;
        self.items_weight += item.weight();
        self.items.push_back(item);
        if released {
            self.release();
        }
        !std::mem::replace(&mut self.awake, true)
    }

    fn release(&mut self) {
        self.items.append(&mut self.held);
        self.items_weight += std::mem::take(&mut self.held_weight);
    }

    /// The next delivery, and whether the hub must be told that there is room again.
    pub(super) fn next(&mut self, max_bytes: usize, low_weight: usize) -> (Option<Delivery>, bool) {
        let delivery = self.pop(max_bytes);
        if delivery.is_none() {
            self.awake = false;
        }
        let room = self.parked && self.items_weight <= low_weight;
        if room {
            self.parked = false;
        }
        (delivery, room)
    }

    fn pop(&mut self, max_bytes: usize) -> Option<Delivery> {
        let first = match self.items.front_mut()? {
            Item::Events(_) => self.pop_events(max_bytes),
            Item::Plain(_) => {
                self.items_weight -= DELIVERY_WEIGHT;
                let Some(Item::Plain(delivery)) = self.items.pop_front() else {
                    unreachable!("the front was just seen")
                };
                delivery
            }
        };
        Some(first)
    }

    /// Events from the front; as many shares of the same watcher as `max_bytes` allows.
    fn pop_events(&mut self, max_bytes: usize) -> Delivery {
        let (first, splittable) = self.take_from_front(max_bytes);
        let Delivery::Events { id, mut revision, mut events, more_fragments } = first else {
            unreachable!("a share gives events")
        };
        let mut room = max_bytes.saturating_sub(events.iter().map(|event| event.len()).sum());
        while !splittable && self.front_continues(id, room) {
            let before = self.items_weight;
            let (next, _) = self.take_from_front(room);
            room = room.saturating_sub(before - self.items_weight);
            if let Delivery::Events { revision: reached, events: more, .. } = next {
                revision = reached;
                events.extend(more);
            }
        }
        Delivery::Events { id, revision, events, more_fragments }
    }

    fn front_continues(&self, id: i64, room: usize) -> bool {
        match self.items.front() {
            Some(Item::Events(share)) => share.id == id && share.bytes() < room,
            _ => false,
        }
    }

    fn take_from_front(&mut self, max_bytes: usize) -> (Delivery, bool) {
        let Some(Item::Events(share)) = self.items.front_mut() else {
            unreachable!("the front was just seen")
        };
        let before = share.bytes();
        let delivery = share.take(max_bytes);
        let splittable = share.may_split();
        self.items_weight -= before - share.bytes();
        if share.is_taken() {
            self.items_weight -= DELIVERY_WEIGHT;
            self.items.pop_front();
        }
        (delivery, splittable)
    }

    pub(super) fn weight(&self) -> usize {
        self.items_weight + self.held_weight
    }
}

/// Consumers to wake once no lock is held.
#[derive(Default)]
pub(super) struct Wakes {
    streams: Vec<Arc<StreamCore>>,
    catch_up: Option<Arc<dyn Wake>>,
}

impl Wakes {
    pub(super) fn stream(&mut self, core: &Arc<StreamCore>) {
        self.streams.push(core.clone());
    }

    pub(super) fn catch_up(&mut self, wake: Option<&Arc<dyn Wake>>) {
        if let Some(wake) = wake {
            self.catch_up = Some(wake.clone());
        }
    }

    pub(super) fn fire(self) {
        self.streams.iter().for_each(|core| core.wake.wake());
        if let Some(wake) = self.catch_up {
            wake.wake();
        }
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.streams.append(&mut other.streams);
        self.catch_up = other.catch_up.or(self.catch_up.take());
    }
}
