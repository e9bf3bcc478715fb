//! Sockets: where to listen, what was accepted, and the byte streams made of it.
//!
//! TCP and Unix sockets, plain or under TLS, look the same from here on. What travels over them is
//! not known here; certificates are `tls.rs`.

mod handshakes;
mod listener;
mod permits;
mod stream;
mod target;
mod url;

pub use handshakes::Handshakes;
pub use listener::{AsyncListener, Listener};
pub use permits::{Hello, PERMITS_MAX, Permit, Permits};
pub use stream::{Movable, Parked, Plain, Stream};
pub use target::Target;
pub use url::{ListenUrl, Place};
