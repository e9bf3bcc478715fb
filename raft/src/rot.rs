//! A leader that cannot send its checkpoint hands over.
//!
//! A member that has fallen behind is stranded if the only one who may help it has a damaged block
//! file, for as long as that one leads. Somebody else has the same state in other files.

use std::sync::Arc;
use std::time::Duration;

use holdfast_store::Export;
use tokio::sync::Notify;

use crate::desk::MemberDesk;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;
/// Between two attempts to hand over.
const PAUSE: Duration = Duration::from_secs(10);

/// The first file of the checkpoint that is not what its manifest says. Reads everything.
pub(crate) fn find_rot(export: &Export) -> Option<String> {
    export.files().iter().find(|file| !is_whole(export, file)).map(|file| file.name.clone())
}

fn is_whole(export: &Export, file: &holdfast_store::FileInfo) -> bool {
    let (mut offset, mut checksum) = (0, 0);
    while offset < file.length {
        let Ok(piece) = export.read(&file.name, offset, PIECE) else { return false };
        if piece.is_empty() {
            return false;
        }
        checksum = crc32c::crc32c_append(checksum, &piece);
        offset += piece.len() as u64;
    }
    checksum == file.checksum
}

/// Hands over whenever `rotten` says so, until the node stops and drops it.
pub(crate) async fn hand_over_when_rotten(
    members: MemberDesk,
    rotten: Arc<Notify>,
    patience: Duration,
) {
    loop {
        rotten.notified().await;
        tracing::warn!("handing over: a block file is damaged");
        members.hand_over(None, patience).await;
        tokio::time::sleep(PAUSE).await;
    }
}
