//! From a database of etcd's to the data directory of a member of a new cluster.
//!
//! The database is read twice: once to see that every record, lease and revision is one that a
//! store can hold, and only then once more to write them. So what is wrong with a file is said
//! before anything is made of it.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use bytes::Bytes;
use holdfast_raft::{Founded, Founding, NodeConfig, Seams};
use holdfast_store::auth::{FIRST_REVISION, StoredAuth};
use holdfast_store::record::{Fields, encode_put};
use holdfast_store::{Fatal, Imported, LeaseInfo, Record, RecordKind, Revision};

use super::{Restore, UtilError};
use crate::snapshot::file::{FileError, SnapshotFile, hex};
use crate::snapshot::schema;

/// Revisions and versions are no larger, so that there is room for as many again.
const NUMBER_MAX: i64 = 1 << 62;
/// Seconds that etcd lets a lease last.
const TTL_RANGE: RangeInclusive<i64> = 0..=9_000_000_000;

/// What a database holds besides its records.
struct Facts {
    /// Revisions of keys.
    records: u64,
    revision: i64,
    compacted: i64,
    leases: Vec<LeaseInfo>,
    /// None where nobody ever set it up.
    auth: Option<StoredAuth>,
    /// Active alarms. They say something of members that the new cluster does not have, and are
    /// left behind.
    alarms: usize,
}

/// Fills the directory, and says with what.
pub(super) fn restore(file: &SnapshotFile, to: &Restore) -> Result<String, UtilError> {
    let mut facts = survey(file)?;
    if to.bump_revision > 0 {
        facts.revision = i64::try_from(to.bump_revision)
            .ok()
            .and_then(|bump| facts.revision.checked_add(bump))
            .filter(|revision| *revision <= NUMBER_MAX)
            .ok_or_else(|| file.content("the raised revision is too large"))?;
        facts.compacted = facts.revision;
    }
    let config = config(to)?;
    let directory = config.data_directory.display().to_string();
    let mut founding = Founding::begin(config, Seams::real())?;
    file.each(schema::KEY, |key, value| {
        let Some(record) = record(key, value)? else { return Ok(()) };
        founding.push(record).map_err(|error| format!("writing into {directory}: {error}"))
    })?;
    let said = facts.to_string();
    let Facts { revision, compacted, leases, auth, .. } = facts;
    let imported = Imported { revision, compacted, leases, auth, ..Imported::default() };
    let Founded { identity, digest } = founding.finish(imported)?;
    let (member, cluster) = (identity.member_id, identity.cluster_id);
    Ok(format!(
        "{said}, into {directory} as member {member:x} of cluster {cluster:x}; digest {}",
        hex(&digest)
    ))
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, revision, compacted, leases, auth, alarms } = self;
        write!(f, "revision {revision}, compacted {compacted}, {records} revisions of keys, ")?;
        write!(f, "{} leases", leases.len())?;
        if let Some(StoredAuth { enabled, users, roles, .. }) = auth {
            let state = if *enabled { "on" } else { "off" };
            write!(f, ", {} users, {} roles, authentication {state}", users.len(), roles.len())?;
        }
        match alarms {
            0 => Ok(()),
            alarms => write!(f, ", without its {alarms} alarms"),
        }
    }
}

fn config(to: &Restore) -> Result<NodeConfig, UtilError> {
    let target = &to.target;
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|error| UtilError::Io { path: path.clone(), error })
    };
    let directory = absolute(&target.data_directory)?;
    let members = target.cluster.members();
    Ok(NodeConfig {
        log_directory: target.log_directory.as_ref().map(absolute).transpose()?,
        initial_advertise_peer_urls: target.peer_urls.clone(),
        initial_cluster: members.map(|(name, urls)| (name.to_owned(), urls.to_vec())).collect(),
        initial_cluster_token: target.cluster_token.clone(),
        ..NodeConfig::new(target.name.clone(), directory)
    })
}

/// Reads and checks everything.
fn survey(file: &SnapshotFile) -> Result<Facts, FileError> {
    let buckets = file.buckets()?;
    for needed in [schema::KEY, schema::META] {
        if !buckets.iter().any(|name| name == needed) {
            let name = String::from_utf8_lossy(needed);
            return Err(file.content(format!("it has no bucket {name}: it is not etcd's")));
        }
    }
    let mut compacted = -1;
    for name in [schema::SCHEDULED_COMPACT, schema::FINISHED_COMPACT] {
        if let Some(value) = file.value(schema::META, name)? {
            let parsed = schema::parse_revision(&value);
            let (revision, _) =
                parsed.ok_or_else(|| file.content("its compacted revision makes no sense"))?;
            compacted = compacted.max(revision.main);
        }
    }
    let leases = leases(file)?;
    let auth = auth(file)?;
    let mut alarms = 0;
    file.each(schema::ALARM, |_, _| {
        alarms += 1;
        Ok(())
    })?;
    let (records, newest) = survey_records(file, &leases)?;
    let revision = newest.max(compacted).max(1);
    if revision > NUMBER_MAX {
        return Err(file.content("its revisions are out of range"));
    }
    Ok(Facts { records, revision, compacted, leases, auth, alarms })
}

/// Users and roles, as they are: hashes of passwords included.
fn auth(file: &SnapshotFile) -> Result<Option<StoredAuth>, FileError> {
    let enabled = file.value(schema::AUTH, schema::AUTH_ENABLED)?;
    let enabled = enabled.is_some_and(|enabled| enabled[..] == [1]);
    let revision = match file.value(schema::AUTH, schema::AUTH_REVISION)? {
        Some(value) => value[..].try_into().map(u64::from_be_bytes).ok(),
        None => Some(FIRST_REVISION),
    };
    let revision = revision.filter(|revision| *revision <= NUMBER_MAX as u64);
    let revision = revision.ok_or_else(|| file.content("its auth revision makes no sense"))?;
    let (mut users, mut roles) = (Vec::new(), Vec::new());
    file.each(schema::AUTH_USERS, |key, value| {
        let user = schema::parse_user(key, value);
        users.push(user.ok_or_else(|| format!("user {key:?} makes no sense"))?);
        Ok(())
    })?;
    file.each(schema::AUTH_ROLES, |key, value| {
        let role = schema::parse_role(key, value);
        roles.push(role.ok_or_else(|| format!("role {key:?} makes no sense"))?);
        Ok(())
    })?;
    if enabled && !users.iter().any(|user| user.name == "root") {
        return Err(file.content("authentication is on, and there is no user root"));
    }
    let is_fresh = !enabled && revision <= FIRST_REVISION && users.is_empty() && roles.is_empty();
    let revision = revision.max(FIRST_REVISION + 1);
    // When each had a new password is not in the file: nothing that was signed before counts.
    users.iter_mut().for_each(|user| user.since = revision);
    Ok((!is_fresh).then_some(StoredAuth { enabled, revision, users, roles }))
}

fn leases(file: &SnapshotFile) -> Result<Vec<LeaseInfo>, FileError> {
    let mut leases = Vec::new();
    file.each(schema::LEASE, |key, value| {
        let lease = schema::parse_lease(value).filter(|lease| lease.id.to_be_bytes() == key[..]);
        let lease = lease.filter(|lease| {
            TTL_RANGE.contains(&lease.ttl) && TTL_RANGE.contains(&lease.remaining_ttl)
        });
        leases.push(lease.ok_or_else(|| format!("lease {key:02x?} makes no sense"))?);
        Ok(())
    })?;
    leases.sort_by_key(|lease| lease.id);
    Ok(leases)
}

/// How many records there are, and the newest revision. Every live key's lease exists.
fn survey_records(file: &SnapshotFile, leases: &[LeaseInfo]) -> Result<(u64, i64), FileError> {
    let (mut records, mut newest) = (0, 0);
    let mut attached: HashMap<Bytes, i64> = HashMap::new();
    file.each(schema::KEY, |key, value| {
        let (revision, _) = schema::parse_revision(key).ok_or("a key is not a revision")?;
        newest = revision.main;
        let Some(record) = record(key, value)? else { return Ok(()) };
        records += 1;
        match record.kind {
            RecordKind::Put { lease, .. } if lease != 0 => {
                attached.insert(Bytes::copy_from_slice(&record.key), lease);
            }
            _ => {
                attached.remove(&record.key);
            }
        }
        Ok(())
    })?;
    let known = |lease: i64| leases.binary_search_by_key(&lease, |known| known.id).is_ok();
    if let Some((key, lease)) = attached.iter().find(|(_, lease)| !known(**lease)) {
        let key = String::from_utf8_lossy(key);
        return Err(
            file.content(format!("key {key:?} hangs on lease {lease:x}, which is not there"))
        );
    }
    Ok((records, newest))
}

/// A pair of bucket `key` as a record. None for the mark that `etcdutl snapshot restore
/// --bump-revision` leaves, which is no record.
fn record(key: &Bytes, value: &Bytes) -> Result<Option<Record>, String> {
    let (revision, is_tombstone) =
        schema::parse_revision(key).ok_or_else(|| format!("key {key:02x?} is not a revision"))?;
    let wrong = |what: &str| format!("revision {revision}: {what}");
    if !(1..=NUMBER_MAX).contains(&revision.main) || u32::try_from(revision.sub).is_err() {
        return Err(wrong("it is out of range"));
    }
    if value.is_empty() {
        return Ok(None);
    }
    let fields = Fields::parse(value).map_err(|error: Fatal| wrong(&error.to_string()))?;
    if fields.key.is_empty() {
        return Err(wrong("it has no key"));
    }
    if is_tombstone {
        return Ok(Some(Record::tombstone(revision, fields.key)));
    }
    put(revision, fields, value).map(Some).ok_or_else(|| wrong("it contradicts itself"))
}

fn put(revision: Revision, fields: Fields, value: &Bytes) -> Option<Record> {
    let Fields { key, create_revision, mod_revision, version, value: content, lease } = fields;
    let sound = mod_revision == revision.main
        && (1..=mod_revision).contains(&create_revision)
        && (1..=NUMBER_MAX).contains(&version);
    // Kept as it is, for the hash over the history is one over these bytes.
    let bytes = encode_put(&key, &content, create_revision, mod_revision, version, lease);
    let kind = RecordKind::Put { create_revision, version, lease };
    (sound && bytes == *value).then_some(Record { revision, key, kind, bytes })
}
