//! The whole alphabet of the state machine: every change that can be replicated.
//!
//! Commands travel in log entries, so each has a field-tagged encoding that later versions can
//! extend. They carry no clock and no randomness, and name the user in whose name they come but show
//! neither its password nor its token: what a command does depends on the state before it and on the
//! level of the entry that holds it, on nothing else.

mod auth;

use bytes::Bytes;

use crate::{AlarmCause, AlarmKind};

pub use auth::*;

/// The semantics level that this code writes, and the highest that it can apply.
pub const LEVEL_CURRENT: u32 = 1;

/// One replicated change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// What to do; a command without it does nothing (it was made by a newer level).
    #[prost(oneof = "Change", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 21, 30, 31, 32, 33")]
    pub change: Option<Change>,
    /// In whose name; none for a member's own commands, and while authorization is off.
    #[prost(message, optional, tag = "20")]
    pub credentials: Option<Credentials>,
}

impl From<Change> for Command {
    fn from(change: Change) -> Self {
        Self { change: Some(change), credentials: None }
    }
}

/// What a [`Command`] does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Change {
    /// Write one key.
    #[prost(message, tag = "1")]
    Put(Put),
    /// Delete a key or a range.
    #[prost(message, tag = "2")]
    DeleteRange(DeleteRange),
    /// Compare, then one of two lists of operations, as one revision.
    #[prost(message, tag = "3")]
    Txn(Txn),
    /// Forget superseded revisions.
    #[prost(message, tag = "4")]
    Compact(Compact),
    /// Make a lease.
    #[prost(message, tag = "5")]
    LeaseGrant(LeaseGrant),
    /// End a lease and delete its keys.
    #[prost(message, tag = "6")]
    LeaseRevoke(LeaseRevoke),
    /// Record how long leases have left.
    #[prost(message, tag = "7")]
    LeaseCheckpoint(LeaseCheckpoint),
    /// Publish what a member says of itself.
    #[prost(message, tag = "8")]
    MemberAttributes(MemberAttributes),
    /// Raise the semantics level of the entries that follow.
    #[prost(message, tag = "9")]
    RaiseLevel(RaiseLevel),
    /// Change who may do what.
    #[prost(message, tag = "21")]
    Auth(AuthChange),
    /// Raise an alarm.
    #[prost(message, tag = "30")]
    RaiseAlarm(RaiseAlarm),
    /// Clear an alarm, or one cause of it.
    #[prost(message, tag = "31")]
    ClearAlarm(ClearAlarm),
    /// Set the byte quota.
    #[prost(message, tag = "32")]
    SetQuota(SetQuota),
    /// Note that a downgrade is wanted, or not any more.
    #[prost(message, tag = "33")]
    SetDowngrade(SetDowngrade),
}

/// Writes `key`. Rejected as a whole when `lease` is unknown, or a flag needs a key that is absent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// The key; the caller has checked that it is not empty.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value; empty with `ignore_value`.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// The lease to attach to, 0 for none; 0 with `ignore_lease`.
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// Whether the response holds the version before this one.
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    /// Keep the present value.
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    /// Keep the present lease.
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// Deletes `key`, or every key of `[key, range_end)`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRange {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Empty for one key, `\0` for every key from `key` on, else the key after the last.
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// Whether the response holds what was deleted.
    #[prost(bool, tag = "3")]
    pub prev_kv: bool,
}

/// The order in which a range is answered; the numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// By key, ascending; with another target than the key, ascending after the limit was applied.
    None = 0,
    /// Ascending by the target.
    Ascend = 1,
    /// Descending by the target.
    Descend = 2,
}

/// What a range is sorted by; the numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// The key.
    Key = 0,
    /// The version.
    Version = 1,
    /// The create revision.
    Create = 2,
    /// The mod revision.
    Mod = 3,
    /// The value.
    Value = 4,
}

/// A read of one key or of `[key, range_end)`; inside a transaction, or by itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Range {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// As in [`DeleteRange`].
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    /// At most so many records; 0 and below for all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// The revision to read at; 0 for the latest. Negative is the latest outside a transaction only.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// The order of the answer.
    #[prost(enumeration = "SortOrder", tag = "5")]
    pub sort_order: i32,
    /// What the order is by.
    #[prost(enumeration = "SortTarget", tag = "6")]
    pub sort_target: i32,
    /// Answer without values.
    #[prost(bool, tag = "7")]
    pub keys_only: bool,
    /// Answer with the count alone.
    #[prost(bool, tag = "8")]
    pub count_only: bool,
    /// Only versions modified at or after this revision; 0 for no bound, as in the next three.
    #[prost(int64, tag = "9")]
    pub min_mod_revision: i64,
    /// Only versions modified at or before this revision.
    #[prost(int64, tag = "10")]
    pub max_mod_revision: i64,
    /// Only keys created at or after this revision.
    #[prost(int64, tag = "11")]
    pub min_create_revision: i64,
    /// Only keys created at or before this revision.
    #[prost(int64, tag = "12")]
    pub max_create_revision: i64,
}

/// How a [`Compare`] relates the stored property to the given one; the numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// Stored = given.
    Equal = 0,
    /// Stored > given.
    Greater = 1,
    /// Stored < given.
    Less = 2,
    /// Stored ≠ given.
    NotEqual = 3,
}

/// What a [`Compare`] looks at, and the value it is held against.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum CompareTarget {
    /// The version; 0 for an absent key.
    #[prost(int64, tag = "4")]
    Version(i64),
    /// The create revision; 0 for an absent key.
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    /// The mod revision; 0 for an absent key.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    /// The value; never true of an absent key.
    #[prost(bytes = "bytes", tag = "7")]
    Value(Bytes),
    /// The lease; 0 for an absent key.
    #[prost(int64, tag = "8")]
    Lease(i64),
}

/// One guard of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// A [`CompareResult`]; any other number holds always, as in etcd.
    #[prost(int32, tag = "1")]
    pub result: i32,
    /// The key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// As in [`DeleteRange`]: the guard must hold for every key of the range.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
    /// What is compared. The caller fills in zero or empty where a client left it out.
    #[prost(oneof = "CompareTarget", tags = "4, 5, 6, 7, 8")]
    pub target: Option<CompareTarget>,
}

/// One operation of a transaction branch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Operation {
    /// What to do; the caller has checked that it is there.
    #[prost(oneof = "OperationKind", tags = "1, 2, 3, 4")]
    pub kind: Option<OperationKind>,
}

/// What an [`Operation`] does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OperationKind {
    /// Read.
    #[prost(message, tag = "1")]
    Range(Range),
    /// Write one key.
    #[prost(message, tag = "2")]
    Put(Put),
    /// Delete.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRange),
    /// A transaction within; its guards see the state before the outermost one.
    #[prost(message, tag = "4")]
    Txn(Txn),
}

/// Guards, and the operations to run when all of them hold or when one does not.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Txn {
    /// All must hold; none at all holds.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// Run when the guards hold.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<Operation>,
    /// Run when one does not.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<Operation>,
}

/// Makes every revision below `revision` unreadable, and its superseded records removable.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compact {
    /// The oldest revision that stays readable.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// A member's own doing, as its flags ask for, and in nobody's name; false when a client asks.
    #[prost(bool, tag = "2")]
    pub automatic: bool,
}

/// Makes a lease. The member that proposes it has chosen `id` and bounded `ttl`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseGrant {
    /// Never 0.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
}

/// Ends a lease and deletes the keys attached to it, in one revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseRevoke {
    /// Which lease.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// The term in which a leader decided that the lease has expired; 0 when a client asks.
    /// An expiry takes effect only in an entry of that very term.
    #[prost(uint64, tag = "2")]
    pub decided_in_term: u64,
}

/// Records how long leases have left, so that a new leader does not start them anew.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseCheckpoint {
    /// Unknown leases are passed over.
    #[prost(message, repeated, tag = "1")]
    pub remainders: Vec<LeaseRemainder>,
    /// The term of the clock that they were read from: they take effect only in an entry of that
    /// very term, because a later leader has answered for the leases since. 0 counts in any term.
    #[prost(uint64, tag = "2")]
    pub decided_in_term: u64,
}

/// What is left of one lease.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseRemainder {
    /// Which lease.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds; 0 says "full again".
    #[prost(int64, tag = "2")]
    pub remaining_ttl: i64,
}

/// What a member publishes of itself once it has started.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberAttributes {
    /// Whose attributes these are.
    #[prost(uint64, tag = "1")]
    pub member: u64,
    /// `--name`.
    #[prost(string, tag = "2")]
    pub name: String,
    /// `--advertise-client-urls`.
    #[prost(string, repeated, tag = "3")]
    pub client_urls: Vec<String>,
    /// The random incarnation of its data directory.
    #[prost(uint64, tag = "4")]
    pub incarnation: u64,
    /// The highest semantics level it can apply.
    #[prost(uint32, tag = "5")]
    pub level_max: u32,
}

/// Raises the semantics level; a lower or equal one changes nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaiseLevel {
    /// The level of the entries that follow.
    #[prost(uint32, tag = "1")]
    pub level: u32,
}

/// Raises an alarm; one that is raised already gets one more cause.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RaiseAlarm {
    /// What is wrong; nothing happens for none.
    #[prost(enumeration = "AlarmKind", tag = "1")]
    pub kind: i32,
    /// Whose alarm it is, as given: it need not be a member.
    #[prost(uint64, tag = "2")]
    pub member: u64,
    /// Why.
    #[prost(enumeration = "AlarmCause", tag = "3")]
    pub cause: i32,
}

/// Clears an alarm in a client's name, or else one cause of it. The quota's cause is cleared only
/// if there is room when this is applied.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ClearAlarm {
    /// Which.
    #[prost(enumeration = "AlarmKind", tag = "1")]
    pub kind: i32,
    /// Whose.
    #[prost(uint64, tag = "2")]
    pub member: u64,
    /// Which cause; a client's word clears all.
    #[prost(enumeration = "AlarmCause", tag = "3")]
    pub cause: i32,
}

/// Sets the byte quota: proposed by a leader whose own setting is another than the one in force.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SetQuota {
    /// Bytes; 0 for no limit.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
    /// Whose setting it is.
    #[prost(uint64, tag = "2")]
    pub member: u64,
}

/// Notes a downgrade that clients ask for. Rejected while another is noted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetDowngrade {
    /// The version to go down to; empty to call it off.
    #[prost(string, tag = "1")]
    pub target: String,
}
