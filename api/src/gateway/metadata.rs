//! What of an HTTP request's headers goes along with the call.
//!
//! `Authorization` does, and whatever is named `Grpc-Metadata-...`, without that prefix. Headers
//! with a meaning of their own in a call do not.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::Refusal;
use crate::rpc;

const PREFIX: &str = "grpc-metadata-";
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The headers of the call.
pub(super) fn of(request: &HeaderMap) -> HeaderMap {
    let mut call = HeaderMap::new();
    for (name, value) in request {
        let passed = match name.as_str().strip_prefix(PREFIX) {
            Some(rest) => HeaderName::try_from(rest).ok().filter(|name| !is_reserved(name)),
            None => (name == AUTHORIZATION).then(|| name.clone()),
        };
        if let Some(name) = passed {
            call.append(name, value.clone());
        }
    }
    call.insert(CONTENT_TYPE, rpc::GRPC);
    call
}

fn is_reserved(name: &HeaderName) -> bool {
    name == CONTENT_TYPE || name == TE || name.as_str().starts_with("grpc-")
}

/// When the time is over that the client gives.
pub(super) fn deadline(request: &HeaderMap) -> Result<Option<Instant>, Refusal> {
    let Some(value) = request.get(TIMEOUT) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let timeout = parse(&text).ok_or_else(|| {
        Refusal::new(tonic::Code::InvalidArgument, format!("invalid grpc-timeout: {text}"))
    })?;
    // A time that cannot be named never comes.
    Ok(Instant::now().checked_add(timeout))
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number.saturating_mul(3600)),
        'M' => Duration::from_secs(number.saturating_mul(60)),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_metadata_and_the_token_go_along() {
        let mut request = HeaderMap::new();
        for name in [
            "authorization",
            "grpc-metadata-hasleader",
            "grpc-metadata-grpc-encoding",
            "grpc-metadata-content-type",
            "grpc-metadata-",
            "token",
            "accept",
        ] {
            request.insert(name, HeaderValue::from_static("true"));
        }
        let call = of(&request);
        let mut names: Vec<_> = call.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-type", "hasleader"]);
        assert_eq!(call[CONTENT_TYPE], "application/grpc");
    }

    #[test]
    fn timeouts_have_a_number_and_a_unit() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("15m"), Some(Duration::from_millis(15)));
        for text in ["", "m", "1", "1x", "-1S", "1\u{e9}"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
