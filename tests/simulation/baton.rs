//! A pace at which one worker at a time does something, and only when it is told to.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clicktide::pipeline::{Ended, Pace};

/// Whoever has the baton takes its turns; everybody else waits.
pub struct Baton {
    state: Mutex<State>,
    /// One for each worker, and the last for whoever hands out the baton.
    changed: Vec<Condvar>,
}

struct State {
    /// Who has the baton, and for how many turns more.
    granted: Option<(usize, u32)>,
    ready: Vec<bool>,
    ended: Vec<Option<Ended>>,
    killed: bool,
}

/// A worker that takes longer for its turns hangs, or its thread has panicked.
const PATIENCE: Duration = Duration::from_secs(60);

impl Baton {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Baton {
            state: Mutex::new(State {
                granted: None,
                ready: vec![false; workers],
                ended: vec![None; workers],
                killed: false,
            }),
            changed: (0..=workers).map(|_| Condvar::new()).collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self) -> &Condvar {
        self.changed.last().expect("one more than there are workers")
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, what: &str) -> MutexGuard<'a, State> {
        let (state, timeout) = self.sender().wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{what} does not come back");
        state
    }

    /// Waits until all workers want a turn: before that, their threads are being started.
    pub fn assemble(&self) {
        let mut state = self.state();
        while !state.ready.iter().all(|ready| *ready) {
            state = self.wait(state, "a starting worker");
        }
    }

    /// Has a worker take so many turns, if it has not ended; returns how it has ended.
    pub fn give(&self, worker: usize, turns: u32) -> Option<Ended> {
        let mut state = self.state();
        if state.ended[worker].is_none() {
            state.granted = Some((worker, turns));
            self.changed[worker].notify_one();
            while state.granted.is_some() && state.ended[worker].is_none() {
                state = self.wait(state, "a worker");
            }
            state.granted = None;
        }
        state.ended[worker]
    }

    /// Ends all workers where they are.
    pub fn kill(&self) {
        self.state().killed = true;
        self.changed.iter().for_each(Condvar::notify_one);
    }
}

impl Pace for Baton {
    fn turn(&self, worker: usize) -> Option<Duration> {
        let mut state = self.state();
        match &mut state.granted {
            Some((granted, turns)) if *granted == worker && *turns > 0 => {
                *turns -= 1;
                return Some(Duration::ZERO);
            }
            Some((granted, _)) if *granted == worker => state.granted = None,
            _ => {}
        }
        state.ready[worker] = true;
        self.sender().notify_one();
        while !state.killed {
            if let Some((granted, turns)) = &mut state.granted
                && *granted == worker
            {
                *turns -= 1;
                return Some(Duration::ZERO);
            }
            state = self.changed[worker].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn ended(&self, worker: usize, ended: Ended) {
        self.state().ended[worker] = Some(ended);
        self.sender().notify_one();
    }
}
