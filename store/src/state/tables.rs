//! The small tables as a manifest keeps them.

use bytes::Bytes;
use prost::Message;

use crate::alarm::{AlarmTable, StoredAlarm};
use crate::auth::{AuthTable, StoredAuth};
use crate::command::{MemberAttributes, SetQuota};
use crate::{Fatal, LeaseInfo, Position, Quota};

/// Everything of the state that is not a record.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tables {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint64, tag = "3")]
    membership_term: u64,
    #[prost(uint64, tag = "4")]
    membership_index: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub membership: Bytes,
    #[prost(int64, tag = "6")]
    pub revision: i64,
    #[prost(sint64, tag = "7")]
    pub compacted: i64,
    #[prost(uint32, tag = "8")]
    pub level: u32,
    #[prost(message, repeated, tag = "9")]
    leases: Vec<StoredLease>,
    #[prost(message, repeated, tag = "10")]
    pub members: Vec<MemberAttributes>,
    #[prost(fixed64, repeated, tag = "11")]
    pub removed: Vec<u64>,
    #[prost(message, repeated, tag = "30")]
    alarms: Vec<StoredAlarm>,
    #[prost(message, optional, tag = "31")]
    quota: Option<SetQuota>,
    #[prost(string, tag = "32")]
    pub downgrade_target: String,
    /// None in a store in which nobody was ever given any rights.
    #[prost(message, optional, tag = "20")]
    pub auth: Option<StoredAuth>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

impl Tables {
    /// What a fresh store has.
    pub(crate) fn fresh() -> Self {
        Self { revision: 1, compacted: -1, level: 1, ..Self::default() }
    }

    pub(crate) fn decode_checked(bytes: &Bytes) -> Result<Self, Fatal> {
        let tables = Self::decode(bytes.clone()).map_err(|error| {
            Fatal::new(format_args!("a manifest's tables are damaged: {error}"))
        })?;
        if tables.revision < 1 || tables.compacted > tables.revision {
            return Err(Fatal::new("a manifest's tables contradict themselves"));
        }
        if tables.level > crate::command::LEVEL_CURRENT {
            let (theirs, ours) = (tables.level, crate::command::LEVEL_CURRENT);
            return Err(Fatal::new(format_args!(
                "the data is at semantics level {theirs}, and this version knows only {ours}"
            )));
        }
        Ok(tables)
    }

    pub(crate) fn position(&self) -> Position {
        Position { term: self.term, index: self.index }
    }

    pub(crate) fn set_position(&mut self, position: Position) {
        (self.term, self.index) = (position.term, position.index);
    }

    pub(crate) fn membership_position(&self) -> Position {
        Position { term: self.membership_term, index: self.membership_index }
    }

    pub(crate) fn set_membership(&mut self, position: Position, membership: Bytes) {
        (self.membership_term, self.membership_index) = (position.term, position.index);
        self.membership = membership;
    }

    pub(crate) fn alarms(&self) -> Result<AlarmTable, Fatal> {
        AlarmTable::of_stored(&self.alarms)
            .ok_or_else(|| Fatal::new("a manifest's alarms contradict themselves"))
    }

    pub(crate) fn set_alarms(&mut self, alarms: &AlarmTable) {
        self.alarms = alarms.to_stored();
    }

    pub(crate) fn quota(&self) -> Quota {
        self.quota.map_or_else(Quota::default, |SetQuota { bytes, member }| Quota { member, bytes })
    }

    pub(crate) fn set_quota(&mut self, quota: Quota) {
        let Quota { member, bytes } = quota;
        self.quota = (quota != Quota::default()).then_some(SetQuota { bytes, member });
    }

    pub(crate) fn auth(&self) -> Result<AuthTable, Fatal> {
        self.auth.as_ref().map_or_else(|| Ok(AuthTable::default()), StoredAuth::restored)
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseInfo> + '_ {
        self.leases.iter().map(|stored| LeaseInfo {
            id: stored.id,
            ttl: stored.ttl,
            remaining_ttl: stored.remaining_ttl,
        })
    }

    pub(crate) fn set_leases(&mut self, leases: impl Iterator<Item = LeaseInfo>) {
        let stored = |lease: LeaseInfo| {
            let LeaseInfo { id, ttl, remaining_ttl } = lease;
            StoredLease { id, ttl, remaining_ttl }
        };
        self.leases = leases.map(stored).collect();
    }
}
