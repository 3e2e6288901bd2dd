//! The parts of the simulation.

pub mod baton;
pub mod incarnation;
pub mod log;
pub mod oracle;
pub mod plan;
pub mod records;
pub mod run;
pub mod script;
pub mod shelf;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use plan::Fault;
use run::{Failure, run_seed};

/// A number in the environment.
pub fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs seeds on all cores until one fails: the least of those that have.
pub fn first_failure(seeds: Range<u64>, fault: Fault) -> Option<(u64, Failure)> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let found: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    // A seed mostly waits for one thread to hand over to another.
    let threads = 2 * thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let (Err(failure), _) = run_seed(seed, fault) {
                        failed.store(true, Ordering::Relaxed);
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(least, _)| seed < *least) {
                            *found = Some((seed, failure));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}
