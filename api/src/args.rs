//! The command line and the environment, as etcd reads them.
//!
//! Flags come in Go's forms (`-name x`, `--name=x`, a bare `--flag` for a boolean); each has one
//! row in [`table`]. The result is the text of every setting, already checked against its kind;
//! what settings mean together is `config.rs`.

use std::collections::BTreeMap;

mod environment;
mod file;
mod go;
pub mod help;
mod settings;
pub mod table;
mod util;
pub mod value;

pub use settings::{Settings, Source};
pub use value::{parse_duration, parse_gates};

use table::{Effect, Flag};

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a member.
    Serve(Settings),
    /// Run a local cluster of members.
    Development(Settings),
    /// Do something with files.
    Util(crate::util::Task),
    /// Print the help of the program.
    Help,
    /// Print the help of `holdfast dev`.
    DevelopmentHelp,
    /// Print the help of `holdfast util`.
    UtilHelp,
    /// Print the versions.
    Version,
}

/// Why there is nothing to run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The command line itself is wrong: exit code 2, the message and the usage on stderr.
    #[error("{0}")]
    Usage(String),
    /// The command line is well formed but asks for something impossible: exit code 1.
    #[error("{0}")]
    Refused(String),
}

/// Reads the arguments (without the program's name) and the environment.
pub fn parse(
    arguments: &[String],
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation, ArgumentError> {
    match arguments.first().map(String::as_str) {
        Some("help") => Ok(Invocation::Help),
        Some("dev") => development(&arguments[1..]),
        Some("util") => Ok(match util::parse(&arguments[1..])? {
            Some(task) => Invocation::Util(task),
            None => Invocation::UtilHelp,
        }),
        Some(command @ ("gateway" | "grpc-proxy")) => Err(ArgumentError::Refused(format!(
            "the {command:?} command is not built yet; etcd's own {command} works with this server"
        ))),
        _ => serve(arguments, environment),
    }
}

fn development(arguments: &[String]) -> Result<Invocation, ArgumentError> {
    let scanned = go::scan(arguments, &|name| table::find(table::DEVELOPMENT, name))?;
    if scanned.help {
        return Ok(Invocation::DevelopmentHelp);
    }
    refuse_positional(&scanned.positional)?;
    Ok(Invocation::Development(Settings::new(table::DEVELOPMENT, scanned.values)))
}

fn serve(
    arguments: &[String],
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation, ArgumentError> {
    let scanned = go::scan(arguments, &|name| table::find(table::SERVER, name))?;
    if scanned.help {
        return Ok(Invocation::Help);
    }
    if scanned.values.iter().any(|(name, value)| *name == "version" && value.text == "true") {
        return Ok(Invocation::Version);
    }
    refuse_positional(&scanned.positional)?;
    let mut warnings = Vec::new();
    let mut values = scanned.values;
    let environment: Vec<(String, String)> = environment.into_iter().collect();
    match config_file(&values, &environment) {
        Some(path) => values = file::load(&path, &mut warnings)?,
        None => environment::merge(&mut values, &mut warnings, environment)?,
    }
    resolve_effects(&mut values, &mut warnings)?;
    Ok(Invocation::Serve(Settings::new(table::SERVER, values).with_warnings(warnings)))
}

/// The file that takes the place of flags and variables, if there is to be one.
fn config_file(values: &Values, environment: &[(String, String)]) -> Option<String> {
    let variable = || environment.iter().find(|(key, _)| key == "ETCD_CONFIG_FILE");
    let flag = values.get("config-file").map(|given| given.text.clone());
    flag.filter(|path| !path.is_empty())
        .or_else(|| variable().map(|(_, path)| path.clone()).filter(|path| !path.is_empty()))
}

fn refuse_positional(positional: &[String]) -> Result<(), ArgumentError> {
    match positional.first() {
        Some(argument) => Err(ArgumentError::Refused(format!("{argument:?} is not a valid flag"))),
        None => Ok(()),
    }
}

/// The text given for a flag, and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The text, valid for the flag's kind.
    pub text: String,
    /// Command line, environment, or file.
    pub source: Source,
}

/// Everything given, by flag name.
type Values = BTreeMap<&'static str, Given>;

/// Turns old names into new ones, warns about what has no effect, refuses what must not be ignored.
fn resolve_effects(values: &mut Values, warnings: &mut Vec<String>) -> Result<(), ArgumentError> {
    let given: Vec<(&'static Flag, Given)> = values
        .iter()
        .filter_map(|(name, given)| Some((table::find(table::SERVER, name)?, given.clone())))
        .collect();
    for (flag, given) in given {
        let name = flag.name;
        let differs = given.text != flag.default;
        match flag.effect {
            Effect::Works => {}
            Effect::Alias(new) => {
                warnings.push(format!("--{name} is deprecated, use --{new} instead"));
                values.entry(new).or_insert(given);
            }
            Effect::None(_) if !differs => {}
            Effect::None(why) => warnings.push(format!("--{name} has no effect: {why}")),
            Effect::Removed => {
                warnings.push(format!("--{name} is no longer supported and is ignored"));
            }
            Effect::Refused(_) if !differs => {}
            Effect::Refused(why) => {
                return Err(ArgumentError::Refused(format!(
                    "--{name} cannot be honoured and is not safe to ignore: {why}"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
