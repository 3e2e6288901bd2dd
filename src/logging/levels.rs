//! Which lines there are, changed while the program runs: in process 0, which tells the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use super::{Below, LoggingError, line};

/// The levels that count now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Levels {
    /// The filter, in tracing's syntax.
    pub filter: String,
    /// The one that the program was started with.
    pub configured: String,
    /// When that one counts again, ms since the epoch; none: not by itself.
    pub until_ms: Option<i64>,
}

struct Switch {
    handle: Handle<EnvFilter, Below>,
    state: Mutex<State>,
    /// Whether there is something to tell, so that whoever asks often asks cheaply.
    news: AtomicBool,
}

struct State {
    filter: String,
    configured: String,
    until: Option<(Instant, i64)>,
}

static SWITCH: OnceLock<Switch> = OnceLock::new();

pub(super) fn install(handle: Handle<EnvFilter, Below>, configured: String) {
    let state = Mutex::new(State { filter: configured.clone(), configured, until: None });
    SWITCH.set(Switch { handle, state, news: AtomicBool::new(false) }).ok();
}

pub(super) fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder().parse(filter).map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })
}

/// Whether [`init`](super::init) and [`change_levels`] would take `filter`.
///
/// # Errors
///
/// When the filter cannot be parsed.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse_filter(filter).map(drop)
}

/// The levels that count now.
///
/// # Errors
/// When logging is not set up.
pub fn levels() -> Result<Levels, LoggingError> {
    let switch = SWITCH.get().ok_or(LoggingError::NotSetUp)?;
    Ok(switch.state().levels())
}

/// Has `filter` count from now on, in this process and, through [`levels_to_tell`], in the others; if there is a `period`, until
/// that is over.
///
/// # Errors
/// When the filter can't be parsed, or logging is not set up.
pub fn change_levels(filter: &str, period: Option<Duration>) -> Result<Levels, LoggingError> {
    let switch = SWITCH.get().ok_or(LoggingError::NotSetUp)?;
    let mut state = switch.state();
    switch.apply(&mut state, filter)?;
    state.until = period.map(|period| (Instant::now() + period, ms_since_epoch(SystemTime::now() + period)));
    switch.news.store(true, Ordering::Release);
    Ok(state.levels())
}

/// The filter that the other processes have to be told of, once.
pub fn levels_to_tell() -> Option<String> {
    let switch = SWITCH.get()?;
    // Looked at first, as a worker asks in each of its turns.
    if !switch.news.load(Ordering::Acquire) || !switch.news.swap(false, Ordering::AcqRel) {
        return None;
    }
    Some(switch.state().filter.clone())
}

/// Does as process 0 has told.
pub fn follow_levels(filter: &str) {
    let Some(switch) = SWITCH.get().filter(|_| line::process() != Some(0)) else { return };
    let mut state = switch.state();
    // Every worker of this process hears of it.
    if state.filter != filter {
        // Process 0 has parsed it.
        switch.apply(&mut state, filter).ok();
    }
}

/// Has the configured levels count again when the time of others is over.
pub(super) fn restore_if_due() {
    let Some(switch) = SWITCH.get() else { return };
    let mut state = switch.state();
    if state.until.is_some_and(|(until, _)| until <= Instant::now()) {
        state.until = None;
        let configured = state.configured.clone();
        // It was parsed at the start.
        switch.apply(&mut state, &configured).ok();
        switch.news.store(true, Ordering::Release);
    }
}

impl Switch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, state: &mut State, filter: &str) -> Result<(), LoggingError> {
        let parsed = parse_filter(filter)?;
        self.handle.reload(parsed).map_err(|_| LoggingError::NotSetUp)?;
        filter.clone_into(&mut state.filter);
        tracing::info!(filter, "the log levels are changed");
        Ok(())
    }
}

impl State {
    fn levels(&self) -> Levels {
        let State { filter, configured, until } = self;
        Levels { filter: filter.clone(), configured: configured.clone(), until_ms: until.map(|(_, ms)| ms) }
    }
}

fn ms_since_epoch(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |filter: &str, valid: bool| assert_eq!(check_filter(filter).is_ok(), valid, "{filter:?}");
        check("info", true);
        check("info,clicktide::http=debug", true);
        check("warn,timely=off", true);
        check("clicktide=loud", false);
        check("a=b=c", false);
    }
}
