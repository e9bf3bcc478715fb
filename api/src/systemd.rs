//! Tells systemd that the service is up (`Type=notify` units, as etcd's packages have them).
//!
//! Does nothing when no supervisor asked for it.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `READY=1` to the supervisor named by `NOTIFY_SOCKET`, if there is one.
pub fn ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = notify(path.as_encoded_bytes()) {
        tracing::warn!(%error, "failed to notify systemd for readiness");
    }
}

/// A leading `@` stands for an abstract socket name.
fn notify(path: &[u8]) -> std::io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::str::from_utf8(path).map_err(invalid)?)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

fn invalid(error: std::str::Utf8Error) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_supervisor_hears_ready_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        notify(path.as_os_str().as_encoded_bytes()).expect("sent");
        assert_eq!(received(&by_path), b"READY=1");

        let name = format!("holdfast-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let abstract_ = UnixDatagram::bind_addr(&address).expect("bound");
        notify(format!("@{name}").as_bytes()).expect("sent");
        assert_eq!(received(&abstract_), b"READY=1");
    }

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 32];
        let length = socket.recv(&mut buffer).expect("a datagram");
        buffer[..length].to_vec()
    }
}
