//! Alarms: which are raised, for which member, and why. Replicated, like leases.
//!
//! An alarm is one for clients, whoever raised it. Here it is kept with its causes, because they
//! end differently: what a client raised stays until a client clears it, and what a member raised
//! for itself goes when the cause has gone. A client's clearing clears every cause.

use std::collections::BTreeMap;

/// With so many alarms a client raises no more of them: each is in every checkpoint, and copied
/// whenever somebody looks. Members raise few for themselves, and those always come in.
const ALARMS_MAX: usize = 1000;

/// What an alarm says is wrong; the numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmKind {
    /// No alarm; nothing is ever raised as this.
    None = 0,
    /// There is no room: what would need some is refused.
    NoSpace = 1,
    /// Members disagree about what is stored: writing is refused.
    Corrupt = 2,
}

impl AlarmKind {
    /// Its name on the wire and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

/// Why an alarm is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmCause {
    /// A client said so.
    Client = 0,
    /// The member's file system is below its reserve.
    Disk = 1,
    /// The store has reached its quota.
    Quota = 2,
    /// The member's hash differs from the others'.
    Check = 3,
}

impl AlarmCause {
    fn bit(self) -> u32 {
        1 << (self as i32)
    }
}

/// One alarm as clients see it, with its causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Whose; 0 when nobody can be named.
    pub member: u64,
    /// What is wrong.
    pub kind: AlarmKind,
    causes: u32,
}

impl Alarm {
    /// Whether `cause` is among its causes.
    pub fn has_cause(&self, cause: AlarmCause) -> bool {
        self.causes & cause.bit() != 0
    }
}

/// All alarms, by kind and member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AlarmTable {
    causes: BTreeMap<(AlarmKind, u64), u32>,
}

/// An alarm as a manifest keeps it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct StoredAlarm {
    #[prost(enumeration = "AlarmKind", tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    member: u64,
    #[prost(uint32, tag = "3")]
    causes: u32,
}

impl AlarmTable {
    /// Raises an alarm for one more cause. False for a kind that is none, and for a client's when
    /// there are too many.
    pub(crate) fn raise(&mut self, kind: AlarmKind, member: u64, cause: AlarmCause) -> bool {
        if kind == AlarmKind::None {
            return false;
        }
        let is_new = !self.causes.contains_key(&(kind, member));
        if is_new && cause == AlarmCause::Client && self.causes.len() >= ALARMS_MAX {
            return false;
        }
        *self.causes.entry((kind, member)).or_default() |= cause.bit();
        true
    }

    /// Clears one cause of an alarm, or the whole of it in a client's name. Whether there was
    /// anything to clear.
    pub(crate) fn clear(&mut self, kind: AlarmKind, member: u64, cause: AlarmCause) -> bool {
        let Some(causes) = self.causes.get_mut(&(kind, member)) else { return false };
        let cleared = match cause {
            AlarmCause::Client => *causes,
            _ => *causes & cause.bit(),
        };
        *causes &= !cleared;
        if *causes == 0 {
            self.causes.remove(&(kind, member));
        }
        cleared != 0
    }

    pub(crate) fn is_raised(&self, kind: AlarmKind) -> bool {
        self.causes.range((kind, 0)..=(kind, u64::MAX)).next().is_some()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Alarm> + '_ {
        self.causes.iter().map(|(&(kind, member), &causes)| Alarm { member, kind, causes })
    }

    pub(crate) fn to_stored(&self) -> Vec<StoredAlarm> {
        let stored = |alarm: Alarm| {
            let Alarm { kind, member, causes } = alarm;
            StoredAlarm { kind: kind as i32, member, causes }
        };
        self.all().map(stored).collect()
    }

    /// None if the stored alarms contradict themselves.
    pub(crate) fn of_stored(stored: &[StoredAlarm]) -> Option<Self> {
        let mut causes = BTreeMap::new();
        for alarm in stored {
            let kind = AlarmKind::try_from(alarm.kind).ok().filter(|k| *k != AlarmKind::None)?;
            if alarm.causes == 0 || causes.insert((kind, alarm.member), alarm.causes).is_some() {
                return None;
            }
        }
        Some(Self { causes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_ends_with_its_last_cause_or_with_a_clients_word() {
        let mut table = AlarmTable::default();
        assert!(!table.raise(AlarmKind::None, 1, AlarmCause::Client));
        assert!(table.raise(AlarmKind::NoSpace, 1, AlarmCause::Disk));
        assert!(table.raise(AlarmKind::NoSpace, 1, AlarmCause::Client));
        assert!(table.clear(AlarmKind::NoSpace, 1, AlarmCause::Disk));
        assert!(table.is_raised(AlarmKind::NoSpace), "the client's stays");
        assert!(!table.clear(AlarmKind::NoSpace, 1, AlarmCause::Disk), "already cleared");
        assert!(table.raise(AlarmKind::NoSpace, 1, AlarmCause::Quota));
        assert!(table.clear(AlarmKind::NoSpace, 1, AlarmCause::Client));
        assert!(!table.is_raised(AlarmKind::NoSpace), "a client clears every cause");
        assert!(!table.clear(AlarmKind::NoSpace, 1, AlarmCause::Client));
    }

    #[test]
    fn clients_raise_so_many_and_no_more() {
        let mut table = AlarmTable::default();
        let max = ALARMS_MAX as u64;
        for member in 0..max {
            assert!(table.raise(AlarmKind::NoSpace, member, AlarmCause::Client));
        }
        assert!(!table.raise(AlarmKind::NoSpace, max, AlarmCause::Client));
        assert!(!table.raise(AlarmKind::Corrupt, 0, AlarmCause::Client));
        assert_eq!(table.all().count(), ALARMS_MAX);
        assert!(table.raise(AlarmKind::NoSpace, 7, AlarmCause::Client), "it is raised already");
        assert!(table.raise(AlarmKind::Corrupt, 0, AlarmCause::Check), "a member's own");
        assert!(table.raise(AlarmKind::Corrupt, 0, AlarmCause::Client));
        table.clear(AlarmKind::NoSpace, 1, AlarmCause::Client);
        table.clear(AlarmKind::NoSpace, 2, AlarmCause::Client);
        assert!(table.raise(AlarmKind::NoSpace, max, AlarmCause::Client));
    }

    #[test]
    fn alarms_of_several_members_and_kinds_are_told_apart() {
        let mut table = AlarmTable::default();
        table.raise(AlarmKind::NoSpace, 2, AlarmCause::Disk);
        table.raise(AlarmKind::NoSpace, u64::MAX, AlarmCause::Quota);
        table.raise(AlarmKind::Corrupt, 0, AlarmCause::Check);
        let all: Vec<_> = table.all().map(|alarm| (alarm.kind, alarm.member)).collect();
        let (no_space, corrupt) = (AlarmKind::NoSpace, AlarmKind::Corrupt);
        assert_eq!(all, [(no_space, 2), (no_space, u64::MAX), (corrupt, 0)]);
        assert_eq!(AlarmTable::of_stored(&table.to_stored()), Some(table.clone()));
        table.clear(no_space, 2, AlarmCause::Client);
        assert!(table.is_raised(no_space) && table.is_raised(corrupt));
        let odd = StoredAlarm { kind: 7, member: 1, causes: 1 };
        assert_eq!(AlarmTable::of_stored(&[odd]), None);
    }
}
