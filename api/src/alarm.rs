//! Alarms for clients, and what an alarm about space means to a request that needs some.
//!
//! Whether a write goes through is decided when it is applied. Here it is only kept out of the log,
//! which needs space itself, while it is certain to be refused.

use holdfast_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, alarm_request::AlarmAction,
};
use holdfast_store::auth::Access;
use holdfast_store::command::{Change, ClearAlarm, RaiseAlarm};
use holdfast_store::{AlarmCause, AlarmKind, Response};

use crate::auth::Caller;
use crate::convert;
use crate::kv::propose;
use crate::services::Services;
use crate::status::Error;

/// Lists, raises or clears alarms. An action or kind that there is not does nothing.
pub async fn alarm(
    services: &Services,
    caller: &Caller,
    request: AlarmRequest,
) -> Result<AlarmResponse, Error> {
    services.require(caller, &access(&request)).await?;
    let (kind, member) = (request.alarm, request.member_id);
    let cause = AlarmCause::Client as i32;
    let alarms = match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => list(services, kind).await?,
        Ok(AlarmAction::Activate) => {
            let raise = RaiseAlarm { kind, member, cause };
            changed(services, caller, Change::RaiseAlarm(raise), kind, member).await?
        }
        Ok(AlarmAction::Deactivate) => {
            let clear = ClearAlarm { kind, member, cause };
            changed(services, caller, Change::ClearAlarm(clear), kind, member).await?
        }
        Err(_) => Vec::new(),
    };
    let header = Some(services.headers.at(services.reader.visible()));
    Ok(AlarmResponse { header, alarms })
}

/// To list alarms takes a name, and the rest root.
fn access(request: &AlarmRequest) -> Access<'static> {
    if request.action == AlarmAction::Get as i32 {
        Access::Authenticated
    } else {
        Access::Administer
    }
}

/// The alarms of one kind, or of all for none; whose is not asked, as in etcd.
async fn list(services: &Services, kind: i32) -> Result<Vec<AlarmMember>, Error> {
    services.port.read_barrier().await?;
    let is_wanted = |found: AlarmKind| kind == AlarmKind::None as i32 || kind == found as i32;
    let alarms = services.reader.alarms().into_iter().filter(|alarm| is_wanted(alarm.kind));
    Ok(alarms.map(|alarm| wire(alarm.kind as i32, alarm.member)).collect())
}

async fn changed(
    services: &Services,
    caller: &Caller,
    change: Change,
    kind: i32,
    member: u64,
) -> Result<Vec<AlarmMember>, Error> {
    match propose(services, caller, convert::command(change)).await? {
        (_, Response::Alarm { changed: true }) => Ok(vec![wire(kind, member)]),
        _ => Ok(Vec::new()),
    }
}

fn wire(alarm: i32, member_id: u64) -> AlarmMember {
    AlarmMember { member_id, alarm }
}

/// The alarms as `Status.errors` tells them: etcd's text, with the space at its end.
pub fn status_errors(services: &Services) -> impl Iterator<Item = String> + use<> {
    services.reader.alarms().into_iter().map(|alarm| text(alarm.kind, alarm.member))
}

fn text(kind: AlarmKind, member: u64) -> String {
    match member {
        0 => format!("alarm:{} ", kind.name()),
        _ => format!("memberID:{member} alarm:{} ", kind.name()),
    }
}

/// The name of an alarm that is raised and not among those `excluded`.
pub fn raised_but(services: &Services, excluded: &[&str]) -> Option<&'static str> {
    let alarms = services.reader.alarms();
    alarms.iter().map(|alarm| alarm.kind.name()).find(|name| !excluded.contains(name))
}

/// Refuses a change of keys or leases that is certain to be refused when it is applied: any while
/// members differ, and one that needs room while there is none. Another member may have cleared the
/// alarm already: whoever has seen that is not refused.
pub async fn admit(services: &Services, needs_room: bool) -> Result<(), Error> {
    let is_raised = |kind| services.reader.is_raised(kind);
    let has_no_space = || needs_room && is_raised(AlarmKind::NoSpace);
    if is_raised(AlarmKind::Corrupt) || has_no_space() {
        Box::pin(services.port.read_barrier()).await?;
        if is_raised(AlarmKind::Corrupt) {
            return Err(Error::Corrupt);
        }
        if has_no_space() {
            return Err(Error::NoSpace);
        }
    }
    // Before all members have agreed on the alarm.
    match needs_room && services.node().is_short_of_space() {
        true => Err(Error::NoSpace),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_etcd() {
        assert_eq!(text(AlarmKind::NoSpace, 77), "memberID:77 alarm:NOSPACE ");
        assert_eq!(text(AlarmKind::Corrupt, 0), "alarm:CORRUPT ");
    }
}
