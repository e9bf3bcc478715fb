//! The `holdfast` program: reads what it is told, runs it, and says by its exit code how it ended.
//!
//! 0 is a clean end (also `--help` and `--version`), 2 a wrong command line, 1 anything else.

use std::process::ExitCode;

use holdfast::args::{self, ArgumentError, Invocation, help};
use holdfast::{dev, logging, program, util, version};
use tikv_jemallocator::Jemalloc;

/// Requests are taken by one thread and let go of by another, all the time.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let environment = std::env::vars_os()
        .filter_map(|(key, text)| Some((key.into_string().ok()?, text.into_string().ok()?)));
    match args::parse(&arguments, environment) {
        Ok(Invocation::Serve(settings)) => program::serve(&settings),
        Ok(Invocation::Development(settings)) => match dev::run(&settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("holdfast dev: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(Invocation::Util(task)) => util::run(&task),
        Ok(Invocation::UtilHelp) => print(&help::util()),
        Ok(Invocation::Help) => print(&help::server()),
        Ok(Invocation::DevelopmentHelp) => print(&help::development()),
        Ok(Invocation::Version) => print(&version::report()),
        Err(ArgumentError::Usage(message)) => {
            eprint!("{message}\n{}", help::USAGE);
            ExitCode::from(2)
        }
        Err(ArgumentError::Refused(message)) => {
            program::fatal(&logging::Options::default(), "failed to verify flags", &message)
        }
    }
}

/// A reader that closed the pipe early has seen what it wanted.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
