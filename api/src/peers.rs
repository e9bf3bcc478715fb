//! The way to other members and from them: TCP and Unix sockets, plain or under TLS.
//!
//! Handshakes are made on a thread of their own; the Raft runtime gets connections that are ready.
//! A connection that is not a member's is logged and closed, and holds up no other. Who may say what
//! on a connection is checked by `holdfast-raft`, call by call.

mod connect;
mod listen;

pub use connect::PeerConnect;
pub use listen::PeerListen;
