//! Connecting to a member by its peer URL.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use holdfast_raft::{Connect, Connection};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use crate::net::{Handshakes, Parked, Plain, Stream};
use crate::tls::TlsClient;

/// Connects to peer URLs.
pub struct PeerConnect {
    tls: Option<(Arc<TlsClient>, Handshakes)>,
}

/// A peer URL, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    is_secure: bool,
    /// What the certificate has to be for.
    host: String,
    place: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

impl PeerConnect {
    /// Connects with `tls` where a URL asks for it.
    pub fn new(tls: Option<(Arc<TlsClient>, Handshakes)>) -> Self {
        Self { tls }
    }
}

impl Connect for PeerConnect {
    fn connect(&self, url: String) -> BoxFuture<'static, io::Result<Connection>> {
        let tls = self.tls.clone();
        Box::pin(async move {
            let target = Target::parse(&url)?;
            let socket = match target.place {
                Place::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Plain::Tcp(stream)
                }
                Place::Unix(path) => Plain::Unix(UnixStream::connect(path).await?),
            };
            if !target.is_secure {
                return Ok(Box::new(socket) as Connection);
            }
            let (tls, handshakes) = tls.ok_or_else(|| {
                io::Error::other("it wants TLS, and this member has no --peer-trusted-ca-file")
            })?;
            let stream = greet(tls, &handshakes, socket, target.host).await?;
            Ok(Box::new(stream) as Connection)
        })
    }
}

/// Makes the handshake on another thread.
async fn greet(
    tls: Arc<TlsClient>,
    handshakes: &Handshakes,
    socket: Plain,
    host: String,
) -> io::Result<Stream> {
    let parked = socket.park()?;
    let (done, greeted) = oneshot::channel();
    let is_taken = handshakes.spawn(|hello| async move {
        // It is ours: only the time it takes can cost it its permit.
        hello.said();
        let mut done = done;
        let result = tokio::select! {
            result = make(tls, parked, host) => result,
            // Whoever asked has given up.
            () = done.closed() => return,
        };
        let _ = done.send(result);
    });
    if !is_taken {
        return Err(io::Error::other("too many handshakes are under way"));
    }
    let given_up = |_| io::Error::other("the handshake was given up");
    greeted.await.map_err(given_up)??.resume()
}

async fn make(tls: Arc<TlsClient>, parked: Parked, host: String) -> io::Result<Parked> {
    let Stream::Plain(socket) = parked.resume()? else {
        return Err(io::Error::other("the socket is plain"));
    };
    tls.connect(socket, &host).await?.park()
}

impl Target {
    fn parse(url: &str) -> io::Result<Self> {
        let wrong = || {
            let message = format!("{url} is not a peer URL of the form http://host:port");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let is_secure = matches!(scheme, "https" | "unixs");
        let address = rest.trim_end_matches('/');
        match scheme {
            "http" | "https" => {
                let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
                if host.is_empty() || port.parse::<u16>().is_err() {
                    return Err(wrong());
                }
                let host = host.trim_matches(['[', ']']).to_owned();
                Ok(Self { is_secure, host, place: Place::Tcp(address.to_owned()) })
            }
            "unix" | "unixs" if !address.is_empty() => {
                let host = address.split([':', '/']).next().filter(|host| !host.is_empty());
                let host = host.unwrap_or("localhost").to_owned();
                Ok(Self { is_secure, host, place: Place::Unix(address.into()) })
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_name_a_host_and_a_port_or_a_file() {
        for (url, is_secure, host, place) in [
            ("http://a.example:1", false, "a.example", Place::Tcp("a.example:1".to_owned())),
            ("https://[::1]:2/", true, "::1", Place::Tcp("[::1]:2".to_owned())),
            ("unix://localhost:m1", false, "localhost", Place::Unix("localhost:m1".into())),
            ("unixs:///run/p.sock", true, "localhost", Place::Unix("/run/p.sock".into())),
        ] {
            let target = Target::parse(url).expect("valid");
            assert_eq!(target, Target { is_secure, host: host.to_owned(), place });
        }
        for wrong in ["ftp://a:1", "http://a", "http://:1", "a:1", "https://a:b", "unix://"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
