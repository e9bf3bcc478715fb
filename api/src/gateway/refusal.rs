//! What a client of the gateway is told instead of an answer.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::Code;

use super::JSON;
use crate::rpc::{Body, MESSAGE, STATUS};
use crate::status::Error;

/// "Client closed request", which has no name among the status codes.
const CLOSED_REQUEST: u16 = 499;

/// A gRPC status other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// No such path.
    pub(super) fn not_found() -> Self {
        Self::new(Code::NotFound, "Not Found")
    }

    /// A path that only takes another method.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(Code::Unimplemented, "Method Not Allowed")
    }

    /// The time that the client gave is over.
    pub(super) fn deadline_exceeded() -> Self {
        Self::new(Code::DeadlineExceeded, "context deadline exceeded")
    }

    /// The status in the headers or trailers of a call; none of a success, or if there is none.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let code = Code::from_bytes(headers.get(STATUS)?.as_bytes());
        let message = headers.get(MESSAGE).map(percent_decoded).unwrap_or_default();
        (code != Code::Ok).then(|| Self::new(code, message))
    }

    /// As JSON; a zero and an empty text are left out, as everywhere.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut status = serde_json::json!({ "code": self.code as i32 });
        if !self.message.is_empty() {
            status["message"] = self.message.as_str().into();
        }
        status
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let text = self.to_json().to_string();
        self.respond(text.into())
    }

    /// A response with the status and headers of this refusal.
    pub(super) fn respond(&self, text: Bytes) -> Response<Body> {
        let mut response = Response::new(Body::text(text));
        *response.status_mut() = self.http_status();
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        if self.code == Code::Unauthenticated
            && let Ok(message) = HeaderValue::try_from(&self.message)
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, message);
        }
        response
    }

    fn http_status(&self) -> StatusCode {
        match self.code {
            Code::Ok => StatusCode::OK,
            Code::Cancelled => StatusCode::from_u16(CLOSED_REQUEST).expect("within the range"),
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
                StatusCode::BAD_REQUEST
            }
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.text())
    }
}

/// The message that `grpc-message` holds.
fn percent_decoded(value: &HeaderValue) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc;

    #[test]
    fn a_refused_call_is_read_back() {
        let error = Error::unknown("100% \"sure\"\n \u{e9}");
        let refusal = Refusal::from_headers(rpc::error_response(&error).headers());
        assert_eq!(refusal, Some(Refusal::from(error)));
        assert_eq!(Refusal::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_empty_is_not_printed() {
        assert_eq!(Refusal::new(Code::NotFound, "").to_json().to_string(), r#"{"code":5}"#);
        let text = Refusal::from(Error::EmptyKey).to_json().to_string();
        assert_eq!(text, r#"{"code":3,"message":"etcdserver: key is not provided"}"#);
    }

    #[test]
    fn a_cut_escape_is_kept_as_it_is() {
        for text in ["%", "%4", "a%zz", "%+1"] {
            let value = HeaderValue::from_str(text).expect("printable");
            assert_eq!(percent_decoded(&value), if text == "%+1" { "\u{1}" } else { text });
        }
    }
}
