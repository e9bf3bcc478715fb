//! TLS for clients and members: what the flags say, and the two sides of a handshake made of it.
//!
//! Certificates, keys, authorities and revocation lists are files that may be replaced while the
//! process runs; a handshake uses what lies there (`reload.rs`). Sessions are not resumed, so that
//! every connection's certificate is judged by today's rules. Sockets are not known here, and what
//! a user named by a certificate may do is not either.

mod address;
mod client;
mod material;
mod presented;
mod reload;
mod self_signed;
mod server;
mod suites;
mod verify;
mod words;

use std::io;
use std::path::{Path, PathBuf};

pub use client::TlsClient;
pub use presented::{ConnectionIdentity, Presented};
pub use self_signed::SelfSigned;
pub use server::{Greeted, Refused, TlsServer};
pub use suites::{Versions, check_suites};

/// What the flags say about one kind of connection, to clients or to members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate, and what is between it and an authority.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The certificate when this process is the client, if it is another one.
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// Authorities for the other side's certificates; the system's when there is none.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether the other side must have a certificate; it must as well when there are authorities.
    pub client_cert_auth: bool,
    /// Revoked certificates of the other side.
    pub crl_file: Option<PathBuf>,
    /// Common names permitted; any when there are none.
    pub allowed_cns: Vec<String>,
    /// Host names of which a certificate must have one; any when there are none.
    pub allowed_hostnames: Vec<String>,
    /// Whether a client's certificate need not name the address that it comes from.
    pub skip_address_check: bool,
    /// Whether any certificate of the other side is taken, as a client.
    pub skip_verification: bool,
    /// A certificate to make, when there is none.
    pub self_signed: Option<SelfSigned>,
    /// Cipher suites of TLS 1.2, by Go's names; all when there are none.
    pub cipher_suites: Vec<String>,
    /// Versions of the protocol.
    pub versions: Versions,
}

impl TlsSettings {
    /// Whether there is a certificate to serve with.
    pub fn has_certificate(&self) -> bool {
        self.cert_file.is_some() || self.key_file.is_some() || self.self_signed.is_some()
    }

    /// Whether nothing was said but what holds for both kinds of connection.
    pub fn is_empty(&self) -> bool {
        let common = Self {
            cipher_suites: self.cipher_suites.clone(),
            versions: self.versions,
            skip_address_check: self.skip_address_check,
            ..Self::default()
        };
        *self == common
    }

    /// Whether the other side must have a certificate, and one of any authority the system knows.
    pub fn trusts_the_public(&self) -> bool {
        self.client_cert_auth && self.trusted_ca_file.is_none()
    }

    /// Settings that exclude each other, in etcd's words.
    pub fn check(&self) -> Result<(), TlsError> {
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Err(TlsError::Pair {
                key: shown(&self.key_file),
                cert: shown(&self.cert_file),
            });
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            let (key, cert) = (shown(&self.client_key_file), shown(&self.client_cert_file));
            return Err(TlsError::ClientPair { key, cert });
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            return Err(TlsError::Exclusive {
                cn: self.allowed_cns.join(","),
                hostname: self.allowed_hostnames.join(","),
            });
        }
        Ok(())
    }

    /// Makes the certificate that is to be made, unless it is there, and uses it from now on.
    pub fn with_certificate(mut self) -> Result<Self, TlsError> {
        if let Some(self_signed) = &self.self_signed {
            let (cert, key) = self_signed.ensure()?;
            (self.cert_file, self.key_file) = (Some(cert), Some(key));
        }
        Ok(self)
    }

    /// The files that a handshake depends on.
    fn files(&self) -> Vec<PathBuf> {
        let files = [
            &self.cert_file,
            &self.key_file,
            &self.client_cert_file,
            &self.client_key_file,
            &self.trusted_ca_file,
            &self.crl_file,
        ];
        files.into_iter().flatten().cloned().collect()
    }
}

fn shown(path: &Option<PathBuf>) -> String {
    path.as_deref().map(Path::display).map(|path| path.to_string()).unwrap_or_default()
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of certificate and key was given.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    Pair {
        /// As given.
        key: String,
        /// As given.
        cert: String,
    },
    /// The same, of the certificate used as a client.
    #[error(
        "ClientKeyFile and ClientCertFile must both be present or both absent: \
         key: {key}, cert: {cert}]"
    )]
    ClientPair {
        /// As given.
        key: String,
        /// As given.
        cert: String,
    },
    /// Names are permitted in two ways at once.
    #[error(
        "AllowedCN and AllowedHostname are mutually exclusive (cn={cn:?}, hostname={hostname:?})"
    )]
    Exclusive {
        /// As given.
        cn: String,
        /// As given.
        hostname: String,
    },
    /// A file cannot be read or written.
    #[error("open {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are not a pair.
    #[error("tls: private key does not match public key (certificate {cert}, key {key})")]
    Mismatch {
        /// The certificate's file.
        cert: String,
        /// The key's.
        key: String,
    },
    /// There is no authority to judge certificates by.
    #[error("no trusted authorities: give a trusted CA file, the system has none")]
    NoAuthorities,
    /// The validity of certificates to be made is not one.
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    Validity,
    /// The TLS library refuses the settings.
    #[error("tls: {0}")]
    Library(#[from] rustls::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
}
