//! Go's command-line forms, and no more: what the `flag` package accepts, with its error texts.

use super::table::{Flag, Kind};
use super::value;
use super::{ArgumentError, Given, Source, Values};

/// The command line taken apart.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) values: Values,
    /// Everything from the first argument that is not a flag.
    pub(super) positional: Vec<String>,
    /// `-h` or `--help` was met; nothing after it was read.
    pub(super) help: bool,
}

/// Reads flags until the first argument that is none, `--`, or `-h`.
pub(super) fn scan(
    arguments: &[String],
    find: &dyn Fn(&str) -> Option<&'static Flag>,
) -> Result<Scanned, ArgumentError> {
    let mut scanned = Scanned::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            scanned.positional.extend(rest.cloned());
            break;
        }
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            scanned.positional.push(argument.clone());
            scanned.positional.extend(rest.cloned());
            break;
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.starts_with(['-', '=']) {
            return usage(format!("bad flag syntax: {argument}"));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, text)) => (name, Some(text.to_owned())),
            None => (body, None),
        };
        let Some(flag) = find(name) else {
            if name == "h" || name == "help" {
                scanned.help = true;
                return Ok(scanned);
            }
            return usage(format!("flag provided but not defined: -{name}"));
        };
        let text = match (inline, flag.kind) {
            (Some(text), _) => text,
            (None, Kind::Bool | Kind::Ignored) => "true".to_owned(),
            (None, _) => match rest.next() {
                Some(text) => text.clone(),
                None => return usage(format!("flag needs an argument: -{name}")),
            },
        };
        let text = checked(flag, text)?;
        scanned.values.insert(flag.name, Given { text, source: Source::CommandLine });
    }
    Ok(scanned)
}

fn checked(flag: &Flag, text: String) -> Result<String, ArgumentError> {
    value::normal_form(flag.kind, &text).map_err(|error| {
        let name = flag.name;
        ArgumentError::Usage(match flag.kind {
            Kind::Bool => format!("invalid boolean value {text:?} for -{name}: {error}"),
            _ => format!("invalid value {text:?} for flag -{name}: {error}"),
        })
    })
}

fn usage<T>(message: String) -> Result<T, ArgumentError> {
    Err(ArgumentError::Usage(message))
}
