//! Who a call says it comes from: a token, else the user of the connection's certificate.
//!
//! Nothing is believed here; `gate.rs` finds out what a token is worth.

use std::sync::Arc;

use http::{HeaderMap, Request};

/// The common name of a client certificate that was verified, as an extension of each request of
/// its connection. The acceptor puts it there where `--client-cert-auth` asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateUser(pub Arc<str>);

/// Where a token stands, the first one first.
const TOKEN: [&str; 2] = ["token", "authorization"];
const BEARER: &str = "Bearer ";
/// Present on what the JSON gateway passes on: its certificate is not its client's.
const GATEWAY: &str = "grpcgateway-accept";

/// Who a call says it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Nobody.
    #[default]
    Anonymous,
    /// Whoever was given this token; not to be logged.
    Token(Box<str>),
    /// The user of a verified certificate.
    Certificate(Arc<str>),
}

impl Caller {
    /// Who a request says it comes from.
    pub fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        if let Some(token) = TOKEN.iter().find_map(|name| headers.get(*name)) {
            // What is no text is no token that anybody was given.
            let token = token.to_str().unwrap_or_default();
            return Self::Token(token.strip_prefix(BEARER).unwrap_or(token).into());
        }
        match request.extensions().get::<CertificateUser>() {
            Some(CertificateUser(user)) if !is_passed_on(headers) => {
                Self::Certificate(user.clone())
            }
            _ => Self::Anonymous,
        }
    }
}

fn is_passed_on(headers: &HeaderMap) -> bool {
    headers.contains_key(GATEWAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(headers: &[(&'static str, &'static str)], certificate: Option<&str>) -> Caller {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a header's value"));
        }
        if let Some(user) = certificate {
            request.extensions_mut().insert(CertificateUser(user.into()));
        }
        Caller::of(&request)
    }

    #[test]
    fn a_token_comes_before_a_certificate_even_if_it_is_worth_nothing() {
        assert_eq!(caller(&[], None), Caller::Anonymous);
        assert_eq!(caller(&[], Some("ann")), Caller::Certificate("ann".into()));
        assert_eq!(caller(&[("token", "t.1")], Some("ann")), Caller::Token("t.1".into()));
        assert_eq!(caller(&[("token", "")], Some("ann")), Caller::Token("".into()));
    }

    #[test]
    fn tokens_are_found_as_clients_and_gateways_send_them() {
        let both = [("authorization", "Bearer b.2"), ("token", "t.1")];
        assert_eq!(caller(&both, None), Caller::Token("t.1".into()));
        assert_eq!(caller(&both[..1], None), Caller::Token("b.2".into()));
        let twice = [("token", "t.1"), ("token", "t.2")];
        assert_eq!(caller(&twice, None), Caller::Token("t.1".into()));
    }

    #[test]
    fn the_certificate_of_a_gateway_is_nobodys() {
        let passed_on = [("grpcgateway-accept", "*/*")];
        assert_eq!(caller(&passed_on, Some("gateway")), Caller::Anonymous);
    }
}
