//! What the hub delivers, in the words of the wire.

use holdfast_proto::EncodedEvent;
use holdfast_proto::etcdserverpb::WatchResponse;
use holdfast_store::auth::AuthRefusal;
use holdfast_store::watch::{Delivery, RefusedReason};

use crate::header::Headers;
use crate::status::cancel_reason;

/// The id in responses that concern no single watcher.
const NO_WATCHER: i64 = -1;

/// The response that tells a client of a delivery. `current` is the revision of this moment, for
/// the headers of answers to the client's own requests.
pub(super) fn of(delivery: Delivery, headers: &Headers, current: i64) -> WatchResponse {
    let answer = |revision, watch_id| WatchResponse {
        header: Some(headers.at(revision)),
        watch_id,
        ..WatchResponse::default()
    };
    match delivery {
        Delivery::Created { id, revision } => {
            WatchResponse { created: true, ..answer(revision, id) }
        }
        Delivery::Refused { reason } => WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: refusal(reason).to_owned(),
            ..answer(current, NO_WATCHER)
        },
        Delivery::Events { id, revision, events, more_fragments } => WatchResponse {
            fragment: more_fragments,
            events: events.into_iter().map(EncodedEvent::new).collect(),
            ..answer(revision, id)
        },
        Delivery::Progress { id, revision } => answer(revision, id),
        Delivery::Compacted { id, compact_revision } => {
            WatchResponse { canceled: true, compact_revision, ..answer(0, id) }
        }
        Delivery::Canceled { id } => WatchResponse { canceled: true, ..answer(current, id) },
    }
}

fn refusal(reason: RefusedReason) -> &'static str {
    match reason {
        RefusedReason::DuplicateId => cancel_reason::DUPLICATE_ID,
        RefusedReason::EmptyRange => cancel_reason::EMPTY_RANGE,
        RefusedReason::StartCompacted => cancel_reason::START_COMPACTED,
        RefusedReason::InvalidToken => cancel_reason::INVALID_AUTH_TOKEN,
        RefusedReason::Auth(AuthRefusal::OldRevision) => cancel_reason::AUTH_OLD_REVISION,
        RefusedReason::Auth(AuthRefusal::UserEmpty) => cancel_reason::USER_EMPTY,
        RefusedReason::Auth(_) => cancel_reason::PERMISSION_DENIED,
    }
}
