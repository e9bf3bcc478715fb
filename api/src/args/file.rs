//! `--config-file`: a YAML (or JSON) file in the place of all flags and variables.
//!
//! Keys are etcd's: flag names, durations in nanoseconds, lists where a flag takes several values,
//! TLS settings in two groups of their own, and those of discovery in groups within a group. A key that nobody knows is passed over, as in etcd, but
//! not without a warning.

use std::fs::File;
use std::io::Read as _;

use saphyr::{LoadableYamlNode as _, Mapping, Scalar, Yaml};

use super::table::{self, Flag, Kind};
use super::{ArgumentError, Given, Source, Values, value};

/// Longer than any file of settings; what is longer is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys within a group, and the flags they stand for. A group within another has a name with a dot.
type Group = (&'static str, &'static [(&'static str, &'static str)]);

const GROUPS: [Group; 7] = [
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
    ),
    (
        "socket-options",
        &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
    ),
    ("discovery-config", &[("token", "discovery-token")]),
    (
        "discovery-config.client",
        &[
            ("endpoints", "discovery-endpoints"),
            ("dial-timeout", "discovery-dial-timeout"),
            ("request-timeout", "discovery-request-timeout"),
            ("keepalive-time", "discovery-keepalive-time"),
            ("keepalive-timeout", "discovery-keepalive-timeout"),
        ],
    ),
    (
        "discovery-config.client.secure",
        &[
            ("cert", "discovery-cert"),
            ("key", "discovery-key"),
            ("cacert", "discovery-cacert"),
            ("insecure-transport", "discovery-insecure-transport"),
            ("insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
        ],
    ),
    (
        "discovery-config.client.auth",
        &[("username", "discovery-user"), ("password", "discovery-password")],
    ),
];

/// Keys of etcd's that mean something there and nothing here, and what to do instead. To pass them
/// over would be to trust, or to be trusted, otherwise than the file says.
const REFUSED: [(&str, &str); 2] = [
    (
        "discovery-config.client.secure.server-name",
        "the registry's certificates must name its endpoints",
    ),
    ("discovery-config.client.auth.token", "log in by username and password"),
];

/// Reads a file of settings.
pub(super) fn load(path: &str, warnings: &mut Vec<String>) -> Result<Values, ArgumentError> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| refused(format!("open {path}: {error}")))?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("{path} is longer than {FILE_BYTES_MAX} bytes")));
    }
    let values = parse(&text, warnings)?;
    warnings.push(format!(
        "loaded server configuration from {path}; other configuration command line flags and \
         environment variables will be ignored if provided"
    ));
    Ok(values)
}

fn refused(message: String) -> ArgumentError {
    ArgumentError::Refused(message)
}

fn parse(text: &str, warnings: &mut Vec<String>) -> Result<Values, ArgumentError> {
    let documents = Yaml::load_from_str(text)
        .map_err(|error| refused(format!("error converting YAML to JSON: yaml: {error}")))?;
    let mut values = Values::new();
    let mapping = match documents.first() {
        None | Some(Yaml::Value(Scalar::Null)) => return Ok(values),
        Some(Yaml::Mapping(mapping)) => mapping,
        Some(_) => {
            return Err(refused("the configuration file is no mapping of names".to_owned()));
        }
    };
    take(&mut values, warnings, None, mapping)?;
    Ok(values)
}

/// Takes over all of a mapping, which is a group or the whole file.
fn take(
    values: &mut Values,
    warnings: &mut Vec<String>,
    within: Option<&Group>,
    mapping: &Mapping<'_>,
) -> Result<(), ArgumentError> {
    for (key, node) in mapping {
        let key = key.as_str().unwrap_or_default();
        let (path, flag) = match within {
            Some((name, keys)) => {
                let flag = keys.iter().find(|(inside, _)| *inside == key).map(|(_, flag)| *flag);
                (format!("{name}.{key}"), flag)
            }
            None => (key.to_owned(), Some(key)),
        };
        match (GROUPS.iter().find(|(name, _)| *name == path), node) {
            (Some(group), Yaml::Mapping(inner)) => take(values, warnings, Some(group), inner)?,
            (Some(_), Yaml::Value(Scalar::Null)) => {}
            (Some(_), _) => return Err(refused(format!("{path} is no mapping of names"))),
            (None, node) => set(values, warnings, &path, flag, node)?,
        }
    }
    Ok(())
}

/// Takes one setting over.
fn set(
    values: &mut Values,
    warnings: &mut Vec<String>,
    key: &str,
    flag: Option<&str>,
    node: &Yaml<'_>,
) -> Result<(), ArgumentError> {
    let is_empty = matches!(node, Yaml::Value(Scalar::Null)) || node.as_str() == Some("");
    if let Some((_, instead)) = REFUSED.iter().find(|(name, _)| *name == key && !is_empty) {
        return Err(refused(format!("{key} is not supported: {instead}")));
    }
    let flag = flag.and_then(|name| table::find(table::SERVER, name));
    // These make no sense in a file.
    let Some(flag) = flag.filter(|flag| !matches!(flag.name, "config-file" | "version")) else {
        warnings.push(format!("the configuration file sets {key}, which is no setting"));
        return Ok(());
    };
    let Some(text) = text(flag, node).map_err(|what| {
        refused(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {what} into Go \
             struct field configYAML.Config.{key} of type {}",
            type_name(flag.kind)
        ))
    })?
    else {
        return Ok(());
    };
    let text = value::normal_form(flag.kind, &text)
        .map_err(|error| refused(format!("invalid value {text:?} for {key}: {error}")))?;
    values.insert(flag.name, Given { text, source: Source::File });
    Ok(())
}

/// A setting as its flag would be given; none for nothing. The error is what was found instead.
fn text(flag: &Flag, node: &Yaml<'_>) -> Result<Option<String>, &'static str> {
    let scalar = match node {
        Yaml::Value(scalar) => scalar,
        Yaml::Sequence(items) => {
            let items = items.iter().map(|item| text(flag, item));
            let items: Vec<String> =
                items.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            return Ok(Some(items.join(",")));
        }
        Yaml::Mapping(_) => return Err("object"),
        _ => return Err("value of an unknown kind"),
    };
    let found = match (flag.kind, scalar) {
        (_, Scalar::Null) => return Ok(None),
        (Kind::Duration, Scalar::Integer(nanoseconds)) => format!("{nanoseconds}ns"),
        (Kind::Duration, _) => return Err(kind_of(scalar)),
        (Kind::Bool, Scalar::Boolean(is_set)) => is_set.to_string(),
        // YAML's older words.
        (Kind::Bool, Scalar::String(word)) => match word.to_lowercase().as_str() {
            "yes" | "y" | "on" => "true".to_owned(),
            "no" | "n" | "off" => "false".to_owned(),
            _ => return Err("string"),
        },
        (Kind::Bool, _) => return Err(kind_of(scalar)),
        (Kind::Int | Kind::Uint | Kind::Uint32, Scalar::Integer(number)) => number.to_string(),
        (Kind::Int | Kind::Uint | Kind::Uint32, _) => return Err(kind_of(scalar)),
        (_, Scalar::String(text)) => text.to_string(),
        (_, Scalar::Integer(number)) => number.to_string(),
        (_, Scalar::Boolean(is_set)) => is_set.to_string(),
        (_, Scalar::FloatingPoint(number)) => number.to_string(),
    };
    Ok(Some(found))
}

fn kind_of(scalar: &Scalar<'_>) -> &'static str {
    match scalar {
        Scalar::Null => "null",
        Scalar::Boolean(_) => "bool",
        Scalar::Integer(_) | Scalar::FloatingPoint(_) => "number",
        Scalar::String(_) => "string",
    }
}

/// As Go calls the type of such a setting.
fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Int => "int",
        Kind::Uint => "uint",
        Kind::Uint32 => "uint32",
        Kind::Duration => "time.Duration",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Values, Vec<String>), String> {
        let mut warnings = Vec::new();
        match parse(text, &mut warnings) {
            Ok(values) => Ok((values, warnings)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn given(text: &str, name: &str) -> String {
        let (values, warnings) = read(text).expect("it can be read");
        assert!(warnings.is_empty(), "{warnings:?}");
        values[name].text.clone()
    }

    #[test]
    fn keys_are_flags_and_groups_of_them() {
        assert_eq!(given("name: 'm1' # a comment\n", "name"), "m1");
        assert_eq!(given("heartbeat-interval: 250\n", "heartbeat-interval"), "250");
        assert_eq!(
            given("watch-progress-notify-interval: 5000000000", "watch-progress-notify-interval"),
            "5000000000ns"
        );
        assert_eq!(given("pre-vote: no", "pre-vote"), "false");
        assert_eq!(
            given("log-outputs: [stderr, /var/log/etcd]", "log-outputs"),
            "stderr,/var/log/etcd"
        );
        assert_eq!(given("auto-compaction-retention: 1", "auto-compaction-retention"), "1");
        assert_eq!(
            given("{\"socket-options\": {\"reuse-port\": true}}", "socket-reuse-port"),
            "true"
        );
        let peer = "peer-transport-security:\n  cert-file: /p\n  client-cert-auth: true\n";
        assert_eq!(given(peer, "peer-cert-file"), "/p");
        assert_eq!(given(peer, "peer-client-cert-auth"), "true");
        let discovery = "discovery-config:\n  token: t\n  client:\n    endpoints: [a:1, b:1]\n    \
                         dial-timeout: 5000000000\n    secure: {cacert: /ca}\n    auth: {username: u}\n";
        for (flag, expected) in [
            ("discovery-token", "t"),
            ("discovery-endpoints", "a:1,b:1"),
            ("discovery-dial-timeout", "5000000000ns"),
            ("discovery-cacert", "/ca"),
            ("discovery-user", "u"),
        ] {
            assert_eq!(given(discovery, flag), expected);
        }
    }

    #[test]
    fn what_nobody_gave_is_not_set() {
        for text in ["", "---\n", "name:\n", "client-transport-security:\n"] {
            assert_eq!(read(text), Ok((Values::new(), Vec::new())), "{text:?}");
        }
    }

    #[test]
    fn unknown_keys_are_named_and_passed_over() {
        let (values, warnings) =
            read("bogus: 1\nconfig-file: x\npeer-transport-security: {bogus: 2}\nname: a")
                .expect("as in etcd");
        assert_eq!(values.len(), 1);
        let named: Vec<_> = warnings.iter().filter(|w| w.contains("no setting")).collect();
        assert_eq!(named.len(), 3, "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("peer-transport-security.bogus")));
    }

    #[test]
    fn keys_that_decide_about_trust_are_not_passed_over() {
        for (within, key) in [("secure", "server-name"), ("auth", "token")] {
            let file = |value| {
                read(&format!("discovery-config: {{client: {{{within}: {{{key}: {value}}}}}}}"))
            };
            let error = file("x").expect_err("refused");
            let named = format!("discovery-config.client.{within}.{key} is not supported: ");
            assert!(error.starts_with(&named), "{error}");
            for empty in ["''", ""] {
                file(empty).expect("it says nothing");
            }
        }
    }

    #[test]
    fn wrong_types_are_refused_in_the_words_of_etcd() {
        let error = read("heartbeat-interval: abc").expect_err("no number");
        assert_eq!(
            error,
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go \
             struct field configYAML.Config.heartbeat-interval of type uint"
        );
        for text in [
            "watch-progress-notify-interval: 5s",
            "pre-vote: 1",
            "name: {a: b}",
            "name: [",
            "heartbeat-interval: -1",
            "listen-client-urls: nonsense",
            "- a\n- b\n",
            "client-transport-security: 5",
            "discovery-config: {client: {auth: x}}",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
