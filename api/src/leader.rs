//! What etcd asks of every call before its handler: a valid client version, and for those that
//! require it a leader.
//!
//! New calls that require a leader are refused as soon as there is none; streams that are open end
//! only after three election timeouts without one, since reconnecting is dear.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use tokio::sync::watch;

use crate::status::Error;

const REQUIRE_LEADER: &str = "hasleader";
const CLIENT_VERSION: &str = "client-api-version";

/// Whether the call requires a leader.
pub fn is_required(headers: &HeaderMap) -> bool {
    headers.get(REQUIRE_LEADER).is_some_and(|value| value == "true")
}

/// Refuses a client that names its version in bytes that are no text.
pub fn check_client_version(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(CLIENT_VERSION) {
        Some(version) if std::str::from_utf8(version.as_bytes()).is_err() => {
            Err(Error::InvalidClientApiVersion)
        }
        _ => Ok(()),
    }
}

/// Waits, for a stream, until a flag is raised.
pub struct Raised {
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Raised {
    /// Waits until `flag` is true.
    pub fn new(mut flag: watch::Receiver<bool>) -> Self {
        let wait = async move {
            if flag.wait_for(|raised| *raised).await.is_err() {
                // Nobody is left who could raise it.
                std::future::pending::<()>().await;
            }
        };
        Self { wait: Box::pin(wait) }
    }

    /// Raised already.
    pub fn now() -> Self {
        Self { wait: Box::pin(std::future::ready(())) }
    }

    /// Ready when the flag has been raised; not to be polled after that.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wait.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_word_true_requires_a_leader() {
        let mut headers = HeaderMap::new();
        assert!(!is_required(&headers));
        headers.insert(REQUIRE_LEADER, HeaderValue::from_static("True"));
        assert!(!is_required(&headers));
        headers.insert(REQUIRE_LEADER, HeaderValue::from_static("true"));
        assert!(is_required(&headers));
    }

    #[test]
    fn a_version_must_be_text() {
        let mut headers = HeaderMap::new();
        assert_eq!(check_client_version(&headers), Ok(()));
        headers.insert(CLIENT_VERSION, HeaderValue::from_static("3.6.13"));
        assert_eq!(check_client_version(&headers), Ok(()));
        let bytes = HeaderValue::from_bytes(b"3.\xff").expect("opaque bytes are allowed");
        headers.insert(CLIENT_VERSION, bytes);
        assert_eq!(check_client_version(&headers), Err(Error::InvalidClientApiVersion));
    }
}
