//! The watchers of a stream, and whether their owner may still hear what they hear.
//!
//! ```text
//! create ──► asked ──Created──► known ──Canceled, Compacted──► gone
//!              │                  │
//!              └─ rules changed ──┴──► denied: hears nothing more, and of its end with the reason
//! ```
//!
//! Rules are in force before anything that comes after them is published. So a delivery that was
//! taken from the hub before the rules were found unchanged may be shown; otherwise everyone is
//! judged anew first. What was queued for a watcher that is denied then is dropped.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use holdfast_store::auth::{Access, AuthRefusal, AuthRules};
use holdfast_store::command::Credentials;
use holdfast_store::watch::{Delivery, RefusedReason, WatchSpec};
use holdfast_store::{Reader, WatchStream};

use crate::auth::Caller;

/// A watcher.
struct Watcher {
    key: Bytes,
    range_end: Bytes,
    /// Whom it was created for; nobody while authorization was off.
    who: Option<Box<Credentials>>,
    /// Why it hears nothing more.
    denied: Option<AuthRefusal>,
}

/// The watchers of one stream.
pub(super) struct Watchers {
    /// Creations that the hub has not answered, in order; none in place of one that is refused.
    asked: VecDeque<Option<Watcher>>,
    known: BTreeMap<i64, Watcher>,
    /// All of them were judged by these, or later ones.
    rules: AuthRules,
}

/// What may be shown of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// All of it.
    All(Delivery),
    /// The end of a watcher that its owner did not ask for.
    Ended(i64, AuthRefusal),
    /// Nothing.
    Nothing,
}

impl Watcher {
    fn judge(&mut self, reader: &Reader, caller: &Caller) {
        if let (None, Caller::Certificate(user)) = (&self.who, caller) {
            let (user, auth_revision) = (user.to_string(), reader.auth_revision());
            self.who = Some(Box::new(Credentials { user, auth_revision }));
        }
        let access = Access::WatchOn { key: first(&self.key), range_end: &self.range_end };
        self.denied = reader.authorize(self.who.as_deref(), &access).err();
    }
}

/// Without a key the range begins with the first one.
fn first(key: &[u8]) -> &[u8] {
    if key.is_empty() { b"\0" } else { key }
}

impl Watchers {
    pub(super) fn new(rules: AuthRules) -> Self {
        Self { asked: VecDeque::new(), known: BTreeMap::new(), rules }
    }

    /// Whether anybody was let in or refused before.
    pub(super) fn is_unused(&self) -> bool {
        self.asked.is_empty() && self.known.is_empty()
    }

    /// Creates a watcher in a name, if that may hear it.
    pub(super) fn create(
        &mut self,
        reader: &Reader,
        stream: &WatchStream,
        (spec, who): (WatchSpec, Option<Credentials>),
    ) {
        let access = Access::Watch { key: first(&spec.key), range_end: &spec.range_end };
        // A revision below zero is refused by the hub, whoever asks.
        if spec.start_revision >= 0
            && let Err(refusal) = reader.authorize(who.as_ref(), &access)
        {
            return self.refuse(stream, refusal.into());
        }
        let (key, range_end) = (spec.key.clone(), spec.range_end.clone());
        self.asked.push_back(Some(Watcher {
            key,
            range_end,
            who: who.map(Box::new),
            denied: None,
        }));
        stream.create(spec);
    }

    /// Answers a creation that is refused.
    pub(super) fn refuse(&mut self, stream: &WatchStream, reason: RefusedReason) {
        self.asked.push_back(None);
        stream.refuse(reason);
    }

    /// What may be shown of a delivery that has just been taken from the stream.
    pub(super) fn show(
        &mut self,
        reader: &Reader,
        stream: &WatchStream,
        caller: &Caller,
        delivery: Delivery,
    ) -> Shown {
        let rules = reader.auth_rules();
        if rules != self.rules {
            self.rules = rules;
            self.judge(reader, stream, caller);
        }
        self.note(stream, delivery)
    }

    fn judge(&mut self, reader: &Reader, stream: &WatchStream, caller: &Caller) {
        for (id, watcher) in &mut self.known {
            if watcher.denied.is_none() {
                watcher.judge(reader, caller);
                if watcher.denied.is_some() {
                    stream.cancel(*id);
                }
            }
        }
        let asked = self.asked.iter_mut().flatten().filter(|asked| asked.denied.is_none());
        asked.for_each(|asked| asked.judge(reader, caller));
    }

    fn note(&mut self, stream: &WatchStream, delivery: Delivery) -> Shown {
        match &delivery {
            Delivery::Created { id, .. } => {
                let created = self.asked.pop_front().flatten();
                let created = created.expect("only what was asked for is created");
                if created.denied.is_some() {
                    stream.cancel(*id);
                }
                self.known.insert(*id, created);
            }
            Delivery::Refused { .. } => drop(self.asked.pop_front()),
            Delivery::Events { id, .. } | Delivery::Progress { id, .. } => {
                if self.known.get(id).is_some_and(|watcher| watcher.denied.is_some()) {
                    return Shown::Nothing;
                }
            }
            Delivery::Compacted { id, .. } => drop(self.known.remove(id)),
            Delivery::Canceled { id } => {
                let denied = self.known.remove(id).and_then(|watcher| watcher.denied);
                if let Some(refusal) = denied {
                    return Shown::Ended(*id, refusal);
                }
            }
        }
        Shown::All(delivery)
    }
}
