//! The plain HTTP endpoints: health in three forms, and the version, metrics.
//!
//! Bodies and codes are etcd's, because probes and scripts compare them. Answers over HTTP/1 and
//! HTTP/2 alike.

mod health;

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::maintenance::minor_version;
use crate::metrics;
use crate::rpc::Body;
use crate::services::Services;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers a request that is not gRPC.
pub async fn serve<B>(services: Arc<Services>, request: Request<B>) -> Response<Body> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let Some(endpoint) = Endpoint::of(path) else {
        return error(StatusCode::NOT_FOUND, "404 page not found");
    };
    if request.method() != Method::GET {
        let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    match endpoint {
        Endpoint::Metrics => metrics(&services).await,
        Endpoint::Version => version(services.shared.etcd_version),
        Endpoint::Health => health::health(&services, query).await,
        Endpoint::Checks(checks) => health::checks(&services, checks, query).await,
        Endpoint::Check(check) => health::check(&services, check, query).await,
    }
}

enum Endpoint {
    Metrics,
    Version,
    Health,
    Checks(&'static [health::Check]),
    Check(health::Check),
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/metrics" => return Some(Self::Metrics),
            "/version" => return Some(Self::Version),
            "/health" => return Some(Self::Health),
            _ => {}
        }
        let mut parts = path.strip_prefix('/')?.splitn(2, '/');
        let checks = match parts.next()? {
            "livez" => health::LIVE,
            "readyz" => health::READY,
            _ => return None,
        };
        match parts.next() {
            None => Some(Self::Checks(checks)),
            Some(name) => checks.iter().find(|c| c.name() == name).copied().map(Self::Check),
        }
    }
}

/// Written on the pool: there is much to write.
async fn metrics(services: &Services) -> Response<Body> {
    let shared = services.shared.clone();
    match services.shared.pool.run(move || metrics::render(&shared)).await {
        Ok(body) => {
            let mut response = Response::new(Body::text(body));
            response.headers_mut().insert(CONTENT_TYPE, METRICS);
            response
        }
        Err(busy) => error(StatusCode::SERVICE_UNAVAILABLE, busy.text()),
    }
}

fn version(version: &str) -> Response<Body> {
    let minor = minor_version(version);
    let body =
        format!(r#"{{"etcdserver":"{version}","etcdcluster":"{minor}","storage":"{minor}"}}"#);
    let mut response = Response::new(Body::text(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

pub(crate) fn text(body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::text(body));
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn error(code: StatusCode, what: &str) -> Response<Body> {
    let mut response = text(format!("{what}\n"));
    *response.status_mut() = code;
    response
}

/// The values of a parameter in a query.
fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_paths_are_endpoints() {
        for path in
            ["/version", "/metrics", "/health", "/livez", "/livez/serializable_read", "/readyz"]
        {
            assert!(Endpoint::of(path).is_some(), "{path}");
        }
        assert!(Endpoint::of("/readyz/non_learner").is_some());
        for path in
            ["/", "", "/livez/", "/livez/non_learner", "/readyz/x", "/healthz", "/v3/kv/put"]
        {
            assert!(Endpoint::of(path).is_none(), "{path}");
        }
    }

    #[test]
    fn parameters_may_be_repeated_or_bare() {
        let found: Vec<_> = values("exclude=a&verbose&exclude=b&exclude", "exclude").collect();
        assert_eq!(found, ["a", "b", ""]);
        assert!(values("verbose", "verbose").next().is_some());
        assert!(values("verboser=1", "verbose").next().is_none());
    }
}
