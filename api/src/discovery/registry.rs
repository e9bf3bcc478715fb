//! What a registry holds under a token, and what follows from it. Asks nobody.
//!
//! What is decided here must be decided alike by every member that reads the same, so it depends on
//! the entries and their create revisions alone, and only the first `size` of them count.

use std::collections::BTreeSet;

use holdfast_proto::mvccpb::KeyValue;
use holdfast_raft::InitialCluster;

use super::DiscoveryError;
use crate::config::Cluster;

const PREFIX: &str = "/_etcd/registry";
/// No cluster has more members, and no more entries are ever read.
pub(super) const SIZE_MAX: usize = 1000;

/// Where things stand.
#[derive(Debug)]
pub(super) struct Keys {
    /// The key of the size.
    pub(super) size: String,
    /// How the keys of members begin.
    pub(super) members: String,
    /// The key of this member.
    pub(super) own: String,
}

impl Keys {
    pub(super) fn of(token: &str, member: u64) -> Self {
        let folder = clean(&format!("{PREFIX}/{token}"));
        let members = format!("{folder}/members/");
        let own = format!("{members}{member:x}");
        Self { size: format!("{folder}/_config/size"), members, own }
    }
}

/// The path without empty parts, `.` and `..`, as Go's `path.Join` gives it, which etcd makes its keys
/// by.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.iter().flat_map(|part| ["/", part]).collect()
}

/// One member's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) create_revision: i64,
}

impl Line {
    /// Of a member that has not registered, and would come last.
    pub(super) fn new(keys: &Keys, name: &str, peer_urls: &[String]) -> Self {
        let mut pairs: Vec<_> = peer_urls.iter().map(|url| format!("{name}={url}")).collect();
        pairs.sort();
        let value = pairs.join(",");
        Self { key: keys.own.clone(), value, create_revision: i64::MAX }
    }

    fn read(pair: &KeyValue) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let create_revision = pair.create_revision;
        Self { key: text(&pair.key), value: text(&pair.value), create_revision }
    }

    /// The one member that it is of.
    fn member(&self) -> Result<(String, Vec<String>), DiscoveryError> {
        let invalid = |reason: &str| DiscoveryError::InvalidUrl {
            key: self.key.clone(),
            value: self.value.clone(),
            reason: reason.to_owned(),
        };
        let cluster = Cluster::parse(&self.value).map_err(|reason| invalid(&reason))?;
        let mut members = cluster.members();
        match (members.next(), members.next()) {
            (Some((name, urls)), None) => Ok((name.to_owned(), urls.to_vec())),
            _ => Err(invalid("more than one member")),
        }
    }
}

/// What a registry held at one moment.
#[derive(Debug)]
pub(super) struct Registry {
    /// Members that found the cluster; `1 <= size <= SIZE_MAX`.
    pub(super) size: usize,
    /// The first of them to come; `lines.len() <= size`.
    lines: Vec<Line>,
}

impl Registry {
    /// Of the size's value, if it is there, and the members' entries, in any order. As in etcd, an
    /// entry that is nothing like one of a member is passed over.
    pub(super) fn read(
        keys: &Keys,
        size: Option<&[u8]>,
        members: &[KeyValue],
    ) -> Result<Self, DiscoveryError> {
        let Some(value) = size else {
            return Err(DiscoveryError::SizeNotFound(keys.size.clone()));
        };
        let value = String::from_utf8_lossy(value);
        let size = value.parse().ok().filter(|size| (1..=SIZE_MAX).contains(size));
        let size = size.ok_or_else(|| {
            let (key, value) = (keys.size.clone(), value.into_owned());
            DiscoveryError::BadSize { key, value }
        })?;
        let mut lines: Vec<Line> = members.iter().map(Line::read).collect();
        lines.retain(|line| {
            // What stands in this member's own place is not passed over: it would never be replaced.
            let is_entry = line.value.contains('=') || line.key == keys.own;
            if !is_entry {
                let (key, value) = (&line.key, &line.value);
                tracing::warn!(key, value, "invalid peer info returned from discovery service");
            }
            is_entry
        });
        lines.sort_by(|a, b| (a.create_revision, &a.key).cmp(&(b.create_revision, &b.key)));
        lines.truncate(size);
        Ok(Self { size, lines })
    }

    /// How many are there of those that are needed.
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Whether this member has registered, and early enough.
    pub(super) fn holds(&self, own: &Line) -> bool {
        self.lines.iter().any(|line| line.key == own.key)
    }

    /// Whether there is a place for this member, or it has one, beside those who are there.
    pub(super) fn admit(&self, own: &Line) -> Result<(), DiscoveryError> {
        let Line { key, value, .. } = own;
        match self.lines.iter().find(|line| line.key == *key) {
            Some(line) if line.value != *value => Err(DiscoveryError::DuplicateId {
                key: key.clone(),
                value: line.value.clone(),
                own: value.clone(),
            }),
            Some(_) => members(&self.lines).map(drop),
            None if self.lines.len() >= self.size => Err(DiscoveryError::FullCluster(self.size)),
            None => members(self.lines.iter().chain([own])).map(drop),
        }
    }

    /// The initial cluster, once all of it is there.
    pub(super) fn founders(&self) -> Result<Option<InitialCluster>, DiscoveryError> {
        if self.lines.len() < self.size {
            return Ok(None);
        }
        members(&self.lines).map(Some)
    }
}

/// The members, of which no two may have a name or a URL in common.
fn members<'a>(
    lines: impl IntoIterator<Item = &'a Line>,
) -> Result<InitialCluster, DiscoveryError> {
    let (mut names, mut taken) = (BTreeSet::new(), BTreeSet::new());
    let mut cluster = InitialCluster::new();
    for line in lines {
        let (name, urls) = line.member()?;
        if !names.insert(name.clone()) {
            return Err(DiscoveryError::DuplicateName(name));
        }
        if let Some(url) = urls.iter().find(|url| !taken.insert((*url).clone())) {
            return Err(DiscoveryError::DuplicateUrl(url.clone()));
        }
        cluster.push((name, urls));
    }
    Ok(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::of("t", 0xa)
    }

    fn own() -> Line {
        Line::new(&keys(), "a", &["http://h:2".to_owned(), "http://h:1".to_owned()])
    }

    fn entry(member: &str, value: &str, create_revision: i64) -> KeyValue {
        let key = format!("/_etcd/registry/t/members/{member}").into();
        let value = value.as_bytes().to_vec().into();
        KeyValue { key, value, create_revision, ..KeyValue::default() }
    }

    fn registry(size: &str, entries: &[(&str, &str, i64)]) -> Registry {
        let entries: Vec<_> = entries.iter().map(|(m, value, rev)| entry(m, value, *rev)).collect();
        Registry::read(&keys(), Some(size.as_bytes()), &entries).expect("it can be read")
    }

    #[test]
    fn keys_are_etcds() {
        let keys = keys();
        assert_eq!(keys.size, "/_etcd/registry/t/_config/size");
        assert_eq!(keys.own, "/_etcd/registry/t/members/a");
        for (token, expected) in
            [("/a//b/", "/_etcd/registry/a/b/members/"), ("a/../b/.", "/_etcd/registry/b/members/")]
        {
            assert_eq!(Keys::of(token, 1).members, expected);
        }
    }

    #[test]
    fn a_member_registers_each_of_its_urls_under_its_name() {
        assert_eq!(own().value, "a=http://h:1,a=http://h:2");
    }

    #[test]
    fn the_size_is_a_number_of_members() {
        let error = Registry::read(&keys(), None, &[]).expect_err("there is none");
        assert_eq!(error, DiscoveryError::SizeNotFound(keys().size));
        for bad in ["", "x", "0", "-1", "3 ", "1001"] {
            let error = Registry::read(&keys(), Some(bad.as_bytes()), &[]).expect_err(bad);
            assert!(error.to_string().starts_with("discovery: size key is bad"), "{error}");
        }
        assert_eq!(registry("3", &[]).size, 3);
    }

    #[test]
    fn the_first_to_come_found_the_cluster() {
        let entries = [
            ("9", "late=http://late:1", 9),
            ("c", "c=http://c:1", 5),
            ("a", " a=http://h:1,a=http://h:2\n", 7),
            ("0", "nothing like a member", 2),
            ("b", "b=http://b:1", 5),
        ];
        let waiting = registry("5", &entries);
        assert_eq!((waiting.count(), waiting.founders()), (4, Ok(None)));
        let whole = registry("3", &entries);
        assert!(whole.holds(&own()) && whole.admit(&own()).is_ok());
        let cluster = whole.founders().expect("valid").expect("whole");
        let names: Vec<_> = cluster.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!(cluster[2].1, ["http://h:1", "http://h:2"]);
    }

    #[test]
    fn whoever_comes_after_the_last_is_refused() {
        let entries = [("b", "b=http://b:1", 3), ("c", "c=http://c:1", 4)];
        assert_eq!(registry("2", &entries).admit(&own()), Err(DiscoveryError::FullCluster(2)));
        assert_eq!(registry("3", &entries).admit(&own()), Ok(()));
        // Registered, at the same time as others, and too late.
        let entries = [entries[0], entries[1], ("a", "a=http://h:1,a=http://h:2", 5)];
        assert_eq!(registry("2", &entries).admit(&own()), Err(DiscoveryError::FullCluster(2)));
    }

    #[test]
    fn names_urls_and_ids_are_one_members() {
        for (entry, expected) in [
            (("b", "a=http://b:1", 3), "discovery: found duplicate name"),
            (("b", "b=http://h:2", 3), "discovery cluster has duplicate url"),
            (("a", "b=http://h:1,b=http://h:2", 3), "discovery: found duplicate id"),
            (("a", "", 3), "discovery: found duplicate id"),
            (("b", "b=ftp://b:1", 3), "discovery: invalid peer URL"),
            (("b", "b=http://b:1,c=http://c:1", 3), "discovery: invalid peer URL"),
        ] {
            let error = registry("3", &[entry]).admit(&own()).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
