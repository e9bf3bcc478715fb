//! Why a handshake failed, in the words of Go's TLS where it has some: operators and their alerts
//! look for them.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::presented::Presented;

/// The reason behind a handshake's IO error.
pub(super) fn reason(error: &io::Error, shown: Option<&Presented>) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(error) => library(error, shown),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => error.to_string(),
    }
}

fn library(error: &Error, shown: Option<&Presented>) -> String {
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_words(*alert)),
        Error::InvalidCertificate(error) => certificate(error, shown),
        Error::General(text) => text.clone(),
        error => format!("tls: {error}"),
    }
}

fn certificate(error: &CertificateError, shown: Option<&Presented>) -> String {
    use CertificateError as E;
    let what = match error {
        E::Revoked => {
            let serial = shown.map(|shown| hexadecimal(&shown.serial)).unwrap_or_default();
            return format!("transport: certificate serial {serial} revoked");
        }
        E::ApplicationVerificationFailure => {
            return "client certificate authentication failed".to_owned();
        }
        E::UnknownIssuer | E::BadSignature => "certificate signed by unknown authority".to_owned(),
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
            format!("certificate has expired or is not yet valid: {error}")
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        error => error.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {what}")
}

/// `BadCertificate` as `bad certificate`.
fn alert_words(alert: AlertDescription) -> String {
    let mut words = String::new();
    for letter in format!("{alert:?}").chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words.replace("c a", "ca")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_gos() {
        for (error, text) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            (
                Error::AlertReceived(AlertDescription::BadCertificate),
                "remote error: tls: bad certificate",
            ),
            (Error::NoCertificatesPresented, "tls: client didn't provide a certificate"),
            (
                Error::InvalidCertificate(CertificateError::Revoked),
                "transport: certificate serial 01ff revoked",
            ),
        ] {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            let shown = Presented { serial: vec![1, 0xff], ..Presented::default() };
            assert_eq!(reason(&error, Some(&shown)), text);
        }
        assert_eq!(reason(&io::ErrorKind::UnexpectedEof.into(), None), "EOF");
    }
}
