//! Package `mvccpb` as plain structures, for those who build or read key versions and events.
//!
//! Written by hand because the generated API refers to the encoded forms; the fields are those of
//! `mvcc.proto`, and a test compares the two.

use bytes::Bytes;

/// One version of a key.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct KeyValue {
    /// The key; never empty.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The main revision of the first put since the key's last delete.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// The main revision of this version.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// 1 for the version made at `create_revision`, and one more with every put since.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// What was put.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// The lease the key is attached to; 0 is none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// The key was written.
    Put = 0,
    /// The key was deleted.
    Delete = 1,
}

/// One change of a key.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Event {
    /// What happened.
    #[prost(enumeration = "EventType", tag = "1")]
    pub r#type: i32,
    /// The new version; of a delete only `key` and `mod_revision` are set.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
    /// The version before the event, when it was asked for.
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}
