//! Whether this member is well: `/health` for old probes, `/livez` and `/readyz` for new ones.
//!
//! No check bumps the revision or writes anything.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use holdfast_store::AlarmKind;
use http::{Response, StatusCode};

use super::{error, text, values};
use crate::alarm;
use crate::rpc::Body;
use crate::services::Services;

/// What `/livez` asks.
pub(super) const LIVE: &[Check] = &[Check::SerializableRead];
/// What `/readyz` asks.
pub(super) const READY: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
    Check::LogDisk,
    Check::ClientsServed,
];

/// One question to this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// No alarm of corruption is raised.
    DataCorruption,
    /// The store can be read.
    SerializableRead,
    /// A quorum confirms a leader.
    LinearizableRead,
    /// This member votes.
    NonLearner,
    /// The log's disk takes what it is given; etcd asks nothing of the kind.
    LogDisk,
    /// Clients are let in. Health is served before that, also while this member compares itself with
    /// its peers, which takes as long as it takes to read everything; etcd answers no probe then.
    ClientsServed,
}

impl Check {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
            Self::LogDisk => "log_disk",
            Self::ClientsServed => "clients_served",
        }
    }

    async fn run(self, services: &Services) -> Result<(), String> {
        match self {
            // Reading the published revision takes no lock and no disk.
            Self::SerializableRead => Ok(()),
            Self::DataCorruption if services.reader.is_raised(AlarmKind::Corrupt) => {
                Err(format!("alarm activated: {}", AlarmKind::Corrupt.name()))
            }
            Self::DataCorruption => Ok(()),
            Self::LinearizableRead => barrier(services).await,
            Self::NonLearner if services.is_learner() => {
                Err("not supported for learner".to_owned())
            }
            Self::NonLearner => Ok(()),
            Self::LogDisk if services.node().status().is_disk_stalled => {
                Err("the disk has taken nothing for ten seconds".to_owned())
            }
            Self::LogDisk => Ok(()),
            Self::ClientsServed if services.shared.serves_clients.load(Ordering::Relaxed) => Ok(()),
            Self::ClientsServed => Err("clients are not served yet".to_owned()),
        }
    }
}

async fn barrier(services: &Services) -> Result<(), String> {
    let passed = services.port.health_barrier().await.map_err(crate::status::Error::from);
    passed.map_err(|error| error.to_string())
}

/// `/health`.
pub(super) async fn health(services: &Services, query: &str) -> Response<Body> {
    let serializable = values(query, "serializable").next() == Some("true");
    let excluded: Vec<_> = values(query, "exclude").collect();
    let reason = if let Some(alarm) = alarm::raised_but(services, &excluded) {
        format!("ALARM {alarm}")
    } else if serializable {
        String::new()
    } else if services.node().status().leader.is_none() {
        "RAFT NO LEADER".to_owned()
    } else {
        match barrier(services).await {
            Ok(()) => String::new(),
            Err(error) => format!("RANGE ERROR:{error}"),
        }
    };
    let healthy = reason.is_empty();
    let body = format!(r#"{{"health":"{healthy}","reason":"{reason}"}}"#);
    if healthy { text(body) } else { error(StatusCode::SERVICE_UNAVAILABLE, &body) }
}

/// `/livez` or `/readyz`.
pub(super) async fn checks(services: &Services, checks: &[Check], query: &str) -> Response<Body> {
    let excluded: Vec<_> = values(query, "exclude").collect();
    let asked = checks.iter().filter(|check| !excluded.contains(&check.name()));
    run(services, asked.copied(), query).await
}

/// One of their sub-paths.
pub(super) async fn check(services: &Services, check: Check, query: &str) -> Response<Body> {
    run(services, [check].into_iter(), query).await
}

async fn run(
    services: &Services,
    checks: impl Iterator<Item = Check>,
    query: &str,
) -> Response<Body> {
    let mut report = String::new();
    let mut failed = false;
    for check in checks {
        let line = match check.run(services).await {
            Ok(()) => writeln!(report, "[+]{} ok", check.name()),
            Err(error) => {
                failed = true;
                writeln!(report, "[-]{} failed: {error}", check.name())
            }
        };
        line.expect("a string takes everything");
    }
    if failed {
        return error(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    let verbose = values(query, "verbose").next().is_some();
    text(if verbose { report + "ok\n" } else { "ok\n".to_owned() })
}
