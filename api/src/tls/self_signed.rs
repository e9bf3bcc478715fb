//! Certificates that a member makes for itself (`--auto-tls`, `--peer-auto-tls`): encryption, and no
//! more.
//!
//! They lie under `fixtures` in the data directory, as etcd's do, and are made once. One that has
//! expired is made again.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Dates end with the year 9999.
const YEARS_MAX: u32 = 1000;

/// A certificate to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// Where it lies.
    pub folder: PathBuf,
    /// Addresses and host names that it is for.
    pub hosts: Vec<String>,
    /// `--self-signed-cert-validity`.
    pub years: u32,
}

impl SelfSigned {
    /// The files of certificate and key, which are made unless they are there.
    pub(super) fn ensure(&self) -> Result<(PathBuf, PathBuf), TlsError> {
        let files = (self.folder.join("cert.pem"), self.folder.join("key.pem"));
        if self.years == 0 {
            return Err(TlsError::Validity);
        }
        if files.1.exists() && is_in_force(&files.0) {
            return Ok(files);
        }
        let key = KeyPair::generate()?;
        let certificate = self.parameters()?.self_signed(&key)?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| failed(&self.folder, source))?;
        // The certificate goes first and comes last: while one is there, the key is its own.
        remove(&files.0)?;
        replace(&files.1, &key.serialize_pem())?;
        replace(&files.0, &certificate.pem())?;
        tracing::info!(cert = %files.0.display(), hosts = ?self.hosts, "automatically generated certificates");
        Ok(files)
    }

    fn parameters(&self) -> Result<CertificateParams, TlsError> {
        let mut parameters = CertificateParams::new(self.hosts.clone())?;
        parameters.distinguished_name.remove(DnType::CommonName);
        parameters.distinguished_name.push(DnType::OrganizationName, "etcd");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        parameters.not_before = now.into();
        parameters.not_after = (now + YEAR * self.years.min(YEARS_MAX)).into();
        Ok(parameters)
    }
}

/// Whether there is a certificate that has not expired; what cannot be read is not judged here.
fn is_in_force(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    let Ok(certificate) = CertificateDer::from_pem_slice(&bytes) else { return true };
    match X509Certificate::from_der(&certificate) {
        Ok((_, parsed)) => parsed.validity().is_valid(),
        Err(_) => true,
    }
}

fn remove(path: &Path) -> Result<(), TlsError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(path, source)),
        _ => sync_folder(path),
    }
}

/// Writes a file whole, or not at all.
fn replace(path: &Path, text: &str) -> Result<(), TlsError> {
    let temporary = path.with_extension("tmp");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| failed(&temporary, source))?;
    std::fs::rename(&temporary, path).map_err(|source| failed(path, source))?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<(), TlsError> {
    let folder = path.parent().unwrap_or(path);
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| failed(folder, source))
}

fn failed(path: &Path, source: io::Error) -> TlsError {
    TlsError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tls::Presented;

    #[test]
    fn a_certificate_is_made_once_and_names_its_hosts() {
        let folder = tempfile::tempdir().expect("a folder");
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let wanted = SelfSigned { folder: folder.path().join("fixtures/client"), hosts, years: 1 };
        let (cert, key) = wanted.ensure().expect("made");
        let mode = std::fs::metadata(&key).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = std::fs::read(&cert).expect("read");
        wanted.ensure().expect("there");
        assert_eq!(std::fs::read(&cert).expect("read"), first);
        let der = CertificateDer::from_pem_slice(&first).expect("a certificate");
        let presented = Presented::read(&der).expect("readable");
        assert_eq!(presented.dns_names, ["localhost"]);
        assert_eq!(presented.ip_addresses.len(), 1);
        std::fs::remove_file(&key).expect("removed");
        wanted.ensure().expect("made again");
        assert_ne!(std::fs::read(&cert).expect("read"), first);
        let never = SelfSigned { years: 0, ..wanted };
        assert!(matches!(never.ensure(), Err(TlsError::Validity)));
    }

    #[test]
    fn a_stop_in_the_middle_leaves_nothing_that_is_taken_for_a_pair() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().to_owned();
        let wanted = SelfSigned { folder, hosts: vec!["localhost".to_owned()], years: 1 };
        let (cert, key) = wanted.ensure().expect("made");
        for interrupted in ["cert.tmp", "key.tmp"] {
            std::fs::remove_file(&key).expect("removed");
            let in_the_way = wanted.folder.join(interrupted);
            std::fs::create_dir(&in_the_way).expect("made");
            wanted.ensure().expect_err("it stops here");
            assert!(!cert.exists());
            std::fs::remove_dir(&in_the_way).expect("removed");
            wanted.ensure().expect("made again");
            let read = |path: &Path| std::fs::read_to_string(path).expect("read");
            let pair = KeyPair::from_pem(&read(&key)).expect("a whole key");
            let der = CertificateDer::from_pem_slice(read(&cert).as_bytes()).expect("whole");
            let (_, parsed) = X509Certificate::from_der(&der).expect("a certificate");
            assert_eq!(parsed.public_key().subject_public_key.data, pair.public_key_raw());
        }
    }
}
