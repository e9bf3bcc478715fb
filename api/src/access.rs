//! What stands before every request on the client port that is not gRPC.
//!
//! ```text
//! request -> host permitted? -> OPTIONS -> /v3/...  the JSON gateway
//!                                       -> the rest: health and version
//! ```
//!
//! Browsers are told which origins may read the answers. A host name that is not permitted is
//! refused: otherwise a page could point its own name at this server and read everything.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST,
    ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::gateway::websocket;
use crate::rpc::Body;
use crate::services::Services;
use crate::tls::ConnectionIdentity;
use crate::{gateway, http as endpoints};

/// What operators permit, from the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `--enable-grpc-gateway`.
    pub gateway: bool,
    /// `--cors`; nobody when it is empty.
    pub origins: Names,
    /// `--host-whitelist`; anybody when it is empty.
    pub hosts: Names,
}

impl Default for Rules {
    fn default() -> Self {
        Self { gateway: true, origins: Names::Any, hosts: Names::Any }
    }
}

/// A comma-separated list, as a flag gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// The list has a `*`.
    Any,
    /// Only these.
    These(BTreeSet<String>),
}

impl Names {
    /// Reads a list.
    pub fn parse(text: &str) -> Self {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        if names.contains("*") { Self::Any } else { Self::These(names) }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::These(names) if names.is_empty())
    }

    fn contains(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(names) => names.contains(name),
        }
    }
}

/// Marks a request that came by TLS.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

/// Answers a request that is not gRPC. A page that points its own name here has no certificate for
/// that name, so TLS needs no list of hosts.
pub async fn serve(services: Arc<Services>, request: Request<Incoming>) -> Response<Body> {
    let rules = services.shared.http.clone();
    let host = host(&request);
    let is_plain = request.extensions().get::<Encrypted>().is_none();
    if is_plain && !rules.hosts.is_empty() && !rules.hosts.contains(&host) {
        tracing::warn!(%host, "refused an HTTP request for a host that is not permitted");
        return misdirected(&host);
    }
    let origin = allowed_origin(&rules.origins, request.headers());
    if origin.is_none() && is_of_another_page(&request) && websocket::is_asked_for(&request) {
        return endpoints::error(StatusCode::FORBIDDEN, "Forbidden");
    }
    let mut response = if request.method() == Method::OPTIONS {
        Response::new(Body::empty())
    } else {
        route(services, request, rules.gateway).await
    };
    let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let Some(origin) = origin.filter(|_| !is_switched) {
        put_origin(response.headers_mut(), origin);
    }
    response
}

async fn route(
    services: Arc<Services>,
    request: Request<Incoming>,
    gateway: bool,
) -> Response<Body> {
    let path = request.uri().path();
    // Clients of etcd 3.3 and before.
    let beta = path.strip_prefix("/v3beta/").map(|rest| format!("/v3/{rest}"));
    let path = beta.unwrap_or_else(|| path.to_owned());
    if gateway && path.starts_with("/v3/") {
        if services.reader.auth_enabled() && names_a_user(&request) {
            return endpoints::error(StatusCode::BAD_REQUEST, CERTIFICATE_IGNORED);
        }
        if websocket::is_asked_for(&request) {
            return websocket::accept(services, request, &path);
        }
        return gateway::serve(services, request, &path).await;
    }
    endpoints::serve(services, request).await
}

/// The gateway's own calls carry no certificate, and its client must not think that they carry its.
const CERTIFICATE_IGNORED: &str = "CommonName of client sending a request against gateway will be ignored and not used as expected";

/// Whether it comes with the certificate of a user.
fn names_a_user<B>(request: &Request<B>) -> bool {
    let identity = request.extensions().get::<ConnectionIdentity>();
    identity.is_some_and(|identity| !identity.common_name.is_empty())
}

/// Whether a page asks that did not come from here. No browser keeps the answers from it that come
/// over a WebSocket.
fn is_of_another_page<B>(request: &Request<B>) -> bool {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = request.headers().get(ORIGIN) else { return false };
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    own.is_none_or(|(_, place)| Some(place) != text(HOST))
}

/// The host that a request is for, without the port.
fn host<B>(request: &Request<B>) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = header.or(authority).unwrap_or_default();
    match host.parse::<http::uri::Authority>() {
        Ok(authority) => authority.host().trim_matches(['[', ']']).to_owned(),
        Err(_) => host.to_owned(),
    }
}

fn misdirected(host: &str) -> Response<Body> {
    let text = format!(
        "The Host header of this request names a host that is not permitted here: {host:?}.\n\
         Either let clients connect with TLS, where any name is permitted, or start the server with\n\
         --host-whitelist and this name. Without this check a web page could have its own name\n\
         resolved to this server and read from it (CVE-2018-5702).\n"
    );
    let mut response = endpoints::text(text);
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response
}

fn allowed_origin(allowed: &Names, headers: &HeaderMap) -> Option<HeaderValue> {
    if *allowed == Names::Any {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = headers.get(ORIGIN)?;
    allowed.contains(origin.to_str().ok()?).then(|| origin.clone())
}

fn put_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let names = HeaderValue::from_static("accept, content-type, authorization");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_flags_give_them() {
        assert_eq!(Names::parse("*"), Names::Any);
        assert_eq!(Names::parse("a, *"), Names::Any);
        assert!(Names::parse("").is_empty());
        let names = Names::parse("a,b");
        assert!(names.contains("a") && names.contains("b") && !names.contains("c"));
    }

    #[test]
    fn a_page_is_from_here_if_it_names_this_host() {
        let is_other = |origin| {
            let request = Request::builder().header(HOST, "a:1").header(ORIGIN, origin);
            is_of_another_page(&request.body(()).expect("a request"))
        };
        assert!(!is_other("http://a:1") && !is_other("https://a:1"));
        assert!(is_other("http://a:2") && is_other("http://b") && is_other("null"));
        assert!(!is_of_another_page(&Request::new(())), "no page at all");
    }

    #[test]
    fn the_port_is_no_part_of_the_host() {
        for (header, expected) in
            [("a.b:1", "a.b"), ("a.b", "a.b"), ("[::1]:2379", "::1"), ("127.0.0.1:1", "127.0.0.1")]
        {
            let request = Request::builder().header(HOST, header).body(()).expect("a request");
            assert_eq!(host(&request), expected);
        }
        let request = Request::builder().uri("http://c.d:7/x").body(()).expect("a request");
        assert_eq!(host(&request), "c.d");
    }

    #[test]
    fn only_permitted_origins_are_named() {
        let mut headers = HeaderMap::new();
        let some = Names::parse("http://a:1");
        assert_eq!(allowed_origin(&some, &headers), None);
        assert_eq!(allowed_origin(&Names::Any, &headers), Some(HeaderValue::from_static("*")));
        headers.insert(ORIGIN, HeaderValue::from_static("http://a:1"));
        assert_eq!(allowed_origin(&some, &headers), Some(HeaderValue::from_static("http://a:1")));
        headers.insert(ORIGIN, HeaderValue::from_static("http://b:1"));
        assert_eq!(allowed_origin(&some, &headers), None);
    }
}
