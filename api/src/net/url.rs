//! A URL to listen on or to connect to, taken apart as etcd does.
//!
//! `http` and `https` name an address; `unix` and `unixs` a file, which is the host and the path put
//! together: `unix:///run/etcd.sock`, or `unix://localhost:m1` for a file of that name in the current
//! folder.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr as _;

use http::Uri;

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Where to listen, and whether under TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// As given.
    pub url: String,
    /// `https` or `unixs`.
    pub is_secure: bool,
    /// The socket.
    pub place: Place,
}

impl ListenUrl {
    /// Reads a URL that has been checked. A host must be an IP address or `localhost`, as in etcd.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url} has no scheme"))?;
        let place = match scheme {
            "unix" | "unixs" => Place::Unix(rest.into()),
            _ => Place::Tcp(address(url)?),
        };
        let is_secure = matches!(scheme, "https" | "unixs");
        Ok(Self { url: url.to_owned(), is_secure, place })
    }
}

impl ListenUrl {
    /// The URL without its scheme.
    pub fn address(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, rest)| rest)
    }
}

impl From<SocketAddr> for ListenUrl {
    fn from(address: SocketAddr) -> Self {
        let url = format!("http://{address}");
        Self { url, is_secure: false, place: Place::Tcp(address) }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.url)
    }
}

fn address(url: &str) -> Result<SocketAddr, String> {
    let uri = Uri::from_str(url).map_err(|error| format!("parse {url:?}: {error}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().ok_or_else(|| format!("{url} has no port"))?;
    let address = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        _ => host.parse().map_err(|_| format!("expected IP in URL for binding ({url})"))?,
    };
    Ok(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_says_what_kind_of_socket_it_is() {
        for (url, is_secure, place) in [
            ("http://localhost:7", false, Place::Tcp("127.0.0.1:7".parse().unwrap())),
            ("https://[::1]:8", true, Place::Tcp("[::1]:8".parse().unwrap())),
            ("unix:///run/x.sock", false, Place::Unix("/run/x.sock".into())),
            ("unixs://localhost:m1", true, Place::Unix("localhost:m1".into())),
        ] {
            let read = ListenUrl::parse(url).expect("valid");
            assert_eq!(read, ListenUrl { url: url.to_owned(), is_secure, place });
        }
    }
}
