//! The committer: what is complete leaves the dataflow, in one worker, one transaction after another.
//!
//! ```text
//!  results ─┐                                                      ┌▶ the log: results, dead letters, sanitised events,
//!           ├─▶ commit (single worker) ──epochs──▶ its own thread ─┤   idle advances, progress: one transaction
//!  notes ───┘        ▲ capability: the first                       └▶ whoever watches (the HTTP view)
//!                    └─ uncommitted tick ◀──── acknowledgement
//! ```
//!
//! The operator holds a capability at the first tick that is not committed, so that a probe behind it shows every worker
//! what is. I/O happens on a thread of its own; an operator never blocks.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Instant;

use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::{Tick, Windows};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::scheduling::SyncActivator;

use crate::checkpoint::ResumePoint;
use crate::exit::Exit;
use crate::progress::{IdleAdvance, JobState, PartitionCut, Progress};
use crate::source::{DeadLetter, Note, SanitisedRecord};

/// All that becomes final at once.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Every window that ends at or before this is final with the epoch; none if no window ever closed.
    pub through: Option<Tick>,
    /// Whether nothing follows.
    pub finished: bool,
    /// The results of each window, in order of their ends.
    pub windows: Vec<ClosedTick>,
    /// The records that did not count, of ticks up to `through`.
    pub dead_letters: Vec<DeadLetter>,
    /// The valid events of such ticks without their personal data, if they are wanted.
    pub sanitised: Vec<SanitisedRecord>,
    /// The parts of the input cut that have changed.
    pub cuts: Vec<PartitionCut>,
    /// Where each partition whose part has changed can be read on without what entered up to `through`.
    pub resume: Vec<ResumePoint>,
    /// The floors set by idleness that the results may depend on.
    pub idle_advances: Vec<IdleAdvance>,
}

/// The results of one window.
#[derive(Clone, Debug)]
pub struct ClosedTick {
    /// The window's end.
    pub end: Tick,
    /// One result per page with an event in the window.
    pub results: Vec<PageAnalytics>,
    /// When the job's watermark passed the window's end.
    pub closed: Instant,
    /// When the last of the results was there.
    pub computed: Instant,
}

impl Epoch {
    /// Takes in the epoch that follows.
    fn absorb(&mut self, next: Epoch) {
        self.through = next.through.max(self.through);
        self.finished |= next.finished;
        self.windows.extend(next.windows);
        self.dead_letters.extend(next.dead_letters);
        self.sanitised.extend(next.sanitised);
        self.cuts.extend(next.cuts);
        self.resume.extend(next.resume);
        self.idle_advances.extend(next.idle_advances);
    }

    /// Brings `progress` to where this epoch ends.
    pub fn record_in(&self, progress: &mut Progress) {
        progress.committed_through = self.through.map(|tick| tick.0);
        if self.finished {
            progress.state = JobState::Finished;
        }
        for cut in &self.cuts {
            match progress.input.iter_mut().find(|known| known.partition == cut.partition) {
                Some(known) => *known = *cut,
                None => progress.input.push(*cut),
            }
        }
    }

    /// Results and sanitised events.
    fn records(&self) -> usize {
        self.windows.iter().map(|window| window.results.len()).sum::<usize>() + self.sanitised.len()
    }
}

/// Makes epochs final.
pub trait CommitEpoch: Send {
    /// Makes all of `epoch` visible at once, or nothing of it.
    ///
    /// # Errors
    /// See [`CommitError`]; after an error nothing more may be committed by this run.
    fn commit(&mut self, epoch: &Epoch) -> Result<(), CommitError>;
}

/// Why an epoch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it is visible.
    #[error("the commit failed: {0}")]
    Failed(String),
    /// Nothing of it is visible, and never will be so: this is not allowed.
    #[error("the commit is not allowed: {0}")]
    Denied(String),
    /// It may be visible or not; the next start finds out from the progress that is.
    #[error("the outcome of a commit is unknown: {0}")]
    Unknown(String),
    /// Another run of the same job has taken over.
    #[error("another run of this job has taken over: {0}")]
    Fenced(String),
}

impl CommitError {
    /// How the program ends for it.
    pub fn exit(&self) -> Exit {
        match self {
            CommitError::Failed(_) => Exit::Kafka,
            CommitError::Denied(_) => Exit::Denied,
            CommitError::Unknown(_) => Exit::CommitUnknown,
            CommitError::Fenced(_) => Exit::Fenced,
        }
    }
}

/// What the operator shares with the loop that steps its worker.
#[derive(Debug, Default)]
pub struct CommitterShared {
    /// Why committing has ended, if it has.
    pub error: Option<CommitError>,
    /// Set once all that was complete at the stop has been committed.
    pub sealed: bool,
    commands: Option<mpsc::Sender<Command>>,
}

impl CommitterShared {
    /// Has what is complete committed, and nothing after it; `sealed` says when that is done.
    pub fn seal(&mut self) {
        // No thread, nothing to wait for.
        self.sealed |= self.commands.take().is_none_or(|commands| commands.send(Command::Seal).is_err());
    }
}

/// What is told to the committing thread.
pub enum Command {
    /// To be committed.
    Commit(Box<Epoch>),
    /// Nothing that follows is to be committed.
    Seal,
}

/// What the committing thread tells.
pub enum Outcome {
    /// Committed up to here.
    Committed(Option<Tick>),
    /// Not committed.
    Failed(CommitError),
    /// All commands before the seal were carried out.
    Sealed,
}

/// No tick is added to a transaction that has so many results and sanitised events, so that a backlog is committed in steps.
const RECORDS_PER_COMMIT_MAX: usize = 50_000;

/// The committing thread's end of the channels to the operator, and what it commits to.
pub struct Committing {
    commands: mpsc::Receiver<Command>,
    outcomes: mpsc::Sender<Outcome>,
    activator: SyncActivator,
    sink: Box<dyn CommitEpoch>,
    committed: Box<dyn FnMut(Epoch) + Send>,
}

impl Committing {
    /// Connects an operator, which `activator` wakes, with `sink`. `committed` sees each epoch once it is final.
    ///
    /// Also returns the operator's ends of the channels.
    pub fn new(
        activator: SyncActivator,
        sink: Box<dyn CommitEpoch>,
        committed: Box<dyn FnMut(Epoch) + Send>,
    ) -> (Self, CommitterEnds) {
        let (to_do, commands) = mpsc::channel();
        let (outcomes, done) = mpsc::channel();
        (Committing { commands, outcomes, activator, sink, committed }, (to_do, done))
    }

    /// Carries out commands until the seal, the end of the commands or an error: the body of the committing thread.
    pub fn run(mut self) {
        while let Ok(command) = self.commands.recv()
            && self.carry_out(command)
        {}
    }

    /// Carries out what is waiting, without waiting for more: whether more may follow, if there was anything. For whoever
    /// has no thread for it.
    pub fn run_waiting(&mut self) -> Option<bool> {
        let command = self.commands.try_recv().ok()?;
        Some(self.carry_out(command))
    }

    /// Carries out a command and those that wait behind it, as far as they go together; whether more may follow.
    fn carry_out(&mut self, command: Command) -> bool {
        let Command::Commit(mut epoch) = command else {
            self.tell(Outcome::Sealed);
            return false;
        };
        let mut sealed = false;
        while epoch.records() < RECORDS_PER_COMMIT_MAX && !sealed {
            match self.commands.try_recv() {
                Ok(Command::Commit(next)) => epoch.absorb(*next),
                Ok(Command::Seal) => sealed = true,
                Err(_) => break,
            }
        }
        match self.sink.commit(&epoch) {
            Ok(()) => {
                let through = epoch.through;
                (self.committed)(*epoch);
                self.tell(Outcome::Committed(through));
            }
            Err(error) => {
                self.tell(Outcome::Failed(error));
                return false;
            }
        }
        if sealed {
            self.tell(Outcome::Sealed);
        }
        !sealed
    }

    fn tell(&self, outcome: Outcome) {
        // The operator is gone only when the process ends.
        if self.outcomes.send(outcome).is_ok() {
            self.activator.activate().ok();
        }
    }
}

/// The operator's ends of the channels to the committing thread.
pub type CommitterEnds = (mpsc::Sender<Command>, mpsc::Receiver<Outcome>);

/// Starts the committing, given what wakes the operator.
pub type StartCommitter = Box<dyn FnOnce(SyncActivator) -> CommitterEnds + Send>;

/// Has epochs committed to `sink` on a thread of their own; `committed` sees each once it is final.
pub fn committing_thread(sink: Box<dyn CommitEpoch>, committed: Box<dyn FnMut(Epoch) + Send>) -> StartCommitter {
    Box::new(move |activator| {
        let (committing, ends) = Committing::new(activator, sink, committed);
        let failed = committing.outcomes.clone();
        let started = std::thread::Builder::new().name("committer".to_owned()).spawn(move || committing.run());
        if let Err(error) = started {
            let error = CommitError::Failed(format!("can't start the committing thread: {error}"));
            failed.send(Outcome::Failed(error)).ok();
        }
        ends
    })
}

/// Hands over every tick that is complete, in order, and follows what has been committed.
///
/// In: results and notes of all workers. Out: nothing but a frontier: what has been committed. `start` is given in worker 0
/// alone; `resumed` is what earlier runs have committed, which is computed again and not handed over. Keeps the results of
/// ticks that are not complete.
pub fn commit<'scope>(
    results: Stream<'scope, Tick, Vec<PageAnalytics>>,
    notes: Stream<'scope, Tick, Vec<Note>>,
    windows: Windows,
    resumed: Option<Tick>,
    start: Option<StartCommitter>,
    shared: Rc<RefCell<CommitterShared>>,
) -> Stream<'scope, Tick, Vec<()>> {
    let scope = results.scope();
    let to_first = Exchange::new(|_: &PageAnalytics| 0);
    let notes_to_first = Exchange::new(|_: &Note| 0);
    results.binary_frontier::<_, CapacityContainerBuilder<Vec<()>>, _, _, _, _>(
        notes,
        to_first,
        notes_to_first,
        "commit",
        move |capability, info| {
            let mut thread = start.map(|start| {
                let (commands, outcomes) = start(scope.worker().sync_activator_for(info.address.to_vec()));
                shared.borrow_mut().commands = Some(commands.clone());
                (commands, outcomes, capability)
            });
            let mut pending = Pending::new(windows, resumed);
            move |(results, results_frontier), (notes, notes_frontier), _output| {
                results.for_each(|_, results| pending.results(results.drain(..)));
                notes.for_each(|_, notes| pending.notes(notes.drain(..)));
                let Some((commands, outcomes, held)) = &mut thread else { return };

                let notes_frontier = notes_frontier.frontier().first().copied();
                let frontier = results_frontier.frontier().first().copied().into_iter().chain(notes_frontier).min();
                pending.closed(notes_frontier);
                while let Some(epoch) = pending.complete(frontier) {
                    // A thread that is gone has said why, or was sealed.
                    commands.send(Command::Commit(Box::new(epoch))).ok();
                }
                for outcome in outcomes.try_iter() {
                    match outcome {
                        Outcome::Committed(through) => pending.acknowledged(through),
                        Outcome::Failed(error) => shared.borrow_mut().error = Some(error),
                        Outcome::Sealed => shared.borrow_mut().sealed = true,
                    }
                }
                match pending.first_uncommitted(frontier) {
                    Some(first) => downgrade(held, first),
                    None => thread = None,
                }
            }
        },
    )
}

fn downgrade(held: &mut Capability<Tick>, first: Tick) {
    if *held.time() < first {
        held.downgrade(&first);
    }
}

/// What has come and is not complete, and what is complete and not committed.
struct Pending {
    windows: Windows,
    /// What this and earlier runs have handed over.
    handed_over: Option<Tick>,
    finished: bool,
    results: BTreeMap<Tick, Vec<PageAnalytics>>,
    dead_letters: BTreeMap<Tick, Vec<DeadLetter>>,
    sanitised: BTreeMap<Tick, Vec<SanitisedRecord>>,
    /// Changes of the input cut, by the tick from which they hold.
    cuts: BTreeMap<Tick, Vec<PartitionCut>>,
    resume: BTreeMap<Tick, Vec<ResumePoint>>,
    idle_advances: BTreeMap<Tick, Vec<IdleAdvance>>,
    /// When the job's watermark reached a tick.
    reached: VecDeque<(Tick, Instant)>,
    unacknowledged: VecDeque<Option<Tick>>,
    /// Through which tick all that was handed over has been committed.
    acknowledged: Option<Tick>,
}

impl Pending {
    fn new(windows: Windows, resumed: Option<Tick>) -> Self {
        Pending {
            windows,
            handed_over: resumed,
            finished: false,
            results: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            sanitised: BTreeMap::new(),
            cuts: BTreeMap::new(),
            resume: BTreeMap::new(),
            idle_advances: BTreeMap::new(),
            reached: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            acknowledged: None,
        }
    }

    fn results(&mut self, results: impl Iterator<Item = PageAnalytics>) {
        for result in results {
            let end = Tick(result.window_end);
            if Some(end) > self.handed_over {
                self.results.entry(end).or_default().push(result);
            }
        }
    }

    fn notes(&mut self, notes: impl Iterator<Item = Note>) {
        for note in notes {
            match note {
                Note::DeadLetter(DeadLetter { tick, .. }) | Note::Sanitised(SanitisedRecord { tick, .. })
                    if self.handed_over.is_some_and(|through| tick <= through) => {}
                Note::DeadLetter(letter) => self.dead_letters.entry(letter.tick).or_default().push(letter),
                Note::Sanitised(event) => self.sanitised.entry(event.tick).or_default().push(event),
                Note::Closed { tick, cut, resume, idle_advance } => {
                    self.cuts.entry(tick).or_default().push(cut);
                    self.resume.entry(tick).or_default().push(resume);
                    self.idle_advances.entry(tick).or_default().extend(idle_advance);
                }
            }
        }
    }

    /// Notes that the job's watermark has reached `frontier`.
    fn closed(&mut self, frontier: Option<Tick>) {
        let frontier = frontier.unwrap_or(Tick::NEVER);
        if self.reached.back().is_none_or(|(last, _)| *last < frontier) {
            self.reached.push_back((frontier, Instant::now()));
        }
    }

    /// The next part of what has become complete now that all ticks before `frontier` are; of all there is if there is no frontier.
    fn complete(&mut self, frontier: Option<Tick>) -> Option<Epoch> {
        let frontier = self.part_of(frontier).or(frontier);
        let through = match frontier {
            Some(Tick::MIN) => return None,
            Some(frontier) => Some(self.windows.previous(frontier)).max(self.handed_over),
            None if self.finished => return None,
            None => {
                let last_result = self.results.last_key_value().map(|(tick, _)| *tick);
                let last_letter = self.dead_letters.last_key_value().map(|(tick, _)| *tick);
                let last_event = self.sanitised.last_key_value().map(|(tick, _)| *tick);
                last_result.max(last_letter).max(last_event).max(self.handed_over).filter(|tick| *tick > Tick::MIN)
            }
        };
        if frontier.is_some() && through == self.handed_over {
            return None;
        }
        self.handed_over = through;
        self.finished = frontier.is_none();
        let bound = frontier.unwrap_or(Tick::NEVER);
        let windows = before(&mut self.results, bound);
        let epoch = Epoch {
            through,
            finished: self.finished,
            windows: windows
                .map(|(end, results)| ClosedTick {
                    end,
                    results,
                    closed: self.closed_at(end),
                    computed: Instant::now(),
                })
                .collect(),
            dead_letters: before(&mut self.dead_letters, bound).flat_map(|(_, letters)| letters).collect(),
            sanitised: before(&mut self.sanitised, bound).flat_map(|(_, events)| events).collect(),
            cuts: before(&mut self.cuts, bound).flat_map(|(_, cuts)| cuts).collect(),
            resume: before(&mut self.resume, bound).flat_map(|(_, points)| points).collect(),
            idle_advances: before(&mut self.idle_advances, bound).flat_map(|(_, advances)| advances).collect(),
        };
        while self.reached.len() > 1 && self.reached[1].0 <= bound {
            self.reached.pop_front();
        }
        self.unacknowledged.push_back(through);
        Some(epoch)
    }

    /// Where a transaction with all sanitised events before `frontier` would be too large: the tick before which there are enough.
    fn part_of(&self, frontier: Option<Tick>) -> Option<Tick> {
        let end = frontier.unwrap_or(Tick::NEVER);
        let mut events = 0;
        for (tick, of_tick) in self.sanitised.range(..end).filter(|(tick, _)| **tick > Tick::MIN) {
            events += of_tick.len();
            if events >= RECORDS_PER_COMMIT_MAX {
                return Some(self.windows.next(*tick)).filter(|next| *next < end);
            }
        }
        None
    }

    /// When the job's watermark passed `tick`.
    fn closed_at(&self, tick: Tick) -> Instant {
        self.reached.iter().find(|(reached, _)| *reached > tick).map_or_else(Instant::now, |(_, at)| *at)
    }

    fn acknowledged(&mut self, through: Option<Tick>) {
        while self.unacknowledged.pop_front_if(|epoch| *epoch <= through).is_some() {}
        self.acknowledged = through.max(self.acknowledged);
    }

    /// The first tick that is not committed; none when everything is and nothing will come.
    fn first_uncommitted(&self, frontier: Option<Tick>) -> Option<Tick> {
        match self.unacknowledged.front() {
            // What was handed over and not acknowledged comes after what was.
            Some(_) => Some(self.acknowledged.map_or(Tick::MIN, |through| self.windows.next(through))),
            None => frontier,
        }
    }
}

/// Takes the entries before `bound`.
fn before<V>(map: &mut BTreeMap<Tick, V>, bound: Tick) -> impl Iterator<Item = (Tick, V)> + use<V> {
    let rest = map.split_off(&bound);
    std::mem::replace(map, rest).into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_of_sanitised_events_is_committed_in_steps() {
        let mut pending = Pending::new(Windows::new(50, 10, 0).unwrap(), None);
        let event = |tick| Note::Sanitised(SanitisedRecord { tick: Tick(tick), user: 0, body: Vec::new() });
        let half = RECORDS_PER_COMMIT_MAX / 2;
        for (tick, events) in [(i64::MIN, 7), (10, half), (20, half), (30, 1), (40, 2 * half), (50, 3)] {
            pending.notes((0..events).map(|_| event(tick)));
        }
        let mut steps = |frontier| {
            let epochs = std::iter::from_fn(|| pending.complete(frontier));
            epochs.map(|epoch| (epoch.through.map(|tick| tick.0), epoch.sanitised.len(), epoch.finished)).collect()
        };
        let steps_to_50: Vec<_> = steps(Some(Tick(50)));
        assert_eq!(steps_to_50, [(Some(20), 7 + 2 * half, false), (Some(40), 1 + 2 * half, false)]);
        let rest: Vec<_> = steps(None);
        assert_eq!(rest, [(Some(50), 3, true)]);
        // What was handed over is not taken in again.
        pending.notes([event(40), event(60)].into_iter());
        assert_eq!(pending.sanitised.keys().collect::<Vec<_>>(), [&Tick(60)]);
    }

    #[test]
    fn what_is_committed_is_known_epoch_by_epoch() {
        let mut pending = Pending::new(Windows::new(50, 10, 0).unwrap(), None);
        let through = |pending: &mut Pending, frontier| {
            pending.complete(Some(Tick(frontier))).and_then(|epoch| epoch.through).map(|tick| tick.0)
        };
        assert_eq!(through(&mut pending, 20), Some(10));
        assert_eq!(through(&mut pending, 40), Some(30));
        let first = |pending: &Pending| pending.first_uncommitted(Some(Tick(40)));
        assert_eq!(first(&pending), Some(Tick::MIN));
        pending.acknowledged(Some(Tick(10)));
        assert_eq!(first(&pending), Some(Tick(20)));
        pending.acknowledged(Some(Tick(30)));
        assert_eq!(first(&pending), Some(Tick(40)));
    }
}
