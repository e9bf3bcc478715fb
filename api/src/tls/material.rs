//! Certificates, keys, authorities and revocation lists, read from their files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::TlsError;
use super::presented::significant;

/// A certificate's chain and its key.
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Pair {
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(cert)?;
        let bytes = read(key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| content(key, error))?;
        Ok(Self { chain, key })
    }
}

/// What the TLS library said about a pair, with the files' names where they matter.
pub(super) fn pair_error(error: rustls::Error, cert: &Path, key: &Path) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
            let (cert, key) = (cert.display().to_string(), key.display().to_string());
            TlsError::Mismatch { cert, key }
        }
        error => TlsError::Content {
            path: format!("{}, {}", cert.display(), key.display()),
            reason: error.to_string(),
        },
    }
}

/// Authorities.
pub(super) struct Authorities {
    pub(super) store: Arc<RootCertStore>,
    /// The certificates themselves.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Those of the file, else the system's.
    pub(super) fn read(path: Option<&PathBuf>) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        let certificates = match path {
            Some(path) => {
                let found = certificates(path)?;
                for certificate in &found {
                    store.add(certificate.clone()).map_err(|error| content(path, error))?;
                }
                found
            }
            None => {
                // The system's store holds odd ones that nobody needs.
                let system = rustls_native_certs::load_native_certs().certs;
                store.add_parsable_certificates(system);
                Vec::new()
            }
        };
        if store.is_empty() {
            Err(TlsError::NoAuthorities)
        } else {
            Ok(Self { store: Arc::new(store), certificates })
        }
    }
}

/// The serial numbers of revoked certificates, without leading zeros. As with etcd, the number alone
/// counts: a list is not asked whose it is.
pub(super) fn revoked(path: &Path) -> Result<BTreeSet<Vec<u8>>, TlsError> {
    let bytes = read(path)?;
    let lists: Vec<CertificateRevocationListDer<'_>> = match bytes.starts_with(b"0") {
        // DER begins with a sequence, which is the digit zero.
        true => vec![bytes.as_slice().into()],
        false => CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| content(path, error))?,
    };
    if lists.is_empty() {
        return Err(content(path, "no revocation list in it"));
    }
    let mut serials = BTreeSet::new();
    for list in &lists {
        let (_, list) =
            CertificateRevocationList::from_der(list).map_err(|error| content(path, error))?;
        serials.extend(
            list.iter_revoked_certificates().map(|one| significant(one.raw_serial()).to_vec()),
        );
    }
    Ok(serials)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| content(path, error))?;
    if found.is_empty() {
        return Err(content(path, "tls: failed to find any PEM data in certificate input"));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path)
        .map_err(|source| TlsError::File { path: path.display().to_string(), source })
}

fn content(path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.display().to_string(), reason: reason.to_string() }
}
