//! What time it is, and waiting: handed in, so that tests choose both.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

/// A clock that never goes back, with its relation to the wall clock.
pub trait Clock {
    /// The time since the clock's origin.
    fn now(&self) -> Duration;

    /// The wall-clock time of the origin, ms since the epoch.
    fn origin_ms(&self) -> i64;

    /// Waits for at least `duration`.
    fn sleep(&self, duration: Duration);
}

/// The clock of the machine, whose origin is when it was made.
///
/// The wall clock is read once: if it is set later on, the generator's timestamps do not jump.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
    origin_ms: i64,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SystemClock { origin: Instant::now(), origin_ms: since_epoch.as_millis() as i64 }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn origin_ms(&self) -> i64 {
        self.origin_ms
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that goes on only while somebody waits, and then at once: a run takes as long as its events do.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    origin_ms: i64,
    now: Cell<Duration>,
}

impl VirtualClock {
    /// A clock that begins at a time, ms since the epoch.
    pub fn new(origin_ms: i64) -> Self {
        VirtualClock { origin_ms, now: Cell::new(Duration::ZERO) }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn origin_ms(&self) -> i64 {
        self.origin_ms
    }

    fn sleep(&self, duration: Duration) {
        self.now.set(self.now.get() + duration);
    }
}
