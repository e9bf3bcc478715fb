//! Where to connect to: a URL, taken apart.

use std::io;
use std::path::PathBuf;

use tokio::net::{TcpStream, UnixStream};

use super::Plain;

/// A URL of a member, of this cluster or of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether it is to be TLS.
    pub is_secure: bool,
    /// What the certificate has to be for.
    pub host: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    /// Opens a plain connection; the caller bounds the time.
    pub async fn connect(&self) -> io::Result<Plain> {
        match &self.place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Plain::Tcp(stream))
            }
            Place::Unix(path) => Ok(Plain::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// What requests name as the place that they go to.
    pub fn authority(&self) -> &str {
        match &self.place {
            Place::Tcp(address) => address,
            Place::Unix(_) => "localhost",
        }
    }

    /// Reads `http://host:port`, `https://host:port`, `unix://path` or `unixs://path`.
    pub fn parse(url: &str) -> io::Result<Self> {
        let wrong = || {
            let message = format!("{url} is not a URL of the form http://host:port");
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
    fn urls_name_a_host_and_a_port_or_a_file() {
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
