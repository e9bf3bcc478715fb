//! Lists of URLs and the map of initial members, with etcd's checks and texts.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use http::Uri;

use crate::net::ListenUrl;

/// At least one URL, sorted: a scheme, a host and a port each, no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls(Vec<String>);

impl Urls {
    /// Reads a comma-separated list.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut urls =
            text.split(',').map(|url| check(url.trim())).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        Ok(Self(urls))
    }

    /// Reads URLs one by one.
    pub fn from_list(list: &[String]) -> Result<Self, String> {
        Self::parse(&list.join(","))
    }

    /// The URLs, each without a trailing slash.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// The URLs, taken out.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }

    /// Where to listen. A host must be an IP address or `localhost`, as in etcd.
    pub fn listen(&self) -> Result<Vec<ListenUrl>, String> {
        self.0.iter().map(|url| ListenUrl::parse(url)).collect()
    }
}

/// Members by name with their peer URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster(BTreeMap<String, Vec<String>>);

impl Cluster {
    /// Reads `name=url,name=url`; a name may come more than once.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split(',') {
            let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
            if url.is_empty() {
                return Err(format!("empty URL given for {name:?}"));
            }
            members.entry(name.trim().to_owned()).or_default().push(check(url.trim())?);
        }
        members.values_mut().for_each(|urls| urls.sort());
        Ok(Self(members))
    }

    /// A cluster of one member.
    pub fn single(name: &str, urls: &Urls) -> Self {
        Self(BTreeMap::from([(name.to_owned(), urls.as_slice().to_vec())]))
    }

    /// The peer URLs of a member.
    pub fn urls_of(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// All members, by name.
    pub fn members(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }
}

fn check(url: &str) -> Result<String, String> {
    // The rest is the name of a file.
    if let Some(path) = url.strip_prefix("unix://").or_else(|| url.strip_prefix("unixs://")) {
        return match path {
            "" => Err(format!("URL must name a socket: {url}")),
            _ => Ok(url.to_owned()),
        };
    }
    let uri = Uri::from_str(url).map_err(|error| format!("parse {url:?}: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        None if url.contains(':') => {
            return Err(format!("parse {url:?}: first path segment in URL cannot contain colon"));
        }
        _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
    if uri.port_u16().is_none() {
        return Err(format!("URL address does not have the form \"host:port\": {url}"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!("URL must not contain a path: {url}"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Place;

    #[test]
    fn lists_are_sorted_and_checked() {
        let urls = Urls::parse("http://127.0.0.1:2, http://127.0.0.1:1/").expect("valid");
        assert_eq!(urls.as_slice(), ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        for (text, expected) in [
            ("ftp://h:1", "URL scheme must be http, https, unix, or unixs: ftp://h:1"),
            ("h", "URL scheme must be http, https, unix, or unixs: h"),
            ("http://h", "URL address does not have the form \"host:port\": http://h"),
            ("http://h:1/x", "URL must not contain a path: http://h:1/x"),
        ] {
            assert_eq!(Urls::parse(text), Err(expected.to_owned()));
        }
        let unix = Urls::parse("unixs:///run/x.sock,unix://localhost:m1").expect("valid");
        assert_eq!(unix.as_slice(), ["unix://localhost:m1", "unixs:///run/x.sock"]);
        for text in ["", "127.0.0.1:2379", "unix://", "http://", "http://h:99999", "http://h:1,"] {
            assert!(Urls::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_addresses_and_localhost_can_be_bound() {
        let urls = Urls::parse("http://localhost:7,http://[::1]:8").expect("valid");
        let found = urls.listen().expect("addresses");
        let places = found.into_iter().map(|url| url.place).collect::<Vec<_>>();
        let tcp = |text: &str| Place::Tcp(text.parse().unwrap());
        assert_eq!(places, [tcp("[::1]:8"), tcp("127.0.0.1:7")]);
        let error = Urls::parse("http://foo:3379").expect("valid").listen();
        assert_eq!(error, Err("expected IP in URL for binding (http://foo:3379)".to_owned()));
    }

    #[test]
    fn a_member_may_have_several_urls() {
        let cluster = Cluster::parse("a=http://h:2,b=http://h:3,a=http://h:1").expect("valid");
        let urls = ["http://h:1".to_owned(), "http://h:2".to_owned()];
        assert_eq!(cluster.urls_of("a"), Some(&urls[..]));
        assert_eq!(cluster.members().count(), 2);
        assert_eq!(Cluster::parse("foo"), Err("empty URL given for \"foo\"".to_owned()));
    }
}
