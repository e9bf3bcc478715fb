//! What etcd 3.6 keeps in which bucket, and in which bytes.
//!
//! ```text
//! key              revision (17 bytes; 18 with a t for a deletion) -> mvccpb.KeyValue
//! lease            id, 8 bytes -> leasepb.Lease
//! meta             consistent_index, term, confState, storageVersion, *CompactRev
//! cluster          clusterVersion, downgrade
//! members          id in hex -> JSON     members_removed   id in hex -> "removed"
//! auth             authEnabled, authRevision
//! authUsers        name -> authpb.User         authRoles        name -> authpb.Role
//! alarm
//! ```

use bytes::Bytes;
use holdfast_proto::authpb;
use holdfast_proto::etcdserverpb::AlarmMember;
use holdfast_raft::Member;
use holdfast_store::auth::{StoredRole, StoredUser};
use holdfast_store::command::Permission;
use holdfast_store::record::encode_tombstone;
use holdfast_store::{Alarm, LeaseInfo, Record, RecordKind, Revision};
use prost::Message;
use serde_json::{Value, json};

/// Every key's every revision.
pub const KEY: &[u8] = b"key";
/// Leases.
pub const LEASE: &[u8] = b"lease";
/// Facts about the database as a whole.
pub const META: &[u8] = b"meta";
/// Facts about the cluster.
pub const CLUSTER: &[u8] = b"cluster";
/// Its members.
pub const MEMBERS: &[u8] = b"members";
/// Who was one.
pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
/// Active alarms.
pub const ALARM: &[u8] = b"alarm";
/// Whether authentication is on, and its revision.
pub const AUTH: &[u8] = b"auth";
/// Users.
pub const AUTH_USERS: &[u8] = b"authUsers";
/// Roles.
pub const AUTH_ROLES: &[u8] = b"authRoles";

/// In [`META`]: the last entry applied, 8 bytes.
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// In [`META`]: its term, 8 bytes.
pub const TERM: &[u8] = b"term";
/// In [`META`]: raft's members, JSON.
pub const CONF_STATE: &[u8] = b"confState";
/// In [`META`]: the version of etcd that made the database.
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
/// In [`META`]: the compaction asked for, a revision.
pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
/// In [`META`]: the compaction carried out, a revision.
pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
/// In [`CLUSTER`].
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// In [`AUTH`]: 8 bytes.
pub const AUTH_REVISION: &[u8] = b"authRevision";
/// In [`AUTH`]: one byte.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";

const REVISION_BYTES: usize = 17;
const TOMBSTONE_MARK: u8 = b't';

/// `leasepb.Lease`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

/// A revision as a key, 17 bytes.
pub fn revision_key(revision: Revision) -> [u8; REVISION_BYTES] {
    let mut key = [0; REVISION_BYTES];
    key[..8].copy_from_slice(&revision.main.to_be_bytes());
    key[8] = b'_';
    key[9..].copy_from_slice(&revision.sub.to_be_bytes());
    key
}

/// A record's key and value.
pub fn record_pair(record: &Record) -> (Vec<u8>, Bytes) {
    let mut key = revision_key(record.revision).to_vec();
    match record.kind {
        RecordKind::Put { .. } => (key, record.bytes.clone()),
        RecordKind::Tombstone => {
            key.push(TOMBSTONE_MARK);
            (key, encode_tombstone(&record.key, 0))
        }
    }
}

/// The revision of a key in [`KEY`], and whether it stands for a deletion.
pub fn parse_revision(key: &[u8]) -> Option<(Revision, bool)> {
    let is_tombstone = match key.get(REVISION_BYTES..)? {
        [] => false,
        [TOMBSTONE_MARK] => true,
        _ => return None,
    };
    let number = |at: usize| key[at..at + 8].try_into().map(i64::from_be_bytes).ok();
    let revision = Revision::new(number(0)?, number(9)?);
    (key[8] == b'_' && revision.main >= 0 && revision.sub >= 0).then_some((revision, is_tombstone))
}

/// A lease's key and value.
pub fn lease_pair(lease: &LeaseInfo) -> ([u8; 8], Vec<u8>) {
    let LeaseInfo { id, ttl, remaining_ttl } = *lease;
    (id.to_be_bytes(), StoredLease { id, ttl, remaining_ttl }.encode_to_vec())
}

/// A lease, from its value.
pub fn parse_lease(value: &[u8]) -> Option<LeaseInfo> {
    let StoredLease { id, ttl, remaining_ttl } = StoredLease::decode(value).ok()?;
    (id != 0).then_some(LeaseInfo { id, ttl, remaining_ttl })
}

/// An alarm's key, which says everything, and its empty value.
pub fn alarm_pair(alarm: &Alarm) -> (Vec<u8>, Vec<u8>) {
    let member = AlarmMember { member_id: alarm.member, alarm: alarm.kind as i32 };
    (member.encode_to_vec(), Vec::new())
}

/// A user's key and value.
pub fn user_pair(user: &StoredUser) -> (Vec<u8>, Vec<u8>) {
    let name = user.name.clone().into_bytes();
    let value = authpb::User {
        name: name.clone().into(),
        password: user.password_hash.clone(),
        roles: user.roles.clone(),
        options: Some(authpb::UserAddOptions { no_password: user.no_password }),
    };
    (name, value.encode_to_vec())
}

/// A user, from its key and value.
pub fn parse_user(key: &[u8], value: &Bytes) -> Option<StoredUser> {
    let user = authpb::User::decode(value.clone()).ok()?;
    let mut roles = user.roles;
    roles.sort();
    roles.dedup();
    Some(StoredUser {
        name: name(key, &user.name)?,
        password_hash: user.password,
        no_password: user.options.is_some_and(|options| options.no_password),
        roles,
        // The file does not know it.
        since: 0,
    })
}

/// A role's key and value.
pub fn role_pair(role: &StoredRole) -> (Vec<u8>, Vec<u8>) {
    let name = role.name.clone().into_bytes();
    let permissions = role.permissions.iter().map(|permission| authpb::Permission {
        perm_type: permission.kind,
        key: permission.key.clone(),
        range_end: permission.range_end.clone(),
    });
    let key_permission = permissions.collect();
    let value = authpb::Role { name: name.clone().into(), key_permission };
    (name, value.encode_to_vec())
}

/// A role, from its key and value.
pub fn parse_role(key: &[u8], value: &Bytes) -> Option<StoredRole> {
    let role = authpb::Role::decode(value.clone()).ok()?;
    let permissions = role.key_permission.into_iter().map(|permission| Permission {
        kind: permission.perm_type,
        key: permission.key,
        range_end: permission.range_end,
    });
    let mut permissions: Vec<_> = permissions.collect();
    permissions.sort_by(|a, b| a.key.cmp(&b.key));
    Some(StoredRole { name: name(key, &role.name)?, permissions })
}

/// A name that stands in the key and in the value.
fn name(key: &[u8], in_value: &[u8]) -> Option<String> {
    String::from_utf8(key.to_vec())
        .ok()
        .filter(|name| !key.is_empty() && name.as_bytes() == in_value)
}

/// A member's key and value.
pub fn member_pair(member: &Member) -> (Vec<u8>, Vec<u8>) {
    let mut value = json!({ "id": member.id, "peerURLs": member.peer_urls });
    if member.is_learner {
        value["isLearner"] = Value::Bool(true);
    }
    if !member.name.is_empty() {
        value["name"] = member.name.clone().into();
    }
    if !member.client_urls.is_empty() {
        value["clientURLs"] = member.client_urls.clone().into();
    }
    (format!("{:x}", member.id).into_bytes(), value.to_string().into_bytes())
}

/// Raft's members, as etcd keeps them.
pub fn conf_state(members: &[Member]) -> Vec<u8> {
    let ids = |learners: bool| -> Vec<u64> {
        members.iter().filter(|m| m.is_learner == learners).map(|member| member.id).collect()
    };
    let mut state = json!({ "voters": ids(false), "auto_leave": false });
    let learners = ids(true);
    if !learners.is_empty() {
        state["learners"] = learners.into();
    }
    state.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_etcds_keys() {
        let key = *b"\0\0\0\0\0\0\0\x04_\0\0\0\0\0\0\0\x01";
        assert_eq!(revision_key(Revision::new(4, 1)), key);
        assert_eq!(parse_revision(&key), Some((Revision::new(4, 1), false)));
        assert_eq!(parse_revision(&[&key[..], b"t"].concat()), Some((Revision::new(4, 1), true)));
        for wrong in
            [&key[..16], &[&key[..], b"x"].concat(), b"\xff\0\0\0\0\0\0\x04_\0\0\0\0\0\0\0\x01"]
        {
            assert_eq!(parse_revision(wrong), None);
        }
    }

    #[test]
    fn leases_are_etcds() {
        let lease = LeaseInfo { id: 0x2040_a1fe, ttl: 1000, remaining_ttl: 0 };
        let (key, value) = lease_pair(&lease);
        assert_eq!(key, [0, 0, 0, 0, 0x20, 0x40, 0xa1, 0xfe]);
        assert_eq!(parse_lease(&value), Some(lease));
        assert_eq!(value, [8, 0xfe, 0xc3, 0x82, 0x82, 2, 16, 0xe8, 7]);
    }

    #[test]
    fn users_and_roles_are_etcds() {
        let user = StoredUser {
            name: "ann".to_owned(),
            password_hash: Bytes::from("$2a"),
            no_password: false,
            roles: vec!["dev".to_owned()],
            since: 0,
        };
        let (key, value) = user_pair(&user);
        assert_eq!(
            (&key[..], &value[..]),
            (&b"ann"[..], &b"\n\x03ann\x12\x03$2a\x1a\x03dev\"\0"[..])
        );
        assert_eq!(parse_user(&key, &value.clone().into()), Some(user));
        assert_eq!(parse_user(b"bob", &value.into()), None);
        let permission = Permission { kind: 2, key: "a".into(), range_end: "b".into() };
        let role = StoredRole { name: "dev".to_owned(), permissions: vec![permission] };
        let (key, value) = role_pair(&role);
        assert_eq!(value, b"\n\x03dev\x12\x08\x08\x02\x12\x01a\x1a\x01b");
        assert_eq!(parse_role(&key, &value.into()), Some(role));
    }
}
