//! The command line of `holdfast util`: words, a file, and flags in any order, as etcdutl's.

use std::path::PathBuf;

use crate::config::{Cluster, Urls};
use crate::util::{Output, Restore, Target, Task};

use super::settings::Settings;
use super::table::{self, Effect, Flag, Kind};
use super::{ArgumentError, Values, go};

const NEW_MEMBER: &[&str] = &[
    "name",
    "data-dir",
    "wal-dir",
    "initial-cluster",
    "initial-cluster-token",
    "initial-advertise-peer-urls",
    "bump-revision",
    "mark-compacted",
];

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, effect: Effect::Works, help, group: "" }
}

/// The flags of all commands.
pub(super) const FLAGS: &[Flag] = &[
    flag("data-dir", Kind::Text, "", "folder of the new member's data; ${name}.etcd if empty"),
    flag("wal-dir", Kind::Text, "", "folder of its log, when apart from the data"),
    flag("name", Kind::Text, "default", "name of the new member"),
    flag(
        "initial-cluster",
        Kind::Cluster,
        "default=http://localhost:2380",
        "the members of the new cluster: name=url,name=url",
    ),
    flag("initial-cluster-token", Kind::Text, "etcd-cluster", "tells clusters apart"),
    flag(
        "initial-advertise-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        "how other members reach the new one",
    ),
    flag("skip-hash-check", Kind::Bool, "false", "take a file without a hash, or with a wrong one"),
    flag("bump-revision", Kind::Uint, "0", "raise the revision by so much after the restore"),
    flag(
        "mark-compacted",
        Kind::Bool,
        "false",
        "call everything before the raised revision compacted (needed to raise it)",
    ),
    flag("from", Kind::Text, "", "etcd's data directory"),
    flag("from-wal-dir", Kind::Text, "", "etcd's --wal-dir, if it had one"),
    flag("write-out", Kind::OneOf(&["simple", "json", "table"]), "simple", "form of the output"),
    flag("w", Kind::OneOf(&["simple", "json", "table"]), "simple", "the same as --write-out"),
];

/// Reads the arguments after `util`; none when help was asked for.
pub(super) fn parse(arguments: &[String]) -> Result<Option<Task>, ArgumentError> {
    let mut values = Values::new();
    let mut words = Vec::new();
    let mut rest = arguments.to_vec();
    loop {
        let scanned = go::scan(&rest, &|name| table::find(FLAGS, name))?;
        if scanned.help {
            return Ok(None);
        }
        values.extend(scanned.values);
        let mut positional = scanned.positional.into_iter();
        let Some(word) = positional.next() else { break };
        words.push(word);
        rest = positional.collect();
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    task(&words, &values).map(Some)
}

fn task(words: &[&str], values: &Values) -> Result<Task, ArgumentError> {
    let settings = |allowed: &[&[&str]]| settings(values, allowed);
    match words {
        ["snapshot", "status", file] => {
            let settings = settings(&[&["write-out", "w"]])?;
            let name = if settings.is_set("w") { "w" } else { "write-out" };
            let output = match settings.text(name) {
                "json" => Output::Json,
                "table" => Output::Table,
                _ => Output::Simple,
            };
            Ok(Task::Status { file: file.into(), output })
        }
        ["snapshot", "restore", file] => {
            let settings = settings(&[NEW_MEMBER, &["skip-hash-check"]])?;
            let skip_hash_check = settings.boolean("skip-hash-check");
            let restore = restore(&settings)?;
            Ok(Task::Restore { file: file.into(), skip_hash_check, restore })
        }
        ["migrate"] => {
            let settings = settings(&[NEW_MEMBER, &["from", "from-wal-dir"]])?;
            if settings.text("from").is_empty() {
                return usage("migrate needs --from, etcd's data directory".to_owned());
            }
            let from = settings.text("from").into();
            let log = folder(&settings, "from-wal-dir");
            Ok(Task::Migrate { from, log, restore: restore(&settings)? })
        }
        ["check", directory] => {
            let log = folder(&settings(&[&["wal-dir"]])?, "wal-dir");
            Ok(Task::Check { directory: directory.into(), log })
        }
        _ => usage(format!("unknown command {:?} for \"holdfast util\"", words.join(" "))),
    }
}

/// The settings, if only flags of the command were given.
fn settings(values: &Values, allowed: &[&[&str]]) -> Result<Settings, ArgumentError> {
    let allowed: Vec<&str> = allowed.concat();
    if let Some(name) = values.keys().find(|name| !allowed.contains(name)) {
        return usage(format!("flag provided but not defined: -{name}"));
    }
    Ok(Settings::new(FLAGS, values.clone()))
}

/// A folder that may be left out.
fn folder(settings: &Settings, flag: &str) -> Option<PathBuf> {
    Some(settings.text(flag)).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn restore(settings: &Settings) -> Result<Restore, ArgumentError> {
    let name = settings.text("name").to_owned();
    let data_directory = match settings.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        given => PathBuf::from(given),
    };
    let peer_urls = Urls::parse(settings.text("initial-advertise-peer-urls"));
    let cluster = Cluster::parse(settings.text("initial-cluster"));
    let target = Target {
        name,
        data_directory,
        log_directory: folder(settings, "wal-dir"),
        cluster: cluster.expect("checked when it was read"),
        cluster_token: settings.text("initial-cluster-token").to_owned(),
        peer_urls: peer_urls.expect("checked when it was read").into_vec(),
    };
    let bump = settings.unsigned("bump-revision");
    match (bump, settings.boolean("mark-compacted")) {
        (1.., false) => usage("--mark-compacted required if --bump-revision is set".to_owned()),
        (0, true) => usage("--mark-compacted requires --bump-revision".to_owned()),
        _ => Ok(Restore { target, bump_revision: bump }),
    }
}

fn usage<T>(message: String) -> Result<T, ArgumentError> {
    Err(ArgumentError::Usage(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Task>, ArgumentError> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_stand_before_and_after_the_file() {
        for line in ["snapshot status a.db -w json", "snapshot -w=json status a.db"] {
            let Ok(Some(Task::Status { file, output: Output::Json })) = parsed(line) else {
                panic!("{line}");
            };
            assert_eq!(file, PathBuf::from("a.db"));
        }
    }

    #[test]
    fn contradictions_and_strangers_are_refused() {
        for line in [
            "snapshot restore a.db --bump-revision 5",
            "snapshot restore a.db --mark-compacted",
            "snapshot status a.db --name x",
            "snapshot status",
            "migrate --data-dir x",
            "frobnicate",
        ] {
            assert!(matches!(parsed(line), Err(ArgumentError::Usage(_))), "{line}");
        }
    }
}
