//! Bootstrap by SRV records of DNS (`--discovery-srv`, `--discovery-srv-name`).
//!
//! ```text
//! _etcd-server-ssl[-NAME]._tcp.DOMAIN   members with https URLs
//! _etcd-server[-NAME]._tcp.DOMAIN       members with http URLs
//! ```
//!
//! All of both are the initial cluster, by the names of the records. Which one this member is follows from
//! its `--initial-advertise-peer-urls`: the same URL, or else one with an address in common. The
//! others have no names yet, so they get numbers until they tell theirs, as in etcd. A question that
//! is not answered ends the start, unlike in etcd: half of the records would be another cluster. So
//! do records that make no cluster anybody can have meant: one address by both schemes, and a plain
//! URL beside a member whose own are all secure. DNS is not authenticated, and whoever is in the
//! initial cluster is sent everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use holdfast_raft::{Discover, InitialCluster};

use super::name_servers::{NameServers, Service};

/// The services that members register as, and the schemes of their URLs.
const SERVICES: [(&str, &str); 2] = [("etcd-server-ssl", "https"), ("etcd-server", "http")];

/// From the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSettings {
    /// `--discovery-srv`.
    pub domain: String,
    /// `--discovery-srv-name`; empty for none.
    pub service_name: String,
    /// Whether members show each other certificates of authorities that the system knows, for want
    /// of a `--peer-trusted-ca-file`.
    pub trusts_the_system: bool,
}

/// One member's way into its cluster.
#[derive(Clone)]
pub(super) struct Records {
    settings: RecordSettings,
    name: String,
    peer_urls: Vec<String>,
}

impl Records {
    pub(super) fn new(settings: RecordSettings, name: &str, peer_urls: &[String]) -> Self {
        Self { settings, name: name.to_owned(), peer_urls: peer_urls.to_vec() }
    }

    async fn ask(&self) -> Result<InitialCluster, String> {
        let RecordSettings { domain, service_name, .. } = &self.settings;
        let suffix = if service_name.is_empty() { "" } else { "-" };
        let servers = NameServers::of_this_machine()?;
        let (mut urls, mut asked) = (BTreeSet::new(), Vec::new());
        for (service, scheme) in SERVICES {
            let name = format!("_{service}{suffix}{service_name}._tcp.{domain}");
            let services = servers.services(&name).await;
            let services = services.map_err(|reason| {
                format!(
                    "error querying DNS SRV records for _{service}{suffix}{service_name}: {reason}"
                )
            })?;
            urls.extend(services.iter().map(|service| url(scheme, service)));
            asked.push(name);
        }
        if urls.is_empty() {
            let asked = asked.join(" and ");
            return Err(format!("error querying DNS SRV records: there are none at {asked}"));
        }
        let urls: Vec<String> = urls.into_iter().collect();
        tracing::info!(domain, ?urls, "got bootstrap from DNS");
        if let Some(warning) = self.warning(&urls) {
            tracing::warn!("{warning}");
        }
        self.cluster(&urls, &self.own(&urls).await)
    }

    /// etcd would have the certificates name the domain, which is no name from DNS.
    fn warning(&self, urls: &[String]) -> Option<&'static str> {
        let is_verified = urls.iter().any(|url| scheme(url) == "https");
        (self.settings.trusts_the_system && is_verified).then_some(
            "peers are by https, DNS says which names their certificates have to have, and any \
             authority of this system may have signed them: give --peer-trusted-ca-file",
        )
    }

    /// Which of these URLs are this member's.
    async fn own(&self, urls: &[String]) -> BTreeSet<String> {
        let same = urls.iter().filter(|url| self.peer_urls.contains(url));
        let same: BTreeSet<_> = same.cloned().collect();
        if !same.is_empty() {
            return same;
        }
        let mut own = BTreeSet::new();
        for peer_url in &self.peer_urls {
            own.extend(addresses(peer_url).await);
        }
        let mut found = BTreeSet::new();
        for url in urls {
            if addresses(url).await.iter().any(|address| own.contains(address)) {
                found.insert(url.clone());
            }
        }
        found
    }

    fn cluster(&self, urls: &[String], own: &BTreeSet<String>) -> Result<InitialCluster, String> {
        refuse_twins(urls)?;
        if own.is_empty() {
            return Err(format!(
                "cannot find local etcd member {:?} in SRV records: none of {} is one of \
                 --initial-advertise-peer-urls, {}",
                self.name,
                urls.join(","),
                self.peer_urls.join(",")
            ));
        }
        let schemes: BTreeSet<_> = self.peer_urls.iter().map(|url| scheme(url)).collect();
        if let Some(url) = own.iter().find(|url| !schemes.contains(scheme(url))) {
            return Err(format!(
                "bootstrap at {url} from DNS has scheme mismatch with expected peer {}",
                self.peer_urls.join(",")
            ));
        }
        self.refuse_plain(urls)?;
        let others = urls.iter().filter(|url| !own.contains(*url));
        let names = (0..).map(|number: usize| number.to_string()).filter(|n| *n != self.name);
        let others = names.zip(others).map(|(name, url)| (name, vec![url.clone()]));
        Ok([(self.name.clone(), own.iter().cloned().collect())].into_iter().chain(others).collect())
    }

    /// A member whose own URLs are all secure sends nobody the log in the clear because DNS says so.
    fn refuse_plain(&self, urls: &[String]) -> Result<(), String> {
        let is_secure = |url: &String| scheme(url) == "https";
        let plain = urls.iter().find(|url| !is_secure(url));
        match plain.filter(|_| self.peer_urls.iter().all(is_secure)) {
            Some(url) => Err(format!(
                "{} is registered by http, and all of this member's --initial-advertise-peer-urls \
                 are https ({}): take the SRV record out, or found a cluster of both kinds by \
                 --initial-cluster",
                parts(url).1,
                self.peer_urls.join(",")
            )),
            None => Ok(()),
        }
    }
}

/// Two URLs of one address would be two voters, of which one can never be reached.
fn refuse_twins(urls: &[String]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for url in urls {
        let (scheme, authority) = parts(url);
        if let Some(other) = seen.insert(authority, scheme) {
            return Err(format!(
                "{authority} is registered by {other} and by {scheme}: take one of the two SRV \
                 records out"
            ));
        }
    }
    Ok(())
}

impl Discover for Records {
    fn discover(&self) -> BoxFuture<'static, Result<InitialCluster, String>> {
        let records = self.clone();
        Box::pin(async move { records.ask().await })
    }

    fn what(&self) -> &'static str {
        "discovery by SRV records"
    }
}

fn url(scheme: &str, service: &Service) -> String {
    format!("{scheme}://{}:{}", service.host, service.port)
}

/// The scheme and the authority.
fn parts(url: &str) -> (&str, &str) {
    url.split_once("://").unwrap_or_default()
}

fn scheme(url: &str) -> &str {
    parts(url).0
}

/// Those of a URL's host, with its port; none where nobody knows it.
async fn addresses(url: &str) -> Vec<SocketAddr> {
    tokio::net::lookup_host(parts(url).1).await.map(Iterator::collect).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(name: &str, peer_urls: &[&str]) -> Records {
        let settings = RecordSettings {
            domain: "d".to_owned(),
            service_name: String::new(),
            trusts_the_system: true,
        };
        let peer_urls: Vec<_> = peer_urls.iter().map(|url| (*url).to_owned()).collect();
        Records::new(settings, name, &peer_urls)
    }

    async fn found(records: &Records, urls: &[&str]) -> Result<Vec<String>, String> {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        let cluster = records.cluster(&urls, &records.own(&urls).await)?;
        Ok(cluster.iter().map(|(name, urls)| format!("{name}={}", urls.join(","))).collect())
    }

    #[tokio::test]
    async fn a_member_finds_itself_by_its_url_or_by_its_address() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.2:1", "http://127.0.0.3:1"];
        let by_url = records("m2", &["http://127.0.0.2:1"]);
        let expected = ["m2=http://127.0.0.2:1", "0=http://127.0.0.1:1", "1=http://127.0.0.3:1"];
        assert_eq!(found(&by_url, &urls).await.unwrap(), expected);
        let by_address = records("0", &["http://localhost:1"]);
        let expected = ["0=http://127.0.0.1:1", "1=http://127.0.0.2:1", "2=http://127.0.0.3:1"];
        assert_eq!(found(&by_address, &urls).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_member_that_has_no_record_is_told_so() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.2:1"];
        let refused = found(&records("m", &["http://127.0.0.1:2"]), &urls).await.unwrap_err();
        assert!(
            refused.starts_with("cannot find local etcd member \"m\" in SRV records"),
            "{refused}"
        );
        let refused = found(&records("m", &["https://127.0.0.1:1"]), &urls).await.unwrap_err();
        assert!(
            refused.contains("has scheme mismatch with expected peer https://127.0.0.1:1"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn one_address_by_both_schemes_is_refused() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.2:1", "https://127.0.0.1:1"];
        for own in ["http://127.0.0.1:1", "https://127.0.0.1:1"] {
            let refused = found(&records("m", &[own]), &urls).await.unwrap_err();
            let expected = "127.0.0.1:1 is registered by http and by https";
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_secure_member_takes_no_plain_one_from_dns() {
        let urls = ["http://127.0.0.2:1", "https://127.0.0.1:1"];
        let secure = records("m", &["https://127.0.0.1:1"]);
        let refused = found(&secure, &urls).await.unwrap_err();
        assert!(refused.starts_with("127.0.0.2:1 is registered by http,"), "{refused}");
        let mixed = records("m", &["http://127.0.0.3:1", "https://127.0.0.1:1"]);
        let expected = ["m=https://127.0.0.1:1", "0=http://127.0.0.2:1"];
        assert_eq!(found(&mixed, &urls).await.unwrap(), expected);
    }

    #[test]
    fn public_authorities_for_names_from_dns_are_warned_about() {
        let urls = |scheme: &str| [format!("{scheme}://127.0.0.1:1")];
        let mut records = records("m", &["https://127.0.0.1:1"]);
        assert!(records.warning(&urls("https")).is_some());
        assert_eq!(records.warning(&urls("http")), None);
        records.settings.trusts_the_system = false;
        assert_eq!(records.warning(&urls("https")), None);
    }
}
