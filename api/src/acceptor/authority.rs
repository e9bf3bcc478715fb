//! A socket whose HTTP/2 requests may name a URL where HTTP/2 wants an authority.
//!
//! Old clients of etcd (etcdctl 3.4 with `--cluster`) send `:authority: http://127.0.0.1:2379`. Go's
//! server takes any text there; the HTTP/2 library used here resets the stream. Nothing here reads
//! that value, so it is changed into a valid one of the same length before the library sees it:
//! `http://` becomes `httpC--`.
//!
//! Only the first request of a connection is looked at, unless it was such a one. What is not
//! understood is passed on as it came, for the library to judge; there are no errors of this layer's
//! own, and it never holds more than one frame. Authorities that are wrong in other ways stay so.

mod frames;
mod header_block;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use frames::Frames;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once as long as frames are followed.
const READ: usize = 4096;

/// A socket that is read through [`Frames`], until these have seen enough, and written as it is.
pub(super) struct MendedAuthority<S> {
    socket: S,
    frames: Frames,
    /// What was read and not yet handed on.
    held: Vec<u8>,
    /// How much of `held` may be handed on.
    passable: usize,
}

impl<S> MendedAuthority<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, frames: Frames::new(), held: Vec::new(), passable: 0 }
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.passable.min(buffer.remaining());
        buffer.put_slice(&self.held[..length]);
        self.held.drain(..length);
        self.passable -= length;
        if self.held.is_empty() && self.frames.are_done() {
            // The rest of the connection needs no memory here.
            self.held = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> MendedAuthority<S> {
    /// Reads once, and settles how much may be handed on; at the end of the stream that is all.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ];
        let mut read = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut read))?;
        if read.filled().is_empty() {
            self.frames.end();
        }
        self.held.extend_from_slice(read.filled());
        self.passable = self.frames.follow(&mut self.held);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MendedAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.passable == 0 {
            if self.frames.are_done() {
                return Pin::new(&mut self.socket).poll_read(context, buffer);
            }
            ready!(self.poll_more(context))?;
        }
        self.hand_on(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MendedAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
