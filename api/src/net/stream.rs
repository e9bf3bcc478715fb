//! A connection's bytes: TCP or a Unix socket, plain or under TLS.
//!
//! An enum, so that a read of plain bytes costs no more than a branch. A stream belongs to the
//! runtime it was made on; to move on, it is *parked* there and *resumed* elsewhere, which a TLS
//! session survives.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A socket on a runtime.
#[derive(Debug)]
pub enum Plain {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A socket on no runtime.
#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpStream),
    Unix(StdUnixStream),
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Not encrypted.
    Plain(Plain),
    /// Encrypted; boxed, because a session is large.
    Tls(Box<TlsStream<Movable>>),
}

/// The socket under a TLS session, which can change runtimes.
#[derive(Debug)]
pub struct Movable(Option<Plain>);

/// A connection on no runtime.
#[derive(Debug)]
pub struct Parked {
    socket: Socket,
    session: Option<Box<TlsStream<Movable>>>,
}

impl Plain {
    /// Takes the socket off its runtime.
    pub fn park(self) -> io::Result<Parked> {
        Ok(Parked { socket: self.into_socket()?, session: None })
    }

    fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::Tcp(stream.into_std()?),
            Self::Unix(stream) => Socket::Unix(stream.into_std()?),
        })
    }

    /// The other side's address; none for a Unix socket.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Waits for the first bytes and leaves them where they are; 0 at the end. A Unix socket is not
    /// waited for: none.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Tcp(stream) => stream.peek(bytes).await.map(Some),
            Self::Unix(_) => Ok(None),
        }
    }
}

impl Movable {
    /// A socket for a session.
    pub fn new(socket: Plain) -> Self {
        Self(Some(socket))
    }

    fn inner(&mut self) -> Pin<&mut Plain> {
        Pin::new(self.0.as_mut().expect("nobody reads or writes while it is parked"))
    }
}

impl Stream {
    /// Takes the connection off its runtime.
    pub fn park(self) -> io::Result<Parked> {
        match self {
            Self::Plain(plain) => plain.park(),
            Self::Tls(mut session) => {
                let plain = session.get_mut().0.0.take().expect("a running session has a socket");
                Ok(Parked { socket: plain.into_socket()?, session: Some(session) })
            }
        }
    }
}

impl Parked {
    /// Puts the connection on the calling runtime.
    pub fn resume(self) -> io::Result<Stream> {
        let plain = match self.socket {
            Socket::Tcp(stream) => Plain::Tcp(TcpStream::from_std(stream)?),
            Socket::Unix(stream) => Plain::Unix(UnixStream::from_std(stream)?),
        };
        Ok(match self.session {
            None => Stream::Plain(plain),
            Some(mut session) => {
                session.get_mut().0.0 = Some(plain);
                Stream::Tls(session)
            }
        })
    }
}

/// Passes every call of a stream to the one inside.
macro_rules! pass_on {
    ($type:ty, $self:ident => $($variant:pat => $inner:expr),+) => {
        impl AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let $self = &mut *self;
                match $self { $($variant => $inner.poll_read(context, buffer)),+ }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let $self = &mut *self;
                match $self { $($variant => $inner.poll_write(context, bytes)),+ }
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let $self = &mut *self;
                match $self { $($variant => $inner.poll_write_vectored(context, slices)),+ }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                let $self = &mut *self;
                match $self { $($variant => $inner.poll_flush(context)),+ }
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                let $self = &mut *self;
                match $self { $($variant => $inner.poll_shutdown(context)),+ }
            }
        }
    };
}

pass_on!(Plain, this => Plain::Tcp(tcp) => Pin::new(tcp), Plain::Unix(unix) => Pin::new(unix));
pass_on!(Stream, this => Stream::Plain(plain) => Pin::new(plain), Stream::Tls(tls) => Pin::new(&mut **tls));
pass_on!(Movable, this => movable => movable.inner());
