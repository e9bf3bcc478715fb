//! SIGTERM and SIGINT: the first asks for a clean stop, a later one ends the process at once.

use std::io;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a shell reports for a process that a signal ended: 128 and the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// A signal this soon after the first is the same one: `timeout`, for one, sends it to the process
/// and then to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Calls `stop` with the signal's name at the first signal, from a thread of its own.
pub fn on_stop(stop: impl FnOnce(&'static str) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stop = Some(stop);
        let mut first = Instant::now();
        for signal in signals.forever() {
            match stop.take() {
                // On a thread of its own: it may take as long as handing over leadership does.
                Some(stop) => {
                    first = Instant::now();
                    drop(thread::spawn(move || stop(name(signal))));
                }
                None if first.elapsed() < SAME_SIGNAL => {}
                None => process::exit(SIGNAL_EXIT_BASE + signal),
            }
        }
    })?;
    Ok(())
}

fn name(signal: i32) -> &'static str {
    if signal == SIGINT { "interrupt" } else { "terminated" }
}
