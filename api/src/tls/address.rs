//! Whether a member's certificate names the address that it connects from, as etcd asks.
//!
//! A certificate without names is good for any address. One of its addresses must be the peer's, or
//! one of its host names must resolve to it; for `*.domain` the peer's address is resolved to a name.
//! Whoever calls bounds the time.

use std::net::IpAddr;

use super::presented::Presented;

/// Says why the address is not the certificate's.
pub(super) async fn check(presented: &Presented, address: IpAddr) -> Result<(), String> {
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
    for name in dns_names {
        let is_good = match name.strip_prefix("*.") {
            Some(domain) => has_name_below(address, domain.to_owned()).await,
            None => resolves_to(name, address).await,
        };
        if is_good {
            return Ok(());
        }
    }
    Err(format!("tls: \"{address}\" does not match any of DNSNames {dns_names:?}"))
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
    use super::*;

    async fn judged(ip_addresses: &[&str], dns_names: &[&str]) -> Result<(), String> {
        let presented = Presented {
            ip_addresses: ip_addresses.iter().map(|text| text.parse().unwrap()).collect(),
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            ..Presented::default()
        };
        check(&presented, "127.0.0.1".parse().unwrap()).await
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

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(is_below("m1.etcd.example.", "etcd.example"));
        assert!(!is_below("a.m1.etcd.example", "etcd.example"));
        assert!(!is_below("etcd.example", "etcd.example"));
    }
}
