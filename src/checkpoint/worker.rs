//! A worker's part in taking checkpoints: between the loop that steps it, the capture, the process's writer and the coordinator.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use clicktide_dataflows::time::Tick;
use serde::{Deserialize, Serialize};
use timely::scheduling::Activator;

use super::ObjectRef;
use super::capture::CaptureShared;
use super::coordinator::{Coordinator, CoordinatorSettings, SavepointRequests, SharedCommitted, Taken};
use super::writer::{Command, Outcome};
use crate::progress::JobStart;

/// What the workers of a process need to take checkpoints.
pub struct Checkpoints {
    /// When they are taken, and in whose name.
    pub settings: CoordinatorSettings,
    /// What is committed, kept up to date by [`crate::pipeline::committed`].
    pub committed: SharedCommitted,
    /// The savepoints asked for.
    pub requests: SavepointRequests,
    /// This process.
    pub process: usize,
    /// To the process's writer.
    pub commands: Mutex<mpsc::Sender<Command>>,
    /// From it, taken by the process's first worker.
    pub outcomes: Mutex<Option<mpsc::Receiver<Outcome>>>,
}

impl Checkpoints {
    /// What leads to the process's writer.
    pub fn writer(&self) -> mpsc::Sender<Command> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What workers have to know of each other's checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum News {
    /// Worker 0 has begun one: what entered through this window end is to be written.
    Begun {
        /// Its number.
        number: u64,
        /// The window end.
        through: Tick,
    },
    /// What a process has written for it.
    Written {
        /// Its number.
        number: u64,
        /// The process.
        process: usize,
        /// The objects that are complete, in any case.
        objects: Vec<ObjectRef>,
        /// Why not all could be written.
        error: Option<String>,
    },
}

/// An orderly stop waits so long for the last checkpoint, which only saves time at the next start.
const LAST_CHECKPOINT_WAIT_MS: i64 = 8_000;
/// A worker's part in taking checkpoints.
pub struct WorkerCheckpoints {
    capture: Rc<RefCell<CaptureShared>>,
    capture_activator: Activator,
    writer: mpsc::Sender<Command>,
    /// In the first worker of each process.
    outcomes: Option<mpsc::Receiver<Outcome>>,
    /// In worker 0 alone.
    coordinator: Option<Coordinator>,
    process: usize,
    told_committed: Option<Tick>,
    /// Since when an orderly stop waits for the last checkpoint.
    last_ms: Option<i64>,
    /// Whether that one has been begun.
    last_begun: bool,
}

impl WorkerCheckpoints {
    /// The part of worker `index`; each process has `workers` of them.
    pub fn new(
        checkpoints: &Checkpoints,
        start: &JobStart,
        (index, workers): (usize, usize),
        now_ms: i64,
        capture: Rc<RefCell<CaptureShared>>,
        capture_activator: Activator,
    ) -> Self {
        let coordinator = || {
            let Checkpoints { settings, committed, requests, .. } = checkpoints;
            Coordinator::new(settings.clone(), start, Arc::clone(committed), requests.clone(), now_ms)
        };
        let first = index.is_multiple_of(workers);
        WorkerCheckpoints {
            capture,
            capture_activator,
            writer: checkpoints.writer(),
            outcomes: first.then(|| checkpoints.outcomes.lock().ok()?.take()).flatten(),
            coordinator: (index == 0).then(coordinator),
            process: checkpoints.process,
            told_committed: None,
            last_ms: None,
            last_begun: false,
        }
    }

    fn send(&self, command: Command) {
        // The writer is gone only when the process ends.
        self.writer.send(command).ok();
    }

    /// Takes in what the writer tells, and through which window end all is committed. Returns what all workers have to know;
    /// `ended` is told what has come of a checkpoint.
    pub fn turn(&mut self, committed: Option<Tick>, now_ms: i64, ended: &dyn Fn(&Result<Taken, String>)) -> Vec<News> {
        let mut news = Vec::new();
        for outcome in self.outcomes.iter().flat_map(|outcomes| outcomes.try_iter()) {
            match outcome {
                Outcome::Written { number, objects, error } => {
                    news.push(News::Written { number, process: self.process, objects, error });
                }
                Outcome::Finished { number, bytes } => {
                    let finished = self.coordinator.as_mut().map(|own| own.finished(number, bytes, now_ms));
                    if let Some(outcome) = finished.and_then(Result::transpose) {
                        ended(&outcome);
                    }
                }
            }
        }
        if self.outcomes.is_some() && self.told_committed != committed {
            self.told_committed = committed;
            committed.into_iter().for_each(|through| self.send(Command::Committed(through)));
        }
        let begun = self.coordinator.as_mut().and_then(|coordinator| coordinator.begin(now_ms, false));
        news.extend(begun.map(|(number, through)| News::Begun { number, through }));
        news
    }

    /// Takes in what a worker had to say.
    pub fn heard(&mut self, news: News, now_ms: i64, ended: &dyn Fn(&Result<Taken, String>)) {
        match (news, &mut self.coordinator) {
            (News::Begun { number, through }, _) => {
                self.capture.borrow_mut().wanted = Some((number, through));
                self.capture_activator.activate();
            }
            (News::Written { number, process, objects, error }, Some(coordinator)) => {
                match coordinator.written(number, process, objects, error, now_ms) {
                    Ok(finish) => finish.into_iter().for_each(|finish| self.send(finish)),
                    Err(reason) => ended(&Err(reason)),
                }
            }
            (News::Written { .. }, None) => {}
        }
    }

    /// In worker 0, when all that was complete is committed: whether the last checkpoint is done, or given up. The first
    /// time it may have to be begun.
    pub fn last(&mut self, now_ms: i64) -> (bool, Option<News>) {
        let Some(coordinator) = &mut self.coordinator else { return (true, None) };
        // Also where one is under way: before a run has read again what it has to, none can be finished.
        let since_ms = *self.last_ms.get_or_insert(now_ms);
        let begun = if self.last_begun || coordinator.busy() {
            None
        } else {
            self.last_begun = true;
            coordinator.begin(now_ms, true)
        };
        let done = (self.last_begun && !coordinator.busy()) || now_ms - since_ms >= LAST_CHECKPOINT_WAIT_MS;
        (done, begun.map(|(number, through)| News::Begun { number, through }))
    }
}
