//! Peers over TCP: the connector and the listener of production.

use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use futures_util::future::{BoxFuture, poll_fn};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{Connect, Connection, Listen};

/// Connects to `http://host:port`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnect;

impl Connect for TcpConnect {
    fn connect(&self, url: String) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move {
            let address = address_of(&url)?;
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Connection)
        })
    }
}

fn address_of(url: &str) -> io::Result<String> {
    let wrong = || {
        let message = format!("{url} is not a peer URL of the form http://host:port");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let address = rest.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(address.to_owned())
}

/// Listens on one or more addresses.
#[derive(Debug)]
pub struct TcpListen {
    listeners: Vec<TcpListener>,
}

impl TcpListen {
    /// Binds all addresses, or none.
    pub async fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("listening on {address}: {error}"))
            })?;
            listeners.push(listener);
        }
        Ok(Self { listeners })
    }

    /// Takes over listeners that are bound already.
    pub fn of(listeners: Vec<TcpListener>) -> Self {
        Self { listeners }
    }
}

impl Listen for TcpListen {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(poll_fn(|context| {
            for listener in &self.listeners {
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted.and_then(|(stream, _)| {
                        stream.set_nodelay(true)?;
                        Ok(Box::new(stream) as Connection)
                    }));
                }
            }
            Poll::Pending
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_name_a_host_and_a_port() {
        assert_eq!(address_of("http://a.example:2380").expect("valid"), "a.example:2380");
        assert_eq!(address_of("http://[::1]:2380/").expect("valid"), "[::1]:2380");
        for wrong in ["https://a:1", "http://a", "http://:1", "a:1", "http://a:b"] {
            assert!(address_of(wrong).is_err(), "{wrong}");
        }
    }
}
