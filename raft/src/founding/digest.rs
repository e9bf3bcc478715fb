//! What was imported, as one number: members that were given the same compute the same.
//!
//! Every field goes in with its length, so that no two histories have the same bytes. SHA-1, as for
//! every other id: it keeps apart what was mixed up, not what was forged.

use holdfast_store::{Imported, Record, RecordKind};
use prost::Message;
use sha1::{Digest as _, Sha1};

/// A digest in the making.
#[derive(Default)]
pub(super) struct Digest(Sha1);

impl Digest {
    /// Takes the next record in.
    pub(super) fn record(&mut self, record: &Record) {
        self.number(record.revision.main as u64);
        self.number(record.revision.sub as u64);
        match record.kind {
            RecordKind::Put { .. } => self.bytes(&record.bytes),
            RecordKind::Tombstone => self.number(u64::MAX),
        }
        self.bytes(&record.key);
    }

    /// Takes everything else in.
    pub(super) fn finish(mut self, imported: &Imported) -> [u8; 20] {
        self.number(imported.revision as u64);
        self.number(imported.compacted as u64);
        for lease in &imported.leases {
            self.number(lease.id as u64);
            self.number(lease.ttl as u64);
            self.number(lease.remaining_ttl as u64);
        }
        self.bytes(&imported.auth.as_ref().map_or_else(Vec::new, Message::encode_to_vec));
        self.0.finalize().into()
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}
