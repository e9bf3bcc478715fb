//! How members reach each other: gRPC, three connections to each peer, a handshake on every call.
//!
//! openraft opens a client for every vote round, so the connections live here and clients are
//! cheap. Every call has a deadline, because a lost segment may never be sent again.

mod channel;
mod contact;
mod handshake;
mod meter;
mod network;
mod server;
mod tcp;
mod transfer;

pub(crate) use channel::{Lane, MESSAGE_BYTES_MAX, PeerIo, Peers, SILENCE};
pub(crate) use handshake::{Gate, Standing, Standings};
pub(crate) use network::Network;
pub(crate) use server::{PeerServer, ServerParts};
pub use tcp::{TcpConnect, TcpListen};
