//! The content of a log entry: a batch of proposals, encoded once and decoded at most once.
//!
//! openraft's work is per entry, so an entry carries everything that was waiting when it was made.
//! A proposal names the member that answers for it; no other member builds its response.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use holdfast_store::command::{Change, Command, OperationKind};
use prost::Message;

use crate::limits::{ENTRY_BYTES_MAX, ENTRY_PROPOSALS_MAX};

/// The content of one log entry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogEntry {
    /// The semantics level by which every member applies it.
    #[prost(uint32, tag = "1")]
    pub level: u32,
    /// What to apply, in order.
    #[prost(message, repeated, tag = "2")]
    pub proposals: Vec<Proposal>,
}

/// One request of one member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Proposal {
    /// The member that took the request and answers it.
    #[prost(fixed64, tag = "1")]
    pub origin: u64,
    /// Drawn by the origin at each start, so that it does not answer for an earlier life.
    #[prost(fixed64, tag = "2")]
    pub nonce: u64,
    /// Unique within the nonce.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// What to do.
    #[prost(message, required, tag = "4")]
    pub command: Command,
}

/// An encoded [`LogEntry`] that remembers its decoding. Cloning shares both.
#[derive(Clone)]
pub struct Batch {
    encoded: Bytes,
    decoded: Arc<OnceLock<LogEntry>>,
}

impl Batch {
    /// Wraps the encoding of a [`LogEntry`]; it is checked when it is first decoded.
    pub fn new(encoded: Bytes) -> Self {
        Self { encoded, decoded: Arc::default() }
    }

    /// The encoding.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The content; an error says that these bytes are no log entry.
    pub fn decoded(&self) -> Result<&LogEntry, prost::DecodeError> {
        if let Some(entry) = self.decoded.get() {
            return Ok(entry);
        }
        let entry = LogEntry::decode(self.encoded.clone())?;
        Ok(self.decoded.get_or_init(|| entry))
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.encoded.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.encoded.len())
    }
}

/// Collects encoded proposals into entries of bounded size.
#[derive(Debug)]
pub struct BatchBuilder {
    encoded: BytesMut,
    proposals: usize,
}

impl BatchBuilder {
    /// An empty entry of `level`.
    pub fn new(level: u32) -> Self {
        let mut encoded = BytesMut::new();
        prost::encoding::uint32::encode(1, &level, &mut encoded);
        Self { encoded, proposals: 0 }
    }

    /// Whether `proposal` may still be added; the first one always may.
    pub fn has_room(&self, proposal: &Bytes) -> bool {
        self.proposals == 0
            || (self.proposals < ENTRY_PROPOSALS_MAX
                && self.encoded.len() + proposal.len() <= ENTRY_BYTES_MAX)
    }

    /// Adds the encoding of one [`Proposal`].
    pub fn push(&mut self, proposal: &Bytes) {
        prost::encoding::bytes::encode(2, proposal, &mut self.encoded);
        self.proposals += 1;
    }

    /// The entry's content.
    pub fn finish(self) -> Batch {
        Batch::new(self.encoded.freeze())
    }
}

/// Encodes one proposal, ready for a [`BatchBuilder`] or for another member.
pub fn encode_proposal(origin: u64, nonce: u64, sequence: u64, command: Command) -> Bytes {
    let proposal = Proposal { origin, nonce, sequence, command };
    let mut encoded = BytesMut::with_capacity(proposal.encoded_len());
    proposal.encode(&mut encoded).expect("BytesMut grows as needed");
    encoded.freeze()
}

/// Whether there are transactions within a transaction. Everything else is as deep as its schema.
pub(crate) fn is_nested(command: &Command) -> bool {
    let Some(Change::Txn(txn)) = &command.change else { return false };
    let mut operations = txn.success.iter().chain(&txn.failure);
    operations.any(|operation| matches!(operation.kind, Some(OperationKind::Txn(_))))
}

/// Whether a proposal can be read again out of the entry that will hold it.
pub(crate) fn decodes_in_entry(proposal: &Bytes) -> bool {
    let mut builder = BatchBuilder::new(0);
    builder.push(proposal);
    builder.finish().decoded().is_ok()
}

#[cfg(test)]
mod tests {
    use holdfast_store::command::{Compact, Operation, Txn};

    use super::*;

    fn command(revision: i64) -> Command {
        Command::from(Change::Compact(Compact { revision }))
    }

    #[test]
    fn spliced_proposals_decode_to_what_was_proposed() {
        let mut builder = BatchBuilder::new(1);
        for sequence in 0..3 {
            builder.push(&encode_proposal(u64::MAX, 7, sequence, command(sequence as i64)));
        }
        let batch = builder.finish();
        let entry = batch.decoded().expect("decodes");
        assert_eq!(entry.level, 1);
        let found: Vec<_> =
            entry.proposals.iter().map(|p| (p.origin, p.nonce, p.sequence)).collect();
        assert_eq!(found, [(u64::MAX, 7, 0), (u64::MAX, 7, 1), (u64::MAX, 7, 2)]);
        assert_eq!(entry.proposals[2].command, command(2));
    }

    fn nested(depth: usize) -> Command {
        let mut txn = Txn::default();
        for _ in 1..depth {
            let kind = Some(OperationKind::Txn(txn));
            txn = Txn { success: vec![Operation { kind }], ..Txn::default() };
        }
        Command::from(Change::Txn(txn))
    }

    #[test]
    fn what_is_too_deep_to_be_decoded_from_the_log_is_found_before() {
        assert!(!is_nested(&nested(1)) && !is_nested(&command(1)));
        for (depth, decodes) in [(2, true), (32, true), (45, true), (50, false), (60, false)] {
            let command = nested(depth);
            assert!(is_nested(&command));
            let proposal = encode_proposal(1, 2, 3, command);
            assert_eq!(decodes_in_entry(&proposal), decodes, "depth {depth}");
        }
    }

    #[test]
    fn a_full_entry_takes_no_more_but_an_empty_one_takes_anything() {
        let large = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
        let mut builder = BatchBuilder::new(1);
        assert!(builder.has_room(&large));
        builder.push(&large);
        assert!(!builder.has_room(&Bytes::from_static(b"x")));
    }
}
