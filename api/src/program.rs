//! A member as a process: settings to configuration, log, server, signals, exit code.

use std::process::ExitCode;

use crate::args::Settings;
use crate::config::Config;
use crate::logging::{self, Format};
use crate::{dev, version};

/// Runs a member until it is asked to stop or cannot go on.
pub fn serve(settings: &Settings) -> ExitCode {
    let options = log_options(settings);
    if let Err(error) = logging::start(&options) {
        return fatal(&logging::Options::default(), "failed to open the log", &error.to_string());
    }
    if let Err(error) = dev::follow_parent() {
        return fatal(&options, "failed to follow the local cluster", &error.to_string());
    }
    let (config, warnings) = match Config::resolve(settings) {
        Ok(resolved) => resolved,
        Err(error) => return fatal(&options, "failed to verify flags", &error.to_string()),
    };
    for warning in settings.warnings().iter().chain(&warnings) {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        etcd_version = version::ETCD_VERSION,
        version = version::HOLDFAST_VERSION,
        name = config.name,
        data_dir = %config.data_directory.display(),
        "starting"
    );
    run(config, &options)
}

fn run(_config: Config, options: &logging::Options) -> ExitCode {
    fatal(options, "failed to start", "the server is not joined to this program yet")
}

/// Logs why this process ends, and gives the exit code for it.
pub fn fatal(log: &logging::Options, what: &str, error: &str) -> ExitCode {
    if logging::start(log).is_err() {
        eprintln!("{what}: {error}");
    }
    tracing::error!(fatal = true, error, "{what}");
    ExitCode::FAILURE
}

fn log_options(settings: &Settings) -> logging::Options {
    logging::Options {
        level: settings.text("log-level").to_owned(),
        format: match settings.text("log-format") {
            "console" => Format::Console,
            _ => Format::Json,
        },
        outputs: settings.list("log-outputs").into_iter().map(ToOwned::to_owned).collect(),
    }
}
