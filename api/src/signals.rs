//! SIGTERM and SIGINT: the first asks the member to stop, the second ends the process at once.

use std::io;
use std::process;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a shell reports for a process that a signal ended: 128 and the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Calls `stop` with the signal's name at the first signal, from a thread of its own.
pub fn on_stop(stop: impl FnOnce(&'static str) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stop = Some(stop);
        for signal in signals.forever() {
            match stop.take() {
                // On a thread of its own: it may take as long as handing over leadership does.
                Some(stop) => drop(thread::spawn(move || stop(name(signal)))),
                None => process::exit(SIGNAL_EXIT_BASE + signal),
            }
        }
    })?;
    Ok(())
}

fn name(signal: i32) -> &'static str {
    if signal == SIGINT { "interrupt" } else { "terminated" }
}
