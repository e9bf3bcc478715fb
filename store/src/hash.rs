//! HashKV: etcd's hash over the history.
//!
//! CRC32-Castagnoli over the name `key`, then for every revision in order its key in etcd's
//! database (8 bytes main, `_`, 8 bytes sub, and `t` for a tombstone, big-endian) and the
//! `mvccpb.KeyValue` under it, which for a tombstone holds the key alone. Covered are all revisions
//! after the compacted one and, of those up to it, the ones that are still in force at the hashed
//! revision. What is physically gone makes no difference.

use std::ops::ControlFlow;

use prost::Message;

use crate::auth::StoredAuth;
use crate::index::{Index, KeyRange, Versions};
use crate::record::{RecordHeader, RecordKind, encode_tombstone};
use crate::state::shared::Shared;
use crate::state::tables::Tables;
use crate::view::{View, WALK_KEYS_MAX};
use crate::{Effort, Fatal, HashKv, ReadError, Rejected, Revision};

/// Which revisions a hash covers.
struct Cover {
    at: i64,
    compacted: i64,
    /// Whether etcd finds no key in force at `at`. It then leaves nothing out that compaction has
    /// kept.
    nothing_in_force: bool,
}

/// The hash at `revision`, or at the published revision for 0.
pub(crate) fn hash_kv(shared: &Shared, revision: i64) -> Result<HashKv, ReadError> {
    let (view, cover) = cover(shared, revision)?;
    let mut hash = crc32c::crc32c(b"key");
    let mut from = Revision::default();
    loop {
        let headers = shared.records.headers(from, WALK_KEYS_MAX)?;
        let Some(last) = headers.last().map(|header| header.revision) else { break };
        let covered = covered(&view, &cover, headers)?;
        for header in &covered {
            hash = append(&view, hash, header)?;
        }
        if last.main > cover.at {
            break;
        }
        from = Revision::new(last.main, last.sub + 1);
    }
    Ok(HashKv {
        hash,
        compact_revision: cover.compacted,
        hash_revision: cover.at,
        current_revision: view.current,
    })
}

/// The hash of the history and of the small tables.
pub(crate) fn hash_all(shared: &Shared) -> Result<u32, ReadError> {
    let mut hash = hash_kv(shared, 0)?.hash;
    for lease in shared.leases().all() {
        for number in [lease.id, lease.ttl, lease.remaining_ttl] {
            hash = crc32c::crc32c_append(hash, &number.to_be_bytes());
        }
    }
    if let Some(auth) = StoredAuth::of(&shared.auth()) {
        hash = crc32c::crc32c_append(hash, &auth.encode_to_vec());
    }
    // What decides on refusals; of no bytes where nothing was ever raised, set or asked for.
    let mut refusals = Tables::default();
    refusals.set_alarms(&shared.alarms());
    refusals.set_quota(shared.quota());
    refusals.downgrade_target.clone_from(&shared.downgrade_target());
    Ok(crc32c::crc32c_append(hash, &refusals.encode_to_vec()))
}

/// Holds everything from the compacted revision on, so that it can be hashed.
fn cover(shared: &Shared, revision: i64) -> Result<(View<'_>, Cover), ReadError> {
    let (current, compacted) = shared.bounds();
    if revision > 0 && revision < compacted {
        return Err(Rejected::Compacted.into());
    }
    if revision > current {
        return Err(Rejected::FutureRevision.into());
    }
    let at = if revision == 0 { current } else { revision };
    let registration = Some(shared.registry.register(compacted)?);
    let view = View { shared, current, compacted, effort: Effort::Blocking, registration };
    let nothing_in_force = nothing_in_force(&view, at)?;
    Ok((view, Cover { at, compacted, nothing_in_force }))
}

/// Whether etcd finds no key in force at `at`: it looks no further than a deletion at `at`, and so
/// misses a key that one transaction deleted and put again.
fn nothing_in_force(view: &View<'_>, at: i64) -> Result<bool, ReadError> {
    let mut created_there = Vec::new();
    let mut budget = usize::MAX;
    let found = view.walk(&KeyRange::everything(), at, &mut budget, |key, version| {
        if version.create_revision() < at {
            return ControlFlow::Break(());
        }
        created_there.push(Box::<[u8]>::from(key));
        ControlFlow::Continue(())
    })?;
    if found.is_some() {
        return Ok(false);
    }
    let index = view.shared.index();
    view.holds()?;
    Ok(created_there.iter().all(|key| {
        let versions = index.versions(key).map_or(&[][..], Versions::as_slice);
        versions.iter().any(|version| version.is_tombstone() && version.mod_revision() == at)
    }))
}

/// The headers that the hash covers.
fn covered(
    view: &View<'_>,
    cover: &Cover,
    headers: Vec<RecordHeader>,
) -> Result<Vec<RecordHeader>, ReadError> {
    let index = view.shared.index();
    view.holds()?;
    Ok(headers.into_iter().filter(|header| cover.covers(&index, header)).collect())
}

impl Cover {
    fn covers(&self, index: &Index, header: &RecordHeader) -> bool {
        let Revision { main, .. } = header.revision;
        if main > self.at {
            return false;
        }
        let is_tombstone = header.kind == RecordKind::Tombstone;
        if main > self.compacted {
            return true;
        }
        // A tombstone at the compacted revision stays stored, but older versions of etcd removed
        // it; it is left out, so that all agree.
        if is_tombstone {
            return false;
        }
        let Some(versions) = index.versions(&header.key) else { return false };
        let in_force_at = if self.nothing_in_force { self.compacted } else { self.at };
        versions.live(in_force_at).is_some_and(|version| version.revision() == header.revision)
    }
}

fn append(view: &View<'_>, hash: u32, header: &RecordHeader) -> Result<u32, ReadError> {
    let Revision { main, sub } = header.revision;
    let mut key = [0; 18];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key[9..17].copy_from_slice(&sub.to_be_bytes());
    key[17] = b't';
    if header.kind == RecordKind::Tombstone {
        let hash = crc32c::crc32c_append(hash, &key);
        return Ok(crc32c::crc32c_append(hash, &encode_tombstone(&header.key, 0)));
    }
    let hash = crc32c::crc32c_append(hash, &key[..17]);
    let record = match view.shared.records.read(header.revision) {
        Ok(record) => record,
        Err(fatal) => return Err(overtaken(view, fatal)),
    };
    Ok(crc32c::crc32c_append(hash, &record))
}

/// Why a record could not be read: the registration may have ended meanwhile.
fn overtaken(view: &View<'_>, fatal: Fatal) -> ReadError {
    match view.holds() {
        Err(rejected) => rejected.into(),
        Ok(()) => fatal.into(),
    }
}
