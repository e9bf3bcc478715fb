//! What a certificate says of its owner.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The names in a certificate, trusted or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presented {
    /// The subject's common name; empty when it has none.
    pub common_name: String,
    /// Host names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// The serial number without leading zeros.
    pub serial: Vec<u8>,
}

/// Who is at the other end of a connection, by a certificate that was verified because
/// `--client-cert-auth` asks for one. It stands among the extensions of every request of that
/// connection; requests of other connections have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionIdentity {
    /// The subject's common name; empty when it has none.
    pub common_name: Arc<str>,
}

impl Presented {
    /// Reads a certificate; none when it cannot be read.
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let common_name = certificate.subject().iter_common_name().last();
        let mut presented = Self {
            common_name: common_name.and_then(|n| n.as_str().ok()).unwrap_or_default().to_owned(),
            serial: significant(certificate.raw_serial()).to_vec(),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => presented.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => presented.ip_addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Some(presented)
    }
}

/// A number's bytes without leading zeros.
pub(super) fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

tokio::task_local! {
    /// The certificate that the handshake of this task was shown. The TLS library forgets one that
    /// it refuses, and a log line should say whose it was.
    static SHOWN: RefCell<Option<Presented>>;
}

/// Runs a handshake, and gives what it was shown beside its result.
pub(super) async fn observed<T>(handshake: impl Future<Output = T>) -> (T, Option<Presented>) {
    let run = async {
        let result = handshake.await;
        (result, SHOWN.with(RefCell::take))
    };
    SHOWN.scope(RefCell::default(), run).await
}

/// Notes what a handshake is shown, for the task that observes it.
pub(super) fn note(presented: &Presented) {
    // Without an observer nobody wants to know.
    let _ = SHOWN.try_with(|shown| shown.replace(Some(presented.clone())));
}
