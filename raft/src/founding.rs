//! A data directory that is filled with a history from elsewhere, before any member runs on it.
//!
//! Every member of the new cluster is given the same history and the same membership, as of the
//! same entry, without a word between them: the log begins after that entry, which is the newest
//! one and committed. The id of the cluster depends on all that was imported, so members that were
//! given different histories, or none, refuse each other. What makes the directory a member's, its identity, is written last. From before
//! the first block until after that the directory carries a mark, and whoever opens a directory with
//! the mark refuses it: half a history must not pass for an empty member.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast_store::files::Files;
use holdfast_store::{Import, ImportError, Imported, Options, Position, Record};
use rand::RngExt;

use crate::apart;
use crate::checkpoint::membership_bytes;
use crate::config::{NodeConfig, Seams, Workers};
use crate::directory;
use crate::error::OpenError;
use crate::identity::{Identity, restored_cluster_id};
use crate::node::plan::{self, Plan};
use crate::types::{Membership, StoredMembership, log_id};
use crate::wal::{self, Hooks, LogId, Vote, WalCore, WalOptions};

mod digest;

use digest::Digest;

/// The term of the entry that the history ends with.
const TERM: u64 = 1;

/// A data directory being filled.
pub struct Founding {
    config: NodeConfig,
    seams: Seams,
    plan: Plan,
    incarnation: u64,
    import: Import,
    digest: Digest,
    _locks: Vec<directory::Lock>,
}

/// A data directory that was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founded {
    /// Whose it is.
    pub identity: Identity,
    /// Of all that was imported: the same in every member of the new cluster.
    pub digest: [u8; 20],
}

impl Founding {
    /// Begins in the directory of the member that `config` describes; it is absent or empty.
    pub fn begin(config: NodeConfig, seams: Seams) -> Result<Self, OpenError> {
        let plan = plan::plan(&config)?;
        let folder = &config.data_directory;
        // Once before anything is made there, and again when nobody else can fill it.
        check_empty(&config, &*seams.files)?;
        let is_shared = seams.workers == Workers::Threads;
        let locks = if is_shared { apart::lock(&config)? } else { Vec::new() };
        check_empty(&config, &*seams.files)?;
        directory::begin_import(folder, &*seams.files)?;
        let incarnation = crate::runtime::generator().random_range(1..=u64::MAX);
        let mut options = Options::new(&config.data_directory);
        options.files = seams.files.clone();
        options.backend = seams.backend.clone();
        options.incarnation = incarnation;
        let import = Import::begin(options, position(&plan)).map_err(holdfast_store::Fatal::new)?;
        let digest = Digest::default();
        Ok(Self { config, seams, plan, incarnation, import, digest, _locks: locks })
    }

    /// Adds the next record, in revision order.
    pub fn push(&mut self, record: Record) -> Result<(), ImportError> {
        self.digest.record(&record);
        self.import.push(record)
    }

    /// Makes the directory a member's. `imported` says everything but who the members are.
    pub fn finish(self, imported: Imported) -> Result<Founded, OpenError> {
        let at = position(&self.plan);
        let voters: BTreeSet<u64> = self.plan.members.keys().copied().collect();
        let nodes: BTreeMap<_, _> = self.plan.members.clone();
        let membership =
            Membership::new(vec![voters], nodes).map_err(holdfast_store::Fatal::new)?;
        let stored = StoredMembership::new(Some(log_id(at.term, at.index)), membership);
        let imported =
            Imported { membership_position: at, membership: membership_bytes(&stored), ..imported };
        let digest = self.digest.finish(&imported);
        let identity = Identity {
            member_id: self.plan.member_id,
            cluster_id: restored_cluster_id(self.plan.cluster_id, &digest),
            incarnation: self.incarnation,
        };
        self.import.finish(imported).map_err(holdfast_store::Fatal::new)?;
        let first = *self.plan.members.keys().next().expect("a cluster has members");
        begin_log(self.config.log_home(), &self.seams, at, first)?;
        apart::record(&self.config, &*self.seams.files, identity, None)?;
        directory::end_import(&self.config.data_directory, &*self.seams.files)?;
        Ok(Founded { identity, digest })
    }
}

fn check_empty(config: &NodeConfig, files: &dyn Files) -> Result<(), OpenError> {
    directory::check_empty(&config.data_directory, files)?;
    match &config.log_directory {
        Some(log) => directory::check_empty(log, files),
        None => Ok(()),
    }
}

/// As many entries as there are members, as if each had been added by one.
fn position(plan: &Plan) -> Position {
    Position { term: TERM, index: plan.members.len() as u64 }
}

/// A log without entries, after `at`. The vote keeps anyone from leading in the term of `at`.
fn begin_log(home: &Path, seams: &Seams, at: Position, candidate: u64) -> Result<(), OpenError> {
    let fatal = |error: wal::WalError| holdfast_store::Fatal::new(error);
    seams
        .files
        .create_directory(home)
        .map_err(|source| OpenError::Io { what: format!("making {}", home.display()), source })?;
    let space = seams.files.space(home).map_err(|source| OpenError::Io {
        what: format!("measuring the file system of {}", home.display()),
        source,
    })?;
    let folder = wal::directory(home);
    let options = WalOptions::for_space(space);
    let mut opened =
        wal::open(seams.files.clone(), &folder, options, Hooks::default()).map_err(fatal)?;
    let id = LogId { term: at.term, index: at.index };
    let vote = Vote { term: at.term, node: Some(candidate), committed: false };
    opened.wal.purge(id).map_err(fatal)?;
    opened.wal.save_committed(id).map_err(fatal)?;
    opened.wal.save_vote(vote, Box::new(|_| {})).map_err(fatal)?;
    write_out(&mut opened.core, &opened.wal)
}

fn write_out(core: &mut WalCore, wal: &wal::Wal) -> Result<(), OpenError> {
    core.step().fire();
    core.idle().fire();
    match wal.failure() {
        Some(failure) => Err(holdfast_store::Fatal::new(failure).into()),
        None => Ok(()),
    }
}
