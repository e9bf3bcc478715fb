//! Bootstrap by etcd's v3 discovery service (`--discovery-token`, `--discovery-endpoints`); by DNS, see
//! `discovery/records.rs`.
//!
//! ```text
//! another cluster is the registry; under /_etcd/registry/<token>/ it holds
//!   _config/size          how many members found the cluster, put there beforehand
//!   members/<member id>   name=peer-url[,name=peer-url2], put there by the member
//! ```
//!
//! A member that has no log registers, waits until as many are there as the size says, and founds
//! its cluster with the first of them, by create revision: the same ones for each. What passes is
//! tried again, at the next endpoint, for as long as it takes; what does not ends the start. Who has
//! no log is decided by `holdfast-raft`, which asks through [`Discover`]. An entry is never taken
//! out again: a token is for one cluster.

mod endpoint;
mod name_servers;
mod records;
mod registry;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use holdfast_raft::identity::member_id;
use holdfast_raft::{Discover, InitialCluster};

use crate::tls::{TlsClient, TlsSettings};

pub use endpoint::Endpoint;
pub use records::RecordSettings;

use records::Records;
use registry::{Keys, Line, Registry};
use session::Session;

/// Before the first repetition; doubled with each until one succeeds.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(32);
/// How long a watch is relied on before the registry is read again.
const WATCH_MAX: Duration = Duration::from_secs(30);

/// Where a member learns with whom it founds its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--discovery-endpoints`.
    Registry(Box<Settings>),
    /// `--discovery-srv`.
    Records(RecordSettings),
}

impl Source {
    /// The way of the member of this name and with these peer URLs. Nothing is read or asked before
    /// [`Discover::discover`]: a member that has a log does without all of it.
    pub fn open(self, name: &str, peer_urls: &[String]) -> Arc<dyn Discover> {
        match self {
            Self::Registry(settings) => Arc::new(Discovery::new(*settings, name, peer_urls)),
            Self::Records(settings) => Arc::new(Records::new(settings, name, peer_urls)),
        }
    }
}

/// From the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Tells the clusters of a registry apart; it is the token of this one, too.
    pub token: String,
    /// The registry's client URLs, at least one.
    pub endpoints: Vec<Endpoint>,
    /// For a connection, its TLS and nothing else; zero for no limit.
    pub dial_timeout: Duration,
    /// For one request; above zero.
    pub request_timeout: Duration,
    /// Between pings; zero for none.
    pub keepalive_time: Duration,
    /// For the answer to a ping.
    pub keepalive_timeout: Duration,
    /// Used where an endpoint is secure.
    pub tls: TlsSettings,
    /// Who this member is to the registry; nobody when there is none.
    pub login: Option<Login>,
}

/// A user of the registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// Shown nowhere.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why there is no cluster to found. The texts begin with etcd's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Nobody has said how many members there are to be.
    #[error(
        "discovery: size key not found: put the number of members into {0} before the first of them \
         starts"
    )]
    SizeNotFound(String),
    /// What was said is no number of members.
    #[error("discovery: size key is bad: {key} holds {value:?}, not a number of members")]
    BadSize {
        /// The key of the size.
        key: String,
        /// What it holds.
        value: String,
    },
    /// Others have come first.
    #[error(
        "discovery: cluster is full: all {0} members have registered with this token, and this is \
         none of them. Add it to their cluster by member add, or make a new token for a new cluster"
    )]
    FullCluster(usize),
    /// Another member has these peer URLs, or this one had another name before.
    #[error(
        "discovery: found duplicate id: {key} is registered as {value:?}, and this member is \
         {own:?}. Make a new token"
    )]
    DuplicateId {
        /// The key of this member.
        key: String,
        /// What it holds.
        value: String,
        /// What it should hold.
        own: String,
    },
    /// Two members have one name.
    #[error("discovery: found duplicate name: {0:?} is registered twice. Make a new token")]
    DuplicateName(String),
    /// Two members have one peer URL.
    #[error("discovery cluster has duplicate url: {0} is registered twice. Make a new token")]
    DuplicateUrl(String),
    /// An entry is not that of one member.
    #[error("discovery: invalid peer URL: {key} holds {value:?} ({reason})")]
    InvalidUrl {
        /// The key of the entry.
        key: String,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The files of the TLS flags cannot be used.
    #[error("discovery: {0}")]
    Tls(String),
    /// The registry answers, and will give the same answer again.
    #[error("discovery: {endpoint} refuses: {reason}")]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// What it says.
        reason: String,
    },
}

/// Whether to try again.
#[derive(Debug)]
enum Failure {
    /// It will not get better.
    Final(DiscoveryError),
    /// It may.
    Passing(String),
}

impl From<DiscoveryError> for Failure {
    fn from(error: DiscoveryError) -> Self {
        Self::Final(error)
    }
}

/// One member's way into its cluster.
struct Discovery {
    search: Arc<Search>,
}

impl Discovery {
    fn new(settings: Settings, name: &str, peer_urls: &[String]) -> Self {
        let keys = Keys::of(&settings.token, member_id(peer_urls, &settings.token));
        let own = Line::new(&keys, name, peer_urls);
        Self { search: Arc::new(Search { settings, keys, own }) }
    }
}

impl Discover for Discovery {
    fn discover(&self) -> BoxFuture<'static, Result<InitialCluster, String>> {
        let search = self.search.clone();
        Box::pin(async move { search.run().await.map_err(|error| error.to_string()) })
    }

    fn what(&self) -> &'static str {
        "discovery token"
    }
}

struct Search {
    settings: Settings,
    keys: Keys,
    /// What this member registers.
    own: Line,
}

impl Search {
    /// Tries one endpoint after the other until one of them has said who founds the cluster.
    async fn run(&self) -> Result<InitialCluster, DiscoveryError> {
        let Settings { token, endpoints, .. } = &self.settings;
        tracing::info!(token, ?endpoints, "bootstrapping the cluster by v3 discovery");
        let is_secure = endpoints.iter().any(|endpoint| endpoint.target.is_secure);
        let tls = is_secure.then(|| TlsClient::open(&self.settings.tls).map(Arc::new));
        let tls = tls.transpose().map_err(|error| DiscoveryError::Tls(error.to_string()))?;
        let mut backoff = BACKOFF_MIN;
        for endpoint in endpoints.iter().cycle() {
            let reason = match self.ask(endpoint, tls.as_ref(), &mut backoff).await {
                Ok(cluster) => {
                    tracing::info!(?cluster, "discovery joined cluster successfully");
                    return Ok(cluster);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => reason,
            };
            tracing::warn!(
                %endpoint,
                reason,
                ?backoff,
                "retry connecting to discovery service"
            );
            tokio::time::sleep(backoff).await;
            backoff = (2 * backoff).min(BACKOFF_MAX);
        }
        unreachable!("there is at least one endpoint")
    }

    /// Registers with the registry unless that has been done, and waits for the others.
    async fn ask(
        &self,
        endpoint: &Endpoint,
        tls: Option<&Arc<TlsClient>>,
        backoff: &mut Duration,
    ) -> Result<InitialCluster, Failure> {
        let session = Session::open(&self.settings, tls, endpoint).await?;
        let mut found = None;
        loop {
            let (registry, revision) = session.read(&self.keys).await?;
            *backoff = BACKOFF_MIN;
            registry.admit(&self.own)?;
            if !registry.holds(&self.own) {
                session.register(&self.own).await?;
                tracing::info!(key = self.own.key, value = self.own.value, "registered");
                continue;
            }
            if let Some(cluster) = registry.founders()? {
                return Ok(cluster);
            }
            let Registry { size, .. } = registry;
            if found.replace(registry.count()) != Some(registry.count()) {
                let found = registry.count();
                tracing::info!(size, found, "waiting for peers from discovery service");
            }
            session.wait_for_change(&self.keys, revision + 1, WATCH_MAX).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let login = Login { user: "u".to_owned(), password: "secret".to_owned() };
        assert_eq!(format!("{login:?}"), "Login { user: \"u\", .. }");
    }
}
