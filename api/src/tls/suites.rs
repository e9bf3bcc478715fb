//! Cipher suites and protocol versions, by the names that etcd takes: Go's.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};

/// Suites that Go knows and rustls does not, for want of security.
const GO_ONLY: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Versions of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// No TLS 1.2.
    pub only_13: bool,
    /// No TLS 1.3.
    pub only_12: bool,
}

impl Versions {
    /// Reads the flags; a version that is not given is the library's choice.
    pub fn parse(min: &str, max: &str) -> Result<Self, String> {
        let versions = Self { only_13: min == "TLS1.3", only_12: max == "TLS1.2" };
        if versions.only_13 && versions.only_12 {
            return Err(format!("min version ({min}) is greater than max version ({max})"));
        }
        Ok(versions)
    }

    pub(super) fn supported(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self { only_13: true, .. } => vec![&TLS13],
            Self { only_12: true, .. } => vec![&TLS12],
            _ => vec![&TLS13, &TLS12],
        }
    }
}

/// Checks names of suites, and gives those that this server does not offer.
pub fn check_suites(names: &[String], versions: Versions) -> Result<Vec<&str>, String> {
    let offered: Vec<String> =
        ring::default_provider().cipher_suites.iter().flat_map(go_names).collect();
    let mut missing = Vec::new();
    for name in names {
        if offered.contains(name) {
            continue;
        }
        if !GO_ONLY.contains(&name.as_str()) {
            return Err(format!("unexpected TLS cipher suite {name:?}"));
        }
        missing.push(name.as_str());
    }
    if versions.only_13 && !names.is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
    }
    if versions.only_12 && !names.is_empty() && missing.len() == names.len() {
        return Err("none of the cipher suites is offered by this server".to_owned());
    }
    Ok(missing)
}

/// The cryptography, with the suites of TLS 1.2 cut down to `names`; as in Go, those of TLS 1.3 are
/// not chosen.
pub(super) fn provider(names: &[String]) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| {
        let is_13 = suite.version().version == rustls::ProtocolVersion::TLSv1_3;
        names.is_empty() || is_13 || go_names(suite).iter().any(|name| names.contains(name))
    });
    Arc::new(provider)
}

/// What Go calls a suite; those of ChaCha20 have two names.
fn go_names(suite: &rustls::SupportedCipherSuite) -> Vec<String> {
    let name = format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let short = name.strip_suffix("_POLY1305_SHA256").map(|start| format!("{start}_POLY1305"));
    std::iter::once(name).chain(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn suites_are_known_by_gos_names() {
        let any = Versions::default();
        let good = owned(&[
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
            "TLS_AES_128_GCM_SHA256",
        ]);
        assert_eq!(check_suites(&good, any), Ok(vec![]));
        assert_eq!(provider(&good).cipher_suites.len(), 5, "two, and all of TLS 1.3");
        let old = owned(&["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        assert_eq!(check_suites(&old, any), Ok(vec!["TLS_RSA_WITH_AES_128_CBC_SHA"]));
        let wrong = owned(&["NULL"]);
        assert_eq!(
            check_suites(&wrong, any),
            Err("unexpected TLS cipher suite \"NULL\"".to_owned())
        );
        let only_13 = Versions { only_13: true, only_12: false };
        assert!(check_suites(&good, only_13).is_err());
    }

    #[test]
    fn versions_have_an_order() {
        assert_eq!(Versions::parse("TLS1.2", ""), Ok(Versions::default()));
        assert_eq!(
            Versions::parse("TLS1.3", "TLS1.2"),
            Err("min version (TLS1.3) is greater than max version (TLS1.2)".to_owned())
        );
        assert_eq!(Versions::parse("TLS1.3", "").map(|v| v.supported().len()), Ok(1));
    }
}
