//! Request bodies: those that clients send, and those that this server makes to call itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

/// A request body.
pub enum Incoming {
    /// A client's.
    Network(hyper::body::Incoming),
    /// Made here.
    Made(Box<dyn Source>),
}

/// Where the bytes of a request that is made here come from.
pub trait Source: Send {
    /// The next bytes, which need not be whole messages; none at the end.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

impl Incoming {
    /// A body of one piece.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Made(Box::new(Whole(Some(bytes))))
    }
}

struct Whole(Option<Bytes>);

impl Source for Whole {
    fn poll_bytes(&mut self, _context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(self.0.take())
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Network(body) => Pin::new(body).poll_frame(context),
            Self::Made(source) => {
                source.poll_bytes(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Network(body) => body.is_end_stream(),
            Self::Made(_) => false,
        }
    }
}
