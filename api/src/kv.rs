//! The KV service: reads at a barrier, writes through the log.
//!
//! Every function takes a request as it came from the wire, checks it, and gives the wire's answer.
//! Single-key reads and small ranges are answered on the connection runtime; whatever is longer goes
//! to the pool (`kv/read.rs`), and big answers leave in pieces (`kv/large.rs`, `kv/pages.rs`).

mod large;
mod pages;
mod read;

use holdfast_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, TxnRequest, TxnResponse,
};
use holdfast_store::auth::Access;
use holdfast_store::command::{Change, Command};
use holdfast_store::{Effort, ReadError, Response};
use tokio::sync::oneshot;

use crate::admit::{self, TxnKind};
use crate::auth::Caller;
use crate::services::Services;
use crate::status::Error;
use crate::{alarm, convert};

pub use pages::range_stream;
pub use read::{Answer, range};

/// Replicates a command in a caller's name: the revision after it, and its answer.
pub(crate) async fn propose(
    services: &Services,
    caller: &Caller,
    mut command: Command,
) -> Result<(i64, Response), Error> {
    command.credentials = services.credentials(caller).await?;
    replicate(services, command).await
}

/// Replicates a change of keys or leases, unless an alarm keeps it out of the log. Who asks is
/// settled first, as in etcd.
pub(crate) async fn propose_change(
    services: &Services,
    caller: &Caller,
    mut command: Command,
) -> Result<(i64, Response), Error> {
    command.credentials = services.credentials(caller).await?;
    let needs_room = command.change.as_ref().is_some_and(Change::needs_room);
    alarm::admit(services, needs_room).await?;
    replicate(services, command).await
}

async fn replicate(services: &Services, command: Command) -> Result<(i64, Response), Error> {
    let applied = services.port.propose(command).await?;
    Ok((applied.outcome.revision, applied.outcome.result?))
}

/// Writes one key. `length` is that of the request's encoding, here and below.
pub async fn put(
    services: &Services,
    caller: &Caller,
    request: PutRequest,
    length: usize,
) -> Result<PutResponse, Error> {
    admit::put(&request)?;
    services.shared.limits.check_size(length)?;
    let command = convert::command(Change::Put(convert::put(request)));
    match propose_change(services, caller, command).await? {
        (revision, Response::Put { prev }) => {
            Ok(convert::put_response(services.headers.at(revision), prev))
        }
        (_, other) => unreachable!("a put was answered by {other:?}"),
    }
}

/// Deletes one key or a range.
pub async fn delete_range(
    services: &Services,
    caller: &Caller,
    request: DeleteRangeRequest,
    length: usize,
) -> Result<DeleteRangeResponse, Error> {
    admit::delete_range(&request)?;
    services.shared.limits.check_size(length)?;
    let command = convert::command(Change::DeleteRange(convert::delete_range(request)));
    match propose_change(services, caller, command).await? {
        (revision, Response::DeleteRange { deleted, prevs }) => {
            let header = services.headers.at(revision);
            Ok(convert::delete_range_response(header, deleted, prevs))
        }
        (_, other) => unreachable!("a delete was answered by {other:?}"),
    }
}

/// Runs a transaction: through the log, unless it only reads.
pub async fn txn(
    services: &Services,
    caller: &Caller,
    request: TxnRequest,
    length: usize,
) -> Result<TxnResponse, Error> {
    admit::txn(&request, &services.shared.limits)?;
    let kind = admit::txn_kind(&request);
    let txn = convert::txn(request);
    let answer = match kind {
        TxnKind::Write => {
            services.shared.limits.check_size(length)?;
            propose_change(services, caller, convert::command(Change::Txn(txn))).await?
        }
        TxnKind::Read => {
            services.port.key_barrier().await?;
            read_txn(services, caller, txn).await?
        }
        TxnKind::SerializableRead => read_txn(services, caller, txn).await?,
    };
    match answer {
        (revision, Response::Txn { succeeded, responses }) => {
            Ok(convert::txn_response(services.headers.at(revision), succeeded, responses))
        }
        (_, other) => unreachable!("a transaction was answered by {other:?}"),
    }
}

/// Evaluates a transaction that only reads, at one revision of this member.
async fn read_txn(
    services: &Services,
    caller: &Caller,
    txn: holdfast_store::command::Txn,
) -> Result<(i64, Response), Error> {
    let pass = services.may(caller, &Access::Txn(&txn)).await?;
    let read = match services.reader.txn(&txn, Effort::Inline) {
        Err(ReadError::WouldBlock) => {
            let reader = services.reader.clone();
            Box::pin(services.shared.pool.run(move || reader.txn(&txn, Effort::Blocking))).await?
        }
        read => read,
    };
    let read = read.map_err(|error| services.read_error(error))?;
    services.still(pass)?;
    Ok(read)
}

/// Makes revisions below one unreadable; waits for their removal when it is to be physical.
pub async fn compact(
    services: &Services,
    caller: &Caller,
    request: CompactionRequest,
) -> Result<CompactionResponse, Error> {
    propose_change(services, caller, convert::compact(request.revision)).await?;
    if request.physical {
        let (done, wait) = oneshot::channel();
        let done = Box::new(move || {
            // A client that has gone needs no answer.
            let _ = done.send(());
        });
        services.reader.when_compacted(request.revision, done);
        wait.await.map_err(|_| Error::Stopped)?;
    }
    let header = services.headers.at(services.reader.visible());
    Ok(CompactionResponse { header: Some(header) })
}
