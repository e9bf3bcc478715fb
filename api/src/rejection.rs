//! Connections that are closed before they are served, and the log line that says whose they were.

use std::net::SocketAddr;

use crate::net::Plain;
use crate::tls::{Presented, Refused};

/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE: u8 = 0x16;
/// How every connection between members begins.
const PREFACE: &[u8; 14] = b"PRI * HTTP/2.0";

/// Which kind of listener it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// For clients.
    Client,
    /// For members.
    Peer,
}

/// Logs a refusal, in etcd's words. A connection that came and went without a word is none.
pub fn log(endpoint: Endpoint, address: Option<SocketAddr>, refused: &Refused) {
    let remote_addr = address.map_or_else(|| "@".to_owned(), |address| address.to_string());
    let Refused { error, server_name, presented } = refused;
    if refused.said_nothing() {
        return tracing::debug!(remote_addr, "a connection ended before its handshake");
    }
    let Presented { common_name, dns_names, ip_addresses, .. } =
        presented.as_ref().unwrap_or(&NOBODY);
    match endpoint {
        Endpoint::Client => tracing::warn!(
            remote_addr,
            server_name,
            common_name,
            ?ip_addresses,
            ?dns_names,
            error,
            "rejected connection on client endpoint"
        ),
        Endpoint::Peer => tracing::warn!(
            remote_addr,
            server_name,
            common_name,
            ?ip_addresses,
            ?dns_names,
            error,
            "rejected connection on peer endpoint"
        ),
    }
}

static NOBODY: Presented = Presented {
    common_name: String::new(),
    dns_names: Vec::new(),
    ip_addresses: Vec::new(),
    serial: Vec::new(),
};

/// Whether a connection to a plain-text listener begins with a TLS handshake, which is logged.
pub async fn speaks_tls(endpoint: Endpoint, socket: &Plain) -> bool {
    let mut first = [0];
    let is_tls = matches!(socket.peek(&mut first).await, Ok(Some(1))) && first[0] == HANDSHAKE;
    if is_tls {
        log(endpoint, socket.peer_address(), &plain_text());
    }
    is_tls
}

/// Whether a connection to a plain-text listener for members begins as one of theirs; what does not
/// is logged.
pub async fn speaks_http2(socket: &Plain) -> bool {
    let mut first = [0; PREFACE.len()];
    let length = match socket.peek(&mut first).await {
        Ok(Some(length)) => length,
        // Nothing is known of it before it is read.
        Ok(None) => return true,
        Err(_) => return false,
    };
    let first = &first[..length];
    if length > 0 && PREFACE.starts_with(first) {
        return true;
    }
    let refused = match first.first() {
        Some(&HANDSHAKE) => plain_text(),
        Some(_) => Refused { error: "not a member's connection".to_owned(), ..Refused::default() },
        None => Refused { error: "EOF".to_owned(), ..Refused::default() },
    };
    log(Endpoint::Peer, socket.peer_address(), &refused);
    false
}

fn plain_text() -> Refused {
    let error = "tls: a TLS handshake came to a plain-text listener".to_owned();
    Refused { error, ..Refused::default() }
}
