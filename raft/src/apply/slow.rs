//! The warning about a proposal that took long to apply, in etcd's words and fields.

use std::fmt;
use std::time::Duration;

use holdfast_store::command::{Change, DeleteRange, Put, Txn};
use holdfast_store::{Outcome, Position};

use crate::entry::Proposal;

/// Warns. Costs what it costs: nobody calls it when things are well.
#[cold]
pub(super) fn warn(
    took: Duration,
    expected: Duration,
    position: Position,
    proposal: &Proposal,
    outcome: &Outcome,
) {
    let request = Shown(proposal.command.change.as_ref());
    let response = match &outcome.result {
        Ok(_) => format!("revision:{}", outcome.revision),
        Err(rejected) => rejected.to_string(),
    };
    tracing::warn!(
        took = ?took,
        "expected-duration" = ?expected,
        prefix = "",
        request = %request,
        response,
        index = position.index,
        "apply request took too long"
    );
}

/// A change without the values in it.
struct Shown<'a>(Option<&'a Change>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Change::Put(Put { key, value, lease, .. })) => {
                write!(f, "put:<key:{} value_size:{} lease:{lease:x} >", Key(key), value.len())
            }
            Some(Change::DeleteRange(DeleteRange { key, range_end, .. })) => {
                write!(f, "delete_range:<key:{} range_end:{} >", Key(key), Key(range_end))
            }
            Some(Change::Txn(Txn { compare, success, failure })) => write!(
                f,
                "txn:<compare:{} success:{} failure:{} >",
                compare.len(),
                success.len(),
                failure.len()
            ),
            Some(Change::Compact(compact)) => {
                write!(f, "compaction:<revision:{} >", compact.revision)
            }
            Some(Change::LeaseGrant(grant)) => write!(f, "lease_grant:<ID:{:x} >", grant.id),
            Some(Change::LeaseRevoke(revoke)) => write!(f, "lease_revoke:<ID:{:x} >", revoke.id),
            Some(_) => f.write_str("of this server's own"),
            None => f.write_str("nothing"),
        }
    }
}

/// The beginning of a key, as it can be read.
struct Key<'a>(&'a [u8]);

/// Bytes of a key that are shown.
const KEY_SHOWN: usize = 256;

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(KEY_SHOWN)];
        write!(f, "\"{}\"", shown.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_and_values_are_not() {
        let put = Put { key: "a\"b".into(), value: "secret".into(), ..Put::default() };
        let shown = Shown(Some(&Change::Put(put))).to_string();
        assert_eq!(shown, r#"put:<key:"a\"b" value_size:6 lease:0 >"#);
    }
}
