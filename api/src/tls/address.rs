//! Whether a member's certificate names the address that it connects from, as etcd asks.
//!
//! A certificate without names is good for any address. One of its addresses must be the peer's, or
//! one of its host names must resolve to it; for `*.domain` the peer's address is resolved to a name.
//! Names are asked for side by side, and answers kept for seconds, because a member makes several
//! connections at once. Whoever calls bounds the time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::presented::Presented;

/// Names of one certificate that are asked for at a time.
const AT_ONCE: usize = 16;
/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(5);
/// Answers kept.
const KEPT_MAX: usize = 1024;

/// What name services said lately.
#[derive(Default)]
pub(super) struct Names {
    /// Whether the name is the address's, and when that was said.
    answers: Mutex<BTreeMap<(String, IpAddr), (bool, Instant)>>,
}

impl Names {
    /// Says why the address is not the certificate's.
    pub(super) async fn check(&self, presented: &Presented, address: IpAddr) -> Result<(), String> {
        let address = address.to_canonical();
        let Presented { ip_addresses, dns_names, .. } = presented;
        if (ip_addresses.is_empty() && dns_names.is_empty()) || ip_addresses.contains(&address) {
            return Ok(());
        }
        if dns_names.is_empty() {
            let valid: Vec<String> = ip_addresses.iter().map(ToString::to_string).collect();
            let valid = valid.join(", ");
            return Err(format!("x509: certificate is valid for {valid}, not {address}"));
        }
        let asked = dns_names
            .iter()
            .cloned()
            .map(|name| self.answer(name.clone(), address, ask(name, address)));
        match any(asked).await {
            true => Ok(()),
            false => {
                Err(format!("tls: \"{address}\" does not match any of DNSNames {dns_names:?}"))
            }
        }
    }

    /// What was said lately, else what is said now.
    async fn answer(&self, name: String, address: IpAddr, ask: impl Future<Output = bool>) -> bool {
        let key = (name, address);
        let known = self.answers().get(&key).copied();
        if let Some((is_good, said)) = known
            && said.elapsed() < KEPT
        {
            return is_good;
        }
        let is_good = ask.await;
        let mut answers = self.answers();
        if answers.len() >= KEPT_MAX {
            answers.clear();
        }
        answers.insert(key, (is_good, Instant::now()));
        is_good
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<(String, IpAddr), (bool, Instant)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one of them is; waits for no other then.
async fn any<F: Future<Output = bool>>(asked: impl Iterator<Item = F>) -> bool {
    let mut answers = pin!(stream::iter(asked).buffer_unordered(AT_ONCE));
    while let Some(is_good) = answers.next().await {
        if is_good {
            return true;
        }
    }
    false
}

async fn ask(name: String, address: IpAddr) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => has_name_below(address, domain.to_owned()).await,
        None => resolves_to(&name, address).await,
    }
}

async fn resolves_to(name: &str, address: IpAddr) -> bool {
    // A name that does not resolve says nothing for the peer.
    match tokio::net::lookup_host((name, 0)).await {
        Ok(mut found) => found.any(|found| found.ip().to_canonical() == address),
        Err(_) => false,
    }
}

async fn has_name_below(address: IpAddr, domain: String) -> bool {
    let lookup = move || dns_lookup::lookup_addr(&address);
    match tokio::task::spawn_blocking(lookup).await {
        Ok(Ok(name)) => is_below(&name, &domain),
        _ => false,
    }
}

/// One label stands for the star, as in Go.
fn is_below(name: &str, domain: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.split_once('.').is_some_and(|(_, rest)| rest == domain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    async fn judged(ip_addresses: &[&str], dns_names: &[&str]) -> Result<(), String> {
        let presented = Presented {
            ip_addresses: ip_addresses.iter().map(|text| text.parse().unwrap()).collect(),
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            ..Presented::default()
        };
        Names::default().check(&presented, "127.0.0.1".parse().unwrap()).await
    }

    #[tokio::test]
    async fn an_address_must_be_named_or_resolve() {
        assert_eq!(judged(&[], &[]).await, Ok(()));
        assert_eq!(judged(&["10.0.0.1", "127.0.0.1"], &[]).await, Ok(()));
        assert_eq!(judged(&["10.0.0.1"], &["localhost"]).await, Ok(()));
        assert_eq!(
            judged(&["10.0.0.1"], &[]).await,
            Err("x509: certificate is valid for 10.0.0.1, not 127.0.0.1".to_owned())
        );
        assert_eq!(
            judged(&[], &["name.invalid"]).await,
            Err("tls: \"127.0.0.1\" does not match any of DNSNames [\"name.invalid\"]".to_owned())
        );
    }

    #[tokio::test]
    async fn a_name_that_nobody_answers_for_holds_up_no_other() {
        let never = std::future::pending().boxed();
        assert!(any([never, std::future::ready(true).boxed()].into_iter()).await);
        assert!(!any([std::future::ready(false), std::future::ready(false)].into_iter()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_seconds() {
        let names = Names::default();
        let address = "127.0.0.1".parse().unwrap();
        assert!(names.answer("a".to_owned(), address, std::future::ready(true)).await);
        assert!(names.answer("a".to_owned(), address, std::future::pending()).await);
        assert!(!names.answer("b".to_owned(), address, std::future::ready(false)).await);
        tokio::time::advance(KEPT).await;
        assert!(!names.answer("a".to_owned(), address, std::future::ready(false)).await);
    }

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(is_below("m1.etcd.example.", "etcd.example"));
        assert!(!is_below("a.m1.etcd.example", "etcd.example"));
        assert!(!is_below("etcd.example", "etcd.example"));
    }
}
