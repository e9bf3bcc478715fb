//! Downgrade requests, answered as etcd does; there is nothing here to take down.
//!
//! Tools ask before and after they replace binaries. A job is noted for all members, told by
//! `Status`, and stays until it is called off: holdfast writes no older format, and going back to
//! etcd is by a snapshot.

use holdfast_proto::etcdserverpb::{
    DowngradeInfo, DowngradeRequest, DowngradeResponse, downgrade_request::DowngradeAction,
};
use holdfast_store::command::{Change, SetDowngrade};

use crate::auth::Caller;
use crate::convert;
use crate::kv::propose;
use crate::services::Services;
use crate::status::Error;

/// A version of the API, without the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Minor {
    major: u64,
    minor: u64,
}

/// What `Status` tells of a downgrade.
pub fn info(services: &Services) -> DowngradeInfo {
    let target_version = services.reader.downgrade_target();
    DowngradeInfo { enabled: !target_version.is_empty(), target_version }
}

/// Validates, notes, or calls off a downgrade.
pub async fn downgrade(
    services: &Services,
    caller: &Caller,
    request: DowngradeRequest,
) -> Result<DowngradeResponse, Error> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => {
            target(services, &request.version)?;
            services.port.read_barrier().await?;
            if !services.reader.downgrade_target().is_empty() {
                return Err(Error::DowngradeInProcess);
            }
        }
        Ok(DowngradeAction::Enable) => {
            let target = target(services, &request.version)?;
            note(services, caller, target).await?;
        }
        Ok(DowngradeAction::Cancel) => note(services, caller, String::new()).await?,
        Err(_) => return Err(Error::UnknownMethod),
    }
    let Minor { major, minor } = cluster_version(services);
    let header = Some(services.headers.at(services.reader.visible()));
    Ok(DowngradeResponse { header, version: format!("{major}.{minor}") })
}

/// The version to go down to, in full; refused unless it is the one just below the cluster's.
fn target(services: &Services, version: &str) -> Result<String, Error> {
    let wanted = parse(version).ok_or(Error::WrongDowngradeVersionFormat)?;
    let current = cluster_version(services);
    let below = current.minor.checked_sub(1).map(|minor| Minor { minor, ..current });
    if Some(wanted) != below {
        return Err(Error::InvalidDowngradeTargetVersion);
    }
    Ok(format!("{}.{}.0", wanted.major, wanted.minor))
}

async fn note(services: &Services, caller: &Caller, target: String) -> Result<(), Error> {
    let change = Change::SetDowngrade(SetDowngrade { target });
    propose(services, caller, convert::command(change)).await.map(|_| ())
}

fn cluster_version(services: &Services) -> Minor {
    parse(services.shared.etcd_version).expect("a version that this program was built with")
}

/// Reads `3.5`, `3.5.0` or `3.5.0-rc.1+build`; what follows a `-` or `+` takes all three numbers.
fn parse(version: &str) -> Option<Minor> {
    let numbers = version.split(['-', '+']).next().unwrap_or(version);
    let mut parts = numbers.split('.').map(|number| number.parse::<u64>().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    match (parts.next(), parts.next()) {
        (None, _) if numbers.len() == version.len() => Some(Minor { major, minor }),
        (Some(Some(_)), None) => Some(Minor { major, minor }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        let minor = |major, minor| Some(Minor { major, minor });
        for (text, read) in [
            ("3.5", minor(3, 5)),
            ("3.5.0", minor(3, 5)),
            ("3.5.9", minor(3, 5)),
            ("3.5.0-rc", minor(3, 5)),
            ("3.5.0-rc.1+build", minor(3, 5)),
            ("3.5-rc", None),
            ("3.5+build", None),
            ("v3.5.0", None),
            ("3.5.0.1", None),
            ("3", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(parse(text), read, "{text}");
        }
    }
}
