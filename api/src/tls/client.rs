//! The side that connects: members to each other, and to those whom they found a cluster through.

use std::io;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::material::{Pair, pair_error};
use super::presented::observed;
use super::reload::Reloading;
use super::verify::OfServers;
use super::{TlsError, TlsSettings, suites, words};
use crate::net::{Movable, Plain, Stream};

/// Opens TLS connections by what the settings' files say at the time.
pub struct TlsClient {
    config: Reloading<ClientConfig>,
}

impl TlsClient {
    /// Reads the files.
    pub fn open(settings: &TlsSettings) -> Result<Self, TlsError> {
        let source = settings.clone();
        let config = Reloading::start(settings.files(), move || client_config(&source))?;
        Ok(Self { config })
    }

    /// Makes the handshake with `host`; the caller bounds the time.
    pub async fn connect(&self, socket: Plain, host: &str) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(self.config.current());
        let (result, shown) = observed(connector.connect(name, Movable::new(socket))).await;
        match result {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
            Err(error) => Err(io::Error::new(error.kind(), words::reason(&error, shown.as_ref()))),
        }
    }
}

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let provider = suites::provider(&settings.cipher_suites);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&settings.versions.supported())?
        .dangerous()
        .with_custom_certificate_verifier(OfServers::read(settings, &provider)?);
    let cert = settings.client_cert_file.as_ref().or(settings.cert_file.as_ref());
    let key = settings.client_key_file.as_ref().or(settings.key_file.as_ref());
    let mut config = match cert.zip(key) {
        Some((cert, key)) => {
            let pair = Pair::read(cert, key)?;
            let config = builder.with_client_auth_cert(pair.chain, pair.key);
            config.map_err(|error| pair_error(error, cert, key))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
