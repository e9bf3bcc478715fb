//! Whether checkpoint and log meet, when a member starts.
//!
//! A checkpoint is taken only of what the log has flushed, and the log is purged only below
//! checkpoints. Where the two do not meet, entries are gone that were on disk: damage, which is not
//! the same as absence, and which nobody but an operator may decide about.

use holdfast_store::{Fatal, ManifestInfo};

/// Refuses a log with the `ends` (indexes of the newest entry purged, and of the newest of all) that does not meet the
/// `newest` checkpoint, of which those taken in this data directory carry its `incarnation`.
pub(crate) fn check(
    newest: Option<&ManifestInfo>,
    ends: (Option<u64>, Option<u64>),
    incarnation: u64,
) -> Result<(), Fatal> {
    let (purged, last) = ends;
    let checkpoint = newest.map(|info| info.position.index);
    if let Some(purged) = purged
        && checkpoint.is_none_or(|checkpoint| checkpoint < purged)
    {
        let checkpoint = checkpoint.map_or("there is no checkpoint".to_owned(), |index| {
            format!("the newest checkpoint ends at {index}")
        });
        return Err(Fatal::new(format_args!(
            "the data directory is damaged: the log begins after entry {purged}, but {checkpoint}"
        )));
    }
    let own = newest.filter(|info| info.taken_in == incarnation);
    if let Some(checkpoint) = own.map(|info| info.position.index)
        && last.is_none_or(|last| last < checkpoint)
    {
        let last = last.map_or("is empty".to_owned(), |last| format!("ends at entry {last}"));
        return Err(Fatal::new(format_args!(
            "the data directory is damaged: the log {last}, but this member took a checkpoint of \
             entry {checkpoint}, which the log had on disk by then"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_store::Position;

    use super::*;

    const OWN: u64 = 7;

    fn ends(purged: u64, last: u64) -> (Option<u64>, Option<u64>) {
        let index = |index: u64| Some(index).filter(|index| *index > 0);
        (index(purged), index(last))
    }

    fn checkpoint(index: u64, taken_in: u64) -> ManifestInfo {
        ManifestInfo {
            position: Position { term: 1, index },
            membership_position: Position::default(),
            membership: Default::default(),
            revision: 1,
            name: String::new(),
            taken_in,
        }
    }

    #[test]
    fn a_log_that_meets_its_checkpoint_is_taken() {
        check(None, ends(0, 0), OWN).expect("a new member");
        check(None, ends(0, 9), OWN).expect("no checkpoint yet");
        check(Some(&checkpoint(9, OWN)), ends(0, 9), OWN).expect("just taken");
        check(Some(&checkpoint(9, OWN)), ends(9, 12), OWN).expect("just purged");
        check(Some(&checkpoint(9, 0)), ends(0, 5), OWN).expect("a crash during an install");
        check(Some(&checkpoint(9, 0)), ends(0, 0), OWN).expect("likewise, of a new member");
    }

    #[test]
    fn what_was_on_disk_and_is_gone_is_damage() {
        for (newest, ends) in [
            (None, ends(5, 9)),
            (Some(checkpoint(4, OWN)), ends(5, 9)),
            (Some(checkpoint(9, OWN)), ends(0, 8)),
            (Some(checkpoint(9, OWN)), ends(0, 0)),
        ] {
            let refused = check(newest.as_ref(), ends, OWN).expect_err("damage");
            assert!(refused.to_string().contains("damaged"), "{refused}");
        }
    }
}
