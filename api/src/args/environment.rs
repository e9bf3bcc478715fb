//! `ETCD_*` variables: a flag's name in capitals, dashes as underscores.

use super::table;
use super::{ArgumentError, Given, Source, Values, value};

const PREFIX: &str = "ETCD_";

/// Variables that are no flags and still belong to an etcd environment.
const NOT_FLAGS: [&str; 2] = ["ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY"];

/// Adds what the environment sets to `values`; a setting given in both places is an error.
pub(super) fn merge(
    values: &mut Values,
    warnings: &mut Vec<String>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), ArgumentError> {
    let mut variables: Vec<(String, String)> =
        environment.into_iter().filter(|(key, _)| key.starts_with(PREFIX)).collect();
    variables.sort();
    for (key, text) in variables {
        let name = flag_name(&key);
        let Some(flag) = table::find(table::SERVER, &name).filter(|_| variable_name(&name) == key)
        else {
            if !NOT_FLAGS.contains(&key.as_str()) {
                warnings.push(format!("unrecognized environment variable {key}={text}"));
            }
            continue;
        };
        if values.contains_key(flag.name) {
            return Err(ArgumentError::Refused(format!(
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag): {key}"
            )));
        }
        // etcd treats an empty variable as absent.
        if text.is_empty() {
            continue;
        }
        let text = value::normal_form(flag.kind, &text).map_err(|error| {
            ArgumentError::Refused(format!("invalid value {text:?} for {key}: {error}"))
        })?;
        values.insert(flag.name, Given { text, source: Source::Environment });
    }
    Ok(())
}

fn flag_name(variable: &str) -> String {
    variable[PREFIX.len()..].to_ascii_lowercase().replace('_', "-")
}

/// The variable that sets a flag.
fn variable_name(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_ascii_uppercase().replace('-', "_"))
}
