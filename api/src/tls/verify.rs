//! Whether the other side's certificate is good enough: signed by an authority, in force, not
//! revoked, and with a permitted name.
//!
//! The first two are rustls's work, and come first: what a certificate says is read only once its
//! signatures are good. As in Go, a certificate that is itself among the authorities
//! needs no other; `openssl req -x509` makes such.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use super::material::{Authorities, revoked};
use super::presented::{Presented, note, significant};
use super::{TlsError, TlsSettings};

/// The rules beyond what rustls checks.
#[derive(Debug)]
struct Rules {
    /// Certificates that are authorities themselves.
    authorities: Vec<CertificateDer<'static>>,
    /// Serial numbers.
    revoked: BTreeSet<Vec<u8>>,
    allowed_cns: Vec<String>,
    allowed_hostnames: Vec<ServerName<'static>>,
}

impl Rules {
    fn read(
        settings: &TlsSettings,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let hostname = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|_| TlsError::Content {
                path: name.clone(),
                reason: "not a host name".to_owned(),
            })
        };
        Ok(Self {
            authorities,
            revoked: settings.crl_file.as_deref().map(revoked).transpose()?.unwrap_or_default(),
            allowed_cns: settings.allowed_cns.clone(),
            allowed_hostnames: settings
                .allowed_hostnames
                .iter()
                .map(hostname)
                .collect::<Result<_, _>>()?,
        })
    }

    /// What remains to be asked of certificates that rustls found good.
    fn check(&self, all: &[&CertificateDer<'_>], presented: &Presented) -> Result<(), Error> {
        for certificate in all {
            let serial = serial(certificate)?;
            if self.revoked.contains(&serial) {
                return Err(CertificateError::Revoked.into());
            }
        }
        let is_named =
            self.allowed_cns.is_empty() || self.allowed_cns.contains(&presented.common_name);
        if is_named && self.has_hostname(all[0])? {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn has_hostname(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        if self.allowed_hostnames.is_empty() {
            return Ok(true);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let names = |name| rustls::client::verify_server_name(&parsed, name).is_ok();
        Ok(self.allowed_hostnames.iter().any(names))
    }

    /// Gives `verdict`, unless the certificate is an authority and in force.
    fn unless_authority<T>(
        &self,
        verdict: Result<T, Error>,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        good: fn() -> T,
    ) -> Result<T, Error> {
        match verdict {
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.authorities.contains(certificate) =>
            {
                check_time(certificate, now).map(|()| good())
            }
            verdict => verdict,
        }
    }
}

fn bad_encoding() -> Error {
    CertificateError::BadEncoding.into()
}

fn serial(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad_encoding())?;
    Ok(significant(parsed.raw_serial()).to_vec())
}

fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad_encoding())?;
    let seconds = i64::try_from(now.as_secs()).map_err(|_| bad_encoding())?;
    let now = ASN1Time::from_timestamp(seconds).map_err(|_| bad_encoding())?;
    match parsed.validity().is_valid_at(now) {
        true => Ok(()),
        false => Err(CertificateError::Expired.into()),
    }
}

/// Reads whose certificate it is, and notes it for the log.
fn look(certificate: &CertificateDer<'_>) -> Result<Presented, Error> {
    let presented = Presented::read(certificate).ok_or_else(bad_encoding)?;
    note(&presented);
    Ok(presented)
}

fn all<'a>(
    first: &'a CertificateDer<'a>,
    others: &'a [CertificateDer<'a>],
) -> Vec<&'a CertificateDer<'a>> {
    std::iter::once(first).chain(others).collect()
}

/// Judges those who connect.
#[derive(Debug)]
pub(super) struct OfClients {
    inner: Arc<dyn ClientCertVerifier>,
    rules: Rules,
}

impl OfClients {
    pub(super) fn read(
        settings: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, TlsError> {
        let authorities = Authorities::read(settings.trusted_ca_file.as_ref())?;
        let builder =
            WebPkiClientVerifier::builder_with_provider(authorities.store, provider.clone());
        let inner = builder.build().map_err(|error| Error::General(error.to_string()))?;
        let rules = Rules::read(settings, authorities.certificates)?;
        Ok(Arc::new(Self { inner, rules }))
    }
}

impl ClientCertVerifier for OfClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verdict = self.inner.verify_client_cert(end_entity, intermediates, now);
        let good = ClientCertVerified::assertion;
        let verified = self.rules.unless_authority(verdict, end_entity, now, good)?;
        let presented = look(end_entity)?;
        self.rules.check(&all(end_entity, intermediates), &presented)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Judges those whom this process connects to.
#[derive(Debug)]
pub(super) struct OfServers {
    /// None to take anybody, if asked for, and as etcd does when members make their own certificates.
    trust: Option<(Arc<WebPkiServerVerifier>, Rules)>,
    provider: Arc<CryptoProvider>,
}

impl OfServers {
    pub(super) fn read(
        settings: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, TlsError> {
        let provider = provider.clone();
        let makes_its_own = settings.self_signed.is_some() && settings.trusted_ca_file.is_none();
        if settings.skip_verification || makes_its_own {
            return Ok(Arc::new(Self { trust: None, provider }));
        }
        let authorities = Authorities::read(settings.trusted_ca_file.as_ref())?;
        let builder =
            WebPkiServerVerifier::builder_with_provider(authorities.store, provider.clone());
        let inner = builder.build().map_err(|error| Error::General(error.to_string()))?;
        let rules = Rules::read(settings, authorities.certificates)?;
        Ok(Arc::new(Self { trust: Some((inner, rules)), provider }))
    }
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((inner, rules)) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let verdict =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let good = ServerCertVerified::assertion;
        let verified = rules.unless_authority(verdict, end_entity, now, good)?;
        // Said twice for most, and for the first time for an authority's own.
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let presented = look(end_entity)?;
        rules.check(&all(end_entity, intermediates), &presented)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::super::presented::observed;
    use super::*;

    fn certificate(name: &str) -> rcgen::Certificate {
        let mut parameters = CertificateParams::new([name.to_owned()]).expect("a host name");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.self_signed(&KeyPair::generate().expect("a key")).expect("signed")
    }

    #[tokio::test]
    async fn only_a_certificate_that_is_trusted_is_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let trusted = certificate("member");
        std::fs::write(file.path(), trusted.pem()).expect("written");
        let settings =
            TlsSettings { trusted_ca_file: Some(file.path().to_owned()), ..TlsSettings::default() };
        let provider = super::super::suites::provider(&[]);
        let clients = OfClients::read(&settings, &provider).expect("read");
        let servers = OfServers::read(&settings, &provider).expect("read");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let now = UnixTime::since_unix_epoch(now);
        let server = ServerName::try_from("member").expect("a host name");
        for (shown, is_trusted) in [(trusted.der(), true), (certificate("member").der(), false)] {
            let (result, read) =
                observed(async { clients.verify_client_cert(shown, &[], now).map(drop) }).await;
            assert_eq!((result.is_ok(), read.is_some()), (is_trusted, is_trusted), "{result:?}");
            let verify =
                async { servers.verify_server_cert(shown, &[], &server, &[], now).map(drop) };
            let (result, read) = observed(verify).await;
            assert_eq!((result.is_ok(), read.is_some()), (is_trusted, is_trusted), "{result:?}");
        }
    }
}
