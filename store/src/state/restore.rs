//! From a checkpoint to a state: the small tables, and a header for every record they cover.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::auth::StoredAuth;
use crate::command::MemberAttributes;
use crate::index::{Index, KeyRange, Version};
use crate::lease::LeaseTable;
use crate::watch::WatchHub;
use crate::{
    Fatal, Options, Reader, ReceivedCheckpoint, RecordHeader, Records, Restore, Revision, Sweep,
};

use super::State;
use super::shared::{Facts, Shared};
use super::sweeper::IndexSweeper;
use super::tables::Tables;
use super::usage::Usage;

/// Builds an index from headers.
pub(crate) struct Restorer {
    tables: Tables,
    index: Index,
    last: Option<Revision>,
}

/// A store in memory, ready to be used.
pub(crate) struct Restored {
    pub state: State,
    pub reader: Reader,
    pub hub: WatchHub,
    pub sweeper: Box<dyn Sweep>,
}

impl Restorer {
    /// Of a store that holds nothing.
    pub(crate) fn fresh() -> Self {
        Self { tables: Tables::fresh(), index: Index::default(), last: None }
    }

    /// Of the store whose tables these are.
    pub(crate) fn new(tables: &Bytes) -> Result<Self, Fatal> {
        let tables = Tables::decode_checked(tables)?;
        Ok(Self { tables, index: Index::default(), last: None })
    }

    /// Whether a store can be made of it, as far as that can be told without the records.
    pub(crate) fn check(&self) -> Result<(), Fatal> {
        self.leases()?;
        self.tables.alarms()?;
        self.tables.auth()?;
        Ok(())
    }

    /// The whole store, over the records that the headers came from.
    pub(crate) fn finish(self, records: Records, options: &Options) -> Result<Restored, Fatal> {
        let leases = self.leases()?;
        let alarms = self.tables.alarms()?;
        let usage = self.usage(&leases);
        let quota = self.tables.quota();
        let shared = Arc::new(Shared::new(self.index, records));
        let hub_source = shared.clone();
        *shared.leases() = leases;
        *shared.members() = by_id(&self.tables);
        *shared.removed() = self.tables.removed.iter().copied().collect();
        shared.replace_alarms(alarms);
        shared.set_quota(quota);
        shared.downgrade_target().clone_from(&self.tables.downgrade_target);
        shared.set_in_use(usage.bytes());
        shared.replace_auth(self.tables.auth()?);
        let facts = Facts { position: self.tables.position(), level: self.tables.level };
        shared.publish(self.tables.revision, facts);
        shared.publish_compacted(self.tables.compacted);
        let hub = WatchHub::new(hub_source);
        if options.plants.drop_events {
            hub.plant_dropped_events();
        }
        let sweeper = IndexSweeper::new(shared.clone(), options.pin_garbage_bytes);
        let state = State {
            shared: shared.clone(),
            hub: hub.clone(),
            revision: self.tables.revision,
            compacted: self.tables.compacted,
            level: self.tables.level,
            quota,
            usage,
            position: self.tables.position(),
            membership: (self.tables.membership_position(), self.tables.membership.clone()),
            events: Vec::new(),
        };
        Ok(Restored { state, reader: Reader::new(shared), hub, sweeper: Box::new(sweeper) })
    }

    fn usage(&self, leases: &LeaseTable) -> Usage {
        Usage::of(&self.index, self.tables.compacted, leases.all().count() as u64)
    }

    /// The leases of the tables, with the live keys that hang on them.
    fn leases(&self) -> Result<LeaseTable, Fatal> {
        let mut leases = LeaseTable::default();
        for lease in self.tables.leases() {
            if lease.id == 0 || !leases.grant(lease) {
                return Err(Fatal::new("a manifest's leases contradict each other"));
            }
        }
        let mut missing = None;
        let mut budget = usize::MAX;
        let everything = KeyRange::everything();
        self.index.walk(&everything, None, self.tables.revision, &mut budget, |key, version| {
            match version.lease() {
                0 => {}
                id if leases.contains(id) => leases.attach(id, Bytes::copy_from_slice(key)),
                id => missing = Some(id),
            }
            std::ops::ControlFlow::Continue(())
        });
        match missing {
            Some(id) => Err(Fatal::new(format_args!("a key's lease {id} does not exist"))),
            None => Ok(leases),
        }
    }
}

impl Restore for Restorer {
    fn record(&mut self, header: RecordHeader) -> Result<(), Fatal> {
        if header.revision.main > self.tables.revision || Some(header.revision) <= self.last {
            return Ok(());
        }
        self.last = Some(header.revision);
        self.index.restore(&header.key, Version::of_header(&header));
        Ok(())
    }
}

impl State {
    /// The small tables, encoded.
    pub(super) fn tables(&self) -> Bytes {
        let mut tables = Tables::fresh();
        tables.revision = self.revision;
        tables.compacted = self.compacted;
        tables.level = self.level;
        tables.members = self.shared.members().values().cloned().collect();
        tables.removed = self.shared.removed().iter().copied().collect();
        tables.auth = StoredAuth::of(&self.shared.auth());
        tables.set_position(self.position);
        tables.set_membership(self.membership.0, self.membership.1.clone());
        tables.set_leases(self.shared.leases().all());
        tables.set_alarms(&self.shared.alarms());
        tables.set_quota(self.quota);
        tables.downgrade_target.clone_from(&self.shared.downgrade_target());
        tables.encode_to_vec().into()
    }

    /// Replaces everything by a verified checkpoint of a later state of the same history. Readers
    /// and the hub live on: registered reads end, and watchers catch up.
    pub fn install(&mut self, checkpoint: ReceivedCheckpoint) -> Result<(), Fatal> {
        let mut restorer = Restorer::new(checkpoint.tables())?;
        checkpoint.headers(&mut restorer)?;
        let leases = restorer.leases()?;
        let alarms = restorer.tables.alarms()?;
        let usage = restorer.usage(&leases);
        let auth = restorer.tables.auth()?;
        let Restorer { tables, index, .. } = restorer;
        assert!(tables.revision >= self.revision, "a checkpoint does not go back in revision");
        assert!(tables.position() > self.position, "a checkpoint does not go back in the log");
        self.events.clear();
        self.revision = tables.revision;
        self.compacted = tables.compacted;
        self.level = tables.level;
        self.quota = tables.quota();
        self.usage = usage;
        self.position = tables.position();
        self.membership = (tables.membership_position(), tables.membership.clone());
        let facts = Facts { position: self.position, level: self.level };
        // First, as always: the rules are no older than what they protect.
        self.shared.replace_auth(auth);
        self.shared.replace(index, checkpoint, self.revision, self.compacted, facts)?;
        self.shared.leases().replace(leases);
        *self.shared.members() = by_id(&tables);
        *self.shared.removed() = tables.removed.iter().copied().collect();
        self.shared.replace_alarms(alarms);
        self.shared.set_quota(self.quota);
        self.shared.set_in_use(self.usage.bytes());
        self.shared.downgrade_target().clone_from(&tables.downgrade_target);
        self.hub.reset_to_catch_up();
        Ok(())
    }
}

fn by_id(tables: &Tables) -> BTreeMap<u64, MemberAttributes> {
    tables.members.iter().map(|member| (member.member, member.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::AlarmTable;
    use crate::{AlarmCause, AlarmKind};

    #[test]
    fn alarms_that_contradict_each_other_are_found_without_the_records() {
        let mut alarms = AlarmTable::default();
        alarms.raise(AlarmKind::NoSpace, 1, AlarmCause::Disk);
        let mut tables = Tables::fresh();
        tables.set_alarms(&alarms);
        let bytes = tables.encode_to_vec();
        let check = |bytes: Vec<u8>| Restorer::new(&bytes.into()).expect("it decodes").check();
        assert!(check(bytes.clone()).is_ok());
        // One encoding after the other is one of both: the alarm is there twice.
        assert!(check(bytes.repeat(2)).is_err());
    }
}
