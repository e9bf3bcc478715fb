//! The flags' endpoints, read as etcd's client reads them.

use std::fmt;

use crate::net::Target;

/// A client URL of the registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    shown: String,
    pub(super) target: Target,
}

impl Endpoint {
    /// Reads a URL, or `host:port` alone. `https` and `unixs` are TLS and `http` is none; the rest is
    /// TLS where that is `wanted`.
    pub fn parse(text: &str, wanted: bool) -> Result<Self, String> {
        if text.contains('@') {
            return Err("an endpoint names no user".to_owned());
        }
        let url = match text.split_once(':') {
            Some(("unix", path)) => {
                let scheme = if wanted { "unixs" } else { "unix" };
                format!("{scheme}://{}", path.strip_prefix("//").unwrap_or(path))
            }
            Some(("unixs", path)) => format!("unixs://{}", path.strip_prefix("//").unwrap_or(path)),
            _ if text.contains("://") => text.to_owned(),
            _ if wanted => format!("https://{text}"),
            _ => format!("http://{text}"),
        };
        let target = Target::parse(&url).map_err(|error| error.to_string())?;
        Ok(Self { shown: text.to_owned(), target })
    }

    /// Whether it says in so many words that there is to be no TLS.
    pub fn is_plain(&self) -> bool {
        self.shown.starts_with("http://")
    }

    /// Whether a network carries in the clear what it is told.
    pub fn is_overheard(&self) -> bool {
        !self.target.is_secure && !self.shown.starts_with("unix:")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_decides_about_tls_and_the_flags_where_there_is_none() {
        for (text, wanted, is_secure) in [
            ("http://a:1", true, false),
            ("https://a:1", false, true),
            ("a:1", false, false),
            ("a:1", true, true),
            ("[::1]:1", false, false),
            ("unix:///run/e.sock", false, false),
            ("unix:e.sock", true, true),
            ("unixs:e.sock", false, true),
        ] {
            let endpoint = Endpoint::parse(text, wanted).expect(text);
            assert_eq!(endpoint.target.is_secure, is_secure, "{text}");
            assert_eq!(endpoint.to_string(), text);
        }
        for wrong in ["a", "ftp://a:1", "http://u:secret@a:1", "unix:", "http://a:1/x"] {
            let error = Endpoint::parse(wrong, false).expect_err(wrong);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
