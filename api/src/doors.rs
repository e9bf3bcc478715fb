//! Every socket a member listens on, bound, with the TLS that its URL asks for.
//!
//! All files are read and all sockets bound before anything is opened, so that a mistake in the flags
//! leaves the data directory alone; only certificates to be made are made here.

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_raft::{OpenError, Seams};

use crate::acceptor::{Door, Purpose};
use crate::net::{Handshakes, ListenUrl, Listener, PERMITS_MAX, Permits};
use crate::peers::{PeerConnect, PeerListen};
use crate::pool::give_way;
use crate::server::{ServerConfig, StartError, cores};
use crate::tls::{TlsClient, TlsError, TlsServer, TlsSettings};

/// The folder in which etcd keeps a member.
const ETCD: &str = "member";

/// The doors for clients and for health checks.
pub(crate) struct Doors {
    pub(crate) clients: Vec<Door>,
    pub(crate) health: Vec<Door>,
}

impl Doors {
    /// Binds the client URLs, those for HTTP alone and those for health checks.
    pub(crate) fn open(config: &ServerConfig) -> Result<Self, StartError> {
        let urls = config.listen_client.iter().chain(&config.listen_http);
        let mut urls = urls.chain(&config.listen_metrics);
        let tls = match urls.any(|url| url.is_secure) {
            true => {
                let settings = settings(config, &config.client_tls)?;
                let tls = Arc::new(TlsServer::open(&settings)?);
                let permits = Permits::new("client", PERMITS_MAX);
                Some((tls, Handshakes::start("greet", cores(), permits, give_way)?))
            }
            false => None,
        };
        let open = |urls: &[ListenUrl], purpose| -> Result<Vec<Door>, StartError> {
            let door = |listener: Listener| {
                let tls = tls.clone().filter(|_| listener.url.is_secure);
                Door { listener, purpose, tls }
            };
            Ok(bind_all(urls, config.reuse_port)?.into_iter().map(door).collect())
        };
        let purpose = match config.listen_http.is_empty() {
            true => Purpose::Clients,
            false => Purpose::Grpc,
        };
        let mut clients = open(&config.listen_client, purpose)?;
        clients.extend(open(&config.listen_http, Purpose::Http)?);
        Ok(Self { clients, health: open(&config.listen_metrics, Purpose::Health)? })
    }

    /// Where clients connect, as bound.
    pub(crate) fn client_addresses(&self) -> Vec<SocketAddr> {
        let serves_calls = |door: &&Door| door.purpose != Purpose::Http;
        self.clients
            .iter()
            .filter(serves_calls)
            .filter_map(|door| door.listener.address())
            .collect()
    }
}

/// Binds the peer URLs and gives the node the way to other members, unless the caller has given
/// another world.
pub(crate) fn open_peers(config: &ServerConfig, seams: &mut Seams) -> Result<(), StartError> {
    if seams.listener.is_some() || config.listen_peer.is_empty() {
        return Ok(());
    }
    let listens_secure = config.listen_peer.iter().any(|url| url.is_secure);
    let is_secure = |url: &String| url.starts_with("https://") || url.starts_with("unixs://");
    let mut known = config.node.initial_cluster.iter().flat_map(|(_, urls)| urls);
    let needs_tls = listens_secure || !config.peer_tls.is_empty() || known.any(is_secure);
    // Whom a discovery will name is not known yet.
    if !needs_tls && config.discovery.is_none() {
        seams.connector = Arc::new(PeerConnect::new(None));
        let bound = bind_all(&config.listen_peer, config.reuse_port)?;
        seams.listener = Some(Box::new(PeerListen::new(bound, None)));
        return Ok(());
    }
    let settings = settings(config, &config.peer_tls)?;
    let accepting = match listens_secure {
        true => {
            let permits = Permits::new("peer", PERMITS_MAX);
            let handshakes = Handshakes::start("greet-peer", 1, permits, give_way)?;
            Some((Arc::new(TlsServer::open(&settings)?), handshakes))
        }
        false => None,
    };
    // Apart from those who come, whoever they are: an election waits for these.
    let handshakes = Handshakes::start("meet-peer", 1, Permits::new("meet", PERMITS_MAX), || {})?;
    let connecting = match TlsClient::open(&settings) {
        // A system without authorities is none of a plain cluster's business.
        Err(TlsError::NoAuthorities) if !needs_tls => None,
        opened => Some((Arc::new(opened?), handshakes)),
    };
    seams.connector = Arc::new(PeerConnect::new(connecting));
    let bound = bind_all(&config.listen_peer, config.reuse_port)?;
    seams.listener = Some(Box::new(PeerListen::new(bound, accepting)));
    Ok(())
}

/// The settings, with a certificate made if one is to be.
fn settings(config: &ServerConfig, settings: &TlsSettings) -> Result<TlsSettings, StartError> {
    if settings.self_signed.is_some() && config.node.data_directory.join(ETCD).exists() {
        // Not a file is added to a directory of etcd's.
        let directory = config.node.data_directory.display().to_string();
        return Err(OpenError::WrittenByEtcd(directory).into());
    }
    Ok(settings.clone().with_certificate()?)
}

fn bind_all(urls: &[ListenUrl], reuse_port: bool) -> Result<Vec<Listener>, StartError> {
    let bound = urls.iter().map(|url| {
        Listener::bind(url, reuse_port)
            .map_err(|source| StartError::Listen { url: url.clone(), source })
    });
    bound.collect()
}

#[cfg(test)]
mod tests {
    use holdfast_raft::NodeConfig;

    use super::*;
    use crate::discovery::{RecordSettings, Source};

    /// Why a plain member with these settings does not reach a secure one.
    async fn reason(discovery: Option<Source>) -> String {
        let url = ListenUrl::parse("http://127.0.0.1:0").expect("a URL");
        let mut config = ServerConfig::new(NodeConfig::new("a", "/nowhere"), Vec::new());
        (config.listen_peer, config.discovery) = (vec![url], discovery);
        let mut seams = Seams::real();
        open_peers(&config, &mut seams).expect("opened");
        let peer = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = peer.local_addr().expect("bound").port();
        std::thread::spawn(move || drop(peer.accept()));
        let connected = seams.connector.connect(format!("https://127.0.0.1:{port}")).await;
        connected.err().expect("it says nothing").to_string()
    }

    #[tokio::test]
    async fn members_that_discovery_names_may_be_secure() {
        let wants = "it wants TLS";
        assert!(reason(None).await.starts_with(wants));
        let settings = RecordSettings {
            domain: "d".to_owned(),
            service_name: String::new(),
            trusts_the_system: true,
        };
        let reason = reason(Some(Source::Records(settings))).await;
        assert!(!reason.starts_with(wants), "{reason}");
    }
}
