//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{ListenUrl, Place, Plain};

/// Connections that may wait to be accepted before the next ones are refused by the system.
const BACKLOG: i32 = 1024;
/// When TCP starts to probe a silent client.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A bound socket, not yet on a runtime.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub url: ListenUrl,
    socket: Bound,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    Unix(StdUnixListener, SocketFile),
}

impl Listener {
    /// Binds; a restarted server may take its old port or file at once.
    pub fn bind(url: &ListenUrl) -> io::Result<Self> {
        let socket = match &url.place {
            Place::Tcp(address) => Bound::Tcp(bind_tcp(*address)?),
            Place::Unix(path) => {
                remove_old(path)?;
                let socket = StdUnixListener::bind(path)?;
                socket.set_nonblocking(true)?;
                Bound::Unix(socket, SocketFile(path.clone()))
            }
        };
        Ok(Self { url: url.clone(), socket })
    }

    /// The address it is bound to, if it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(socket) => socket.local_addr().ok(),
            Bound::Unix(..) => None,
        }
    }

    /// Puts it on the calling runtime.
    pub fn resume(self) -> io::Result<AsyncListener> {
        let socket = match self.socket {
            Bound::Tcp(socket) => Accepting::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket, file) => {
                Accepting::Unix { listener: UnixListener::from_std(socket)?, _file: file }
            }
        };
        Ok(AsyncListener { url: self.url, socket })
    }
}

/// A bound socket on a runtime.
#[derive(Debug)]
pub struct AsyncListener {
    /// Where it listens.
    pub url: ListenUrl,
    socket: Accepting,
}

#[derive(Debug)]
enum Accepting {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

impl AsyncListener {
    /// The next connection; cancelling loses none.
    pub async fn accept(&self) -> io::Result<Plain> {
        match &self.socket {
            Accepting::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Ok(Plain::Tcp(stream))
            }
            Accepting::Unix { listener, .. } => Ok(Plain::Unix(listener.accept().await?.0)),
        }
    }
}

/// The file of a Unix socket, which goes with its listener.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever binds it next removes it as well.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A killed process leaves its socket behind. Only a socket is removed.
fn remove_old(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each address of a host is listened on by itself.
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_left_behind_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let url = ListenUrl::parse(&format!("unix://{}", path.display())).expect("valid");
        drop(StdUnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "std leaves it");
        let listener = Listener::bind(&url).expect("bound again");
        drop(listener);
        assert!(!path.exists(), "removed with its listener");
        std::fs::write(&path, b"precious").expect("written");
        assert!(Listener::bind(&url).is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"precious");
    }
}
