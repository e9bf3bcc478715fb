//! The side that accepts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Acceptor, NoServerSessionStorage};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::address::Names;
use super::material::{Pair, pair_error};
use super::presented::observed;
use super::reload::Reloading;
use super::verify::OfClients;
use super::{ConnectionIdentity, Presented, TlsError, TlsSettings, suites, words};
use crate::net::{Hello, Movable, Plain, Stream};

/// How long it may take to begin one: to say hello.
const SILENCE: Duration = Duration::from_secs(2);
/// How long the rest may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts TLS connections by what the settings' files say at the time.
pub struct TlsServer {
    config: Reloading<ServerConfig>,
    /// Where a certificate must name the address it comes from.
    names: Option<Names>,
    /// Whether a certificate says who a user is.
    names_users: bool,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Greeted {
    /// The connection.
    pub stream: Stream,
    /// Who is there.
    pub identity: Option<ConnectionIdentity>,
}

/// A connection that was not let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub error: String,
    /// The name it asked for.
    pub server_name: String,
    /// The certificate it showed.
    pub presented: Option<Presented>,
}

/// Why one that did not say hello was not let in.
const SILENT: &str = "tls: no hello within the limit";

impl Refused {
    /// Only went away or waited, as probes of a port do.
    pub fn said_nothing(&self) -> bool {
        let is_silence = self.error == "EOF" || self.error == SILENT;
        is_silence && self.server_name.is_empty() && self.presented.is_none()
    }
}

impl TlsServer {
    /// Reads the files.
    pub fn open(settings: &TlsSettings) -> Result<Self, TlsError> {
        let names = (!settings.skip_address_check).then(Names::default);
        let names_users = settings.client_cert_auth;
        let source = settings.clone();
        let config = Reloading::start(settings.files(), move || server_config(&source))?;
        Ok(Self { config, names, names_users })
    }

    /// Makes the handshake, within limits of time.
    pub async fn accept(&self, socket: Plain, said: Hello) -> Result<Greeted, Refused> {
        let address = socket.peer_address().map(|address| address.ip());
        let hello = LazyConfigAcceptor::new(Acceptor::default(), Movable::new(socket));
        let hello = tokio::time::timeout(SILENCE, hello).await.map_err(|_| refused(SILENT))?;
        let hello = hello.map_err(|error| refused(words::reason(&error, None)))?;
        said.said();
        match tokio::time::timeout(TIMEOUT, self.greet(hello, address)).await {
            Ok(result) => result,
            Err(_) => Err(refused("tls: the handshake took too long")),
        }
    }

    async fn greet(
        &self,
        hello: StartHandshake<Movable>,
        address: Option<IpAddr>,
    ) -> Result<Greeted, Refused> {
        let server_name = hello.client_hello().server_name().unwrap_or_default().to_owned();
        let (result, shown) = observed(hello.into_stream(self.config.current())).await;
        let stream = match result {
            Ok(stream) => stream,
            Err(error) => {
                let error = words::reason(&error, shown.as_ref());
                return Err(Refused { error, server_name, presented: shown });
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let presented = certificate.and_then(|certificate| Presented::read(certificate));
        if let Err(error) = self.check_address(presented.as_ref(), address).await {
            return Err(Refused { error, server_name, presented });
        }
        let identity = presented
            .filter(|_| self.names_users)
            .map(|presented| ConnectionIdentity { common_name: presented.common_name.into() });
        Ok(Greeted { stream: Stream::Tls(Box::new(stream.into())), identity })
    }

    async fn check_address(
        &self,
        presented: Option<&Presented>,
        address: Option<IpAddr>,
    ) -> Result<(), String> {
        match (presented, address, &self.names) {
            (Some(presented), Some(address), Some(names)) => names.check(presented, address).await,
            _ => Ok(()),
        }
    }
}

fn refused(error: impl Into<String>) -> Refused {
    Refused { error: error.into(), ..Refused::default() }
}

fn server_config(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) else {
        return Err(TlsError::Pair { key: String::new(), cert: String::new() });
    };
    let pair = Pair::read(cert, key)?;
    let provider = suites::provider(&settings.cipher_suites);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&settings.versions.supported())?;
    let asks = settings.client_cert_auth || settings.trusted_ca_file.is_some();
    let builder = match asks {
        true => builder.with_client_cert_verifier(OfClients::read(settings, &provider)?),
        false => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(pair.chain, pair.key);
    let mut config = config.map_err(|error| pair_error(error, cert, key))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would not be judged again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
