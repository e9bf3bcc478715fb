//! A member as a process: settings to configuration, log, server, signals, exit code.

use std::io;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use holdfast_raft::Seams;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::args::Settings;
use crate::config::Config;
use crate::logging::{self, Format};
use crate::server::{Exit, Server, Stopper};
use crate::{dev, signals, version};

/// Runs a member until it is asked to stop or cannot go on.
pub fn serve(settings: &Settings) -> ExitCode {
    let options = log_options(settings);
    if let Err(error) = logging::start(&options) {
        return fatal(&logging::Options::default(), "failed to open the log", &error.to_string());
    }
    if let Err(error) = dev::follow_parent() {
        return fatal(&options, "failed to follow the local cluster", &error.to_string());
    }
    if let Err(error) = raise_descriptors() {
        tracing::warn!(%error, "the limit of open files cannot be raised");
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

/// Raises the number of files and connections that may be open to what the system permits, as Go
/// does: the usual 1,024 are fewer than the connections that one kind of listener looks at.
fn raise_descriptors() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// From the first signal on the server stops by itself; one that comes before it runs finds nothing
/// acknowledged and ends the process.
fn run(config: Config, options: &logging::Options) -> ExitCode {
    let stopper: Arc<OnceLock<Stopper>> = Arc::default();
    let stoppable = Arc::clone(&stopper);
    let signals = signals::on_stop(move |signal| {
        tracing::info!(signal, "received signal; shutting down");
        match stoppable.get() {
            Some(stopper) => stopper.stop(),
            None => std::process::exit(0),
        }
    });
    if let Err(error) = signals {
        return fatal(options, "failed to handle signals", &error.to_string());
    }
    let server = match Server::start(config.into_server(), Seams::real()) {
        Ok(server) => server,
        Err(error) => return fatal(options, "failed to start", &error.to_string()),
    };
    // Nobody else sets it.
    let _ = stopper.set(server.stopper());
    match server.wait() {
        Exit::Stopped => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Exit::Fatal(reason) => {
            fatal(options, "this member cannot go on", &reason.to_string());
            // Its threads may never end; what is on disk is all that counts now.
            std::process::exit(1)
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_descriptors_that_the_system_permits_are_used() {
        raise_descriptors().expect("raised");
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
