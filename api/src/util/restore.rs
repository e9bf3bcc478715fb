//! From a database of etcd's to the data directory of a member of a new cluster.
//!
//! The database is read twice: once to see that every record, lease and revision is one that a
//! store can hold, and only then once more to write them. So what is wrong with a file is said
//! before anything is made of it.

use std::collections::HashMap;

use bytes::Bytes;
use holdfast_raft::{Founding, NodeConfig, Seams};
use holdfast_store::record::{Fields, encode_put};
use holdfast_store::{Fatal, Imported, LeaseInfo, Record, RecordKind, Revision};

use super::{Restore, UtilError};
use crate::snapshot::file::{FileError, SnapshotFile};
use crate::snapshot::schema;

/// What a database holds besides its records.
struct Facts {
    /// Revisions of keys.
    records: u64,
    revision: i64,
    compacted: i64,
    leases: Vec<LeaseInfo>,
}

/// Fills the directory, and says with what.
pub(super) fn restore(file: &SnapshotFile, to: &Restore) -> Result<String, UtilError> {
    refuse_authentication(file)?;
    let mut facts = survey(file)?;
    if to.bump_revision > 0 {
        facts.revision = i64::try_from(to.bump_revision)
            .ok()
            .and_then(|bump| facts.revision.checked_add(bump))
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
    let Facts { records, revision, compacted, leases } = facts;
    let lease_count = leases.len();
    let identity =
        founding.finish(Imported { revision, compacted, leases, ..Imported::default() })?;
    Ok(format!(
        "revision {revision}, compacted {compacted}, {records} revisions of keys, {lease_count} \
         leases, into {directory} as member {:x} of cluster {:x}",
        identity.member_id, identity.cluster_id
    ))
}

fn config(to: &Restore) -> Result<NodeConfig, UtilError> {
    let target = &to.target;
    let path = &target.data_directory;
    let directory =
        std::path::absolute(path).map_err(|error| UtilError::Io { path: path.clone(), error })?;
    let members = target.cluster.members();
    Ok(NodeConfig {
        initial_advertise_peer_urls: target.peer_urls.clone(),
        initial_cluster: members.map(|(name, urls)| (name.to_owned(), urls.to_vec())).collect(),
        initial_cluster_token: target.cluster_token.clone(),
        ..NodeConfig::new(target.name.clone(), directory)
    })
}

/// Without its users a cluster that had authentication would be open to everybody.
fn refuse_authentication(file: &SnapshotFile) -> Result<(), FileError> {
    let enabled = file.value(schema::AUTH, schema::AUTH_ENABLED)?;
    if enabled.is_some_and(|enabled| enabled[..] == [1]) {
        return Err(file.content(
            "authentication is on in this database, and users and roles cannot be restored yet: \
             turn it off (`etcdctl auth disable`) and take the snapshot again",
        ));
    }
    Ok(())
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
    let (records, newest) = survey_records(file, &leases)?;
    let revision = newest.max(compacted).max(1);
    Ok(Facts { records, revision, compacted, leases })
}

fn leases(file: &SnapshotFile) -> Result<Vec<LeaseInfo>, FileError> {
    let mut leases = Vec::new();
    file.each(schema::LEASE, |key, value| {
        let lease = schema::parse_lease(value).filter(|lease| lease.id.to_be_bytes() == key[..]);
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
    if revision.main < 1 || u32::try_from(revision.sub).is_err() {
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
        && version >= 1;
    // Kept as it is, for the hash over the history is one over these bytes.
    let bytes = encode_put(&key, &content, create_revision, mod_revision, version, lease);
    let kind = RecordKind::Put { create_revision, version, lease };
    (sound && bytes == *value).then_some(Record { revision, key, kind, bytes })
}
