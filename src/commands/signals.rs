//! SIGINT and SIGTERM: the first asks for an orderly stop, the second ends the program.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Exit, Failure};

/// An orderly stop that takes longer than this is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sets `stop` at the first signal; at the second, or when stopping takes too long, ends the program.
///
/// Before `running` is set there is nothing to stop in good order, and the first signal ends the program.
///
/// # Errors
/// When the signals can't be taken over.
pub fn stop_on_signal(stop: Arc<AtomicBool>, running: Arc<AtomicBool>) -> Result<(), Failure> {
    let failure = |e: io::Error| Failure::new(Exit::Failure, format!("can't listen for signals: {e}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failure)?;
    let listen = move || {
        for _ in signals.forever() {
            ask_to_stop(&stop, &running);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop).map_err(failure)
}

/// Asks for an orderly stop once standard input ends: that of a process whose supervisor holds the other end, and is gone
/// or wants it to stop.
///
/// # Errors
/// When no thread can be started.
pub fn stop_at_end_of_input(stop: Arc<AtomicBool>, running: Arc<AtomicBool>) -> Result<(), Failure> {
    let listen = move || {
        let mut ignored = [0; 64];
        while io::stdin().read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
        // On a terminal the interrupt goes to this process too, and comes first.
        if !stop.load(Ordering::Relaxed) {
            ask_to_stop(&stop, &running);
        }
    };
    let failure = |e: io::Error| Failure::new(Exit::Failure, format!("can't listen for the supervisor: {e}"));
    std::thread::Builder::new().name("supervisor".to_owned()).spawn(listen).map(drop).map_err(failure)
}

fn ask_to_stop(stop: &Arc<AtomicBool>, running: &AtomicBool) {
    if !running.load(Ordering::Relaxed) {
        crate::logging::flush();
        crate::terminal::clear();
        std::process::exit(0);
    }
    if !stop_in_good_order(stop) {
        Exit::Failure.now("stopped at once, at the second signal");
    }
    crate::exit::expect_others_to_go();
}

/// Sets `stop`, and ends the program when stopping takes too long. Returns whether it was not set before.
pub fn stop_in_good_order(stop: &AtomicBool) -> bool {
    if stop.swap(true, Ordering::Relaxed) {
        return false;
    }
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        Exit::Failure.now(format!("an orderly stop took longer than {} s", PATIENCE.as_secs()));
    });
    true
}
