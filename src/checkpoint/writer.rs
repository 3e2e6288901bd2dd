//! The writer: what enters is collected, and written when a checkpoint is asked for, on a thread of its own.
//!
//! Every process has one. It takes events from the capture of all its workers, files them by pane, forgets those that have
//! left, and on demand writes the others as pane objects. In process 0 it also writes the manifest and deletes what no
//! checkpoint needs any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use clicktide_dataflows::event::{Activity, PageId, PageName};
use clicktide_dataflows::time::Tick;
use foldhash::fast::FixedState;

use super::format::checksum;
use super::prune::Pruning;
use super::store::{Store, StoreError};
use super::{Manifest, ObjectRef, PaneObject, names};

/// What the writer is told.
pub enum Command {
    /// These events were read.
    Events(Vec<Activity>),
    /// These pages were named, ahead of their events.
    Names(Vec<PageName>),
    /// Everything up to this window end is committed: what left by then is not needed.
    Committed(Tick),
    /// A worker has handed over all that enters up to the window end of checkpoint `number`. When all workers have, it is written.
    Write {
        /// Which checkpoint.
        number: u64,
    },
    /// All processes have written: in process 0, the manifest is to follow.
    Finish {
        /// Which checkpoint.
        number: u64,
        /// Under which name.
        name: String,
        /// What refers to all the objects.
        manifest: Box<Manifest>,
    },
}

/// What the writer tells.
#[derive(Debug)]
pub enum Outcome {
    /// The objects written since the last such outcome, or why something could not be written: it is tried again with the
    /// next checkpoint.
    Written {
        /// For which checkpoint.
        number: u64,
        /// The objects that are complete, in any case.
        objects: Vec<ObjectRef>,
        /// Why not all could be written.
        error: Option<String>,
    },
    /// The manifest is there, or why not.
    Finished {
        /// Of which checkpoint.
        number: u64,
        /// How long it is.
        bytes: Result<u64, String>,
    },
}

/// Who writes.
#[derive(Clone)]
pub struct WriterSettings {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// The run's generation, which is part of every object's name.
    pub generation: i64,
    /// The process, likewise.
    pub process: usize,
    /// How many workers hand over events.
    pub workers: usize,
    /// How many checkpoints are kept.
    pub keep: usize,
}

/// More events than this are not collected, but written ahead of the checkpoint; and none of the objects holds more.
const EVENTS_PER_OBJECT_MAX: usize = 1 << 20;

/// Collects and writes.
pub struct Writer {
    settings: WriterSettings,
    commands: mpsc::Receiver<Command>,
    queued: Arc<AtomicUsize>,
    outcomes: mpsc::Sender<Outcome>,
    panes: BTreeMap<(Tick, Tick), Vec<Activity>>,
    events: usize,
    /// From how many on they are written ahead of the checkpoint.
    events_max: usize,
    names: HashMap<PageId, PageName, FixedState>,
    committed: Tick,
    /// Of which checkpoint how many workers have handed over everything.
    asked: (u64, usize),
    /// What has been written and not been told.
    untold: Vec<ObjectRef>,
    objects: u64,
    pruning: Pruning,
}

/// Leads to the writer.
#[derive(Clone)]
pub struct ToWriter {
    commands: mpsc::Sender<Command>,
    /// Events on the way.
    queued: Arc<AtomicUsize>,
}

impl ToWriter {
    /// Sends a command. The writer is gone only when the process ends; then it is dropped.
    pub fn send(&self, command: Command) {
        if let Command::Events(events) = &command {
            self.queued.fetch_add(events.len(), Ordering::Relaxed);
        }
        self.commands.send(command).ok();
    }

    /// Whether the writer is so far behind, for a store that is slow, that reading has to wait for it.
    pub fn behind(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > EVENTS_QUEUED_MAX
    }
}

/// Events that may wait for a writer that is busy: 64 MB.
const EVENTS_QUEUED_MAX: usize = 1 << 20;

/// The workers' ends of the channels to the writer.
pub type WriterEnds = (ToWriter, mpsc::Receiver<Outcome>);

impl Writer {
    /// A writer that has collected nothing, and the workers' ends of its channels.
    pub fn new(settings: WriterSettings) -> (Self, WriterEnds) {
        let (to_do, commands) = mpsc::channel();
        let (outcomes, done) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            queued: Arc::clone(&queued),
            pruning: Pruning::new(settings.generation, settings.keep),
            settings,
            commands,
            outcomes,
            panes: BTreeMap::new(),
            events: 0,
            events_max: EVENTS_PER_OBJECT_MAX,
            names: HashMap::default(),
            committed: Tick::MIN,
            asked: (0, 0),
            untold: Vec::new(),
            objects: 0,
        };
        (writer, (ToWriter { commands: to_do, queued }, done))
    }

    /// Carries out commands until there will be no more: the body of the writing thread.
    pub fn run(mut self) {
        while let Ok(command) = self.commands.recv() {
            self.carry_out(command);
        }
    }

    /// Carries out one command that is waiting; whether there was one. For whoever has no thread for it.
    pub fn run_waiting(&mut self) -> bool {
        self.commands.try_recv().map(|command| self.carry_out(command)).is_ok()
    }

    fn carry_out(&mut self, command: Command) {
        let outcome = match command {
            Command::Events(events) => {
                self.queued.fetch_sub(events.len(), Ordering::Relaxed);
                self.collect(&events);
                return;
            }
            Command::Names(names) => {
                for name in names {
                    let known = self.names.entry(name.page).or_insert_with(|| name.clone());
                    known.keep_until = name.keep_until.max(known.keep_until);
                }
                return;
            }
            Command::Committed(through) => {
                self.committed = through.max(self.committed);
                return;
            }
            Command::Write { number } => {
                self.asked = if self.asked.0 == number { (number, self.asked.1 + 1) } else { (number, 1) };
                if self.asked.1 < self.settings.workers {
                    return;
                }
                self.events_max = EVENTS_PER_OBJECT_MAX;
                let error = self.write().err().map(|error| error.to_string());
                Outcome::Written { number, objects: std::mem::take(&mut self.untold), error }
            }
            Command::Finish { number, name, manifest } => {
                Outcome::Finished { number, bytes: self.finish(&name, &manifest).map_err(|error| error.to_string()) }
            }
        };
        // The workers are gone only when the process ends.
        self.outcomes.send(outcome).ok();
    }

    fn collect(&mut self, events: &[Activity]) {
        // Neighbours are mostly of one pane, which is then looked up once for all of them.
        for run in events.chunk_by(|a, b| (a.enter, a.leave) == (b.enter, b.leave)) {
            self.panes.entry((run[0].enter, run[0].leave)).or_default().extend_from_slice(run);
        }
        self.events += events.len();
        if self.events >= self.events_max {
            self.forget();
            if self.events >= self.events_max
                && let Err(error) = self.write()
            {
                // Until the next checkpoint is asked for, the store is left in peace.
                self.events_max = usize::MAX;
                tracing::warn!(%error, "events that no longer fit into memory can't be written ahead of the checkpoint");
            }
        }
    }

    /// Drops what no checkpoint will need.
    fn forget(&mut self) {
        let committed = self.committed;
        self.panes.retain(|(_, leave), _| *leave > committed);
        self.names.retain(|_, name| name.keep_until > committed);
        self.events = self.panes.values().map(Vec::len).sum();
    }

    /// Writes all that is collected and still needed. What can't be written stays.
    fn write(&mut self) -> Result<(), StoreError> {
        self.forget();
        while let Some((pane, mut activities)) = self.panes.pop_first() {
            let mut needed_until = pane.1;
            let mut taken = vec![(pane, activities.len())];
            while let Some(entry) = self.panes.first_entry()
                && activities.len() + entry.get().len() <= EVENTS_PER_OBJECT_MAX
            {
                let (pane, mut more) = entry.remove_entry();
                needed_until = pane.1.max(needed_until);
                taken.push((pane, more.len()));
                activities.append(&mut more);
            }
            match self.put(&mut activities, needed_until) {
                Ok(object) => {
                    self.events -= activities.len();
                    self.untold.push(object);
                }
                Err(error) => {
                    for (pane, events) in taken.into_iter().rev() {
                        self.panes.insert(pane, activities.split_off(activities.len() - events));
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes these events as an object; they stay as they are.
    fn put(&mut self, activities: &mut Vec<Activity>, needed_until: Tick) -> Result<ObjectRef, StoreError> {
        let pages: HashSet<PageId, FixedState> = activities.iter().map(|activity| activity.page).collect();
        let names = pages.iter().filter_map(|page| self.names.get(page)).cloned().collect();
        let object = PaneObject { activities: std::mem::take(activities), names };
        let body = object.encode();
        *activities = object.activities;
        let WriterSettings { generation, process, .. } = self.settings;
        let object = ObjectRef {
            name: names::pane(generation, format_args!("{process}-{}", self.objects)),
            bytes: body.len() as u64,
            checksum: checksum(&body),
            events: activities.len() as u64,
            needed_until,
            counts_through: Tick::NEVER,
        };
        // A name is used once, also when it is unknown what has become of it.
        self.objects += 1;
        self.settings.store.put_new(&object.name, body)?;
        Ok(object)
    }

    fn finish(&mut self, name: &str, manifest: &Manifest) -> Result<u64, StoreError> {
        let body = manifest.encode();
        let bytes = body.len() as u64;
        self.settings.store.put_new(name, body)?;
        // What a process has written and not told yet is told before the next manifest, and only then deleted.
        if let Err(error) = self.pruning.after_checkpoint(&*self.settings.store, &BTreeSet::new()) {
            tracing::warn!(%error, "what no checkpoint needs any more can't be deleted");
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use clicktide_dataflows::event::EventType;

    use super::super::choose::read_object;
    use super::super::store::MemoryStore;
    use super::*;

    /// A store that fails as long as it is told to.
    #[derive(Default)]
    struct Moody {
        store: MemoryStore,
        fails: AtomicBool,
    }

    impl Store for Moody {
        fn put_new(&self, name: &str, body: Vec<u8>) -> Result<(), StoreError> {
            if self.fails.load(Ordering::Relaxed) {
                return Err(StoreError::Failed { name: name.to_owned(), reason: "it is in a mood".to_owned() });
            }
            self.store.put_new(name, body)
        }

        fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
            self.store.get(name)
        }

        fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
            self.store.list(prefix)
        }

        fn delete(&self, name: &str) -> Result<(), StoreError> {
            self.store.delete(name)
        }
    }

    fn event(enter: i64, user: u64) -> Activity {
        Activity {
            enter: Tick(enter),
            leave: Tick(enter + 30),
            page: 7,
            user,
            session: user,
            event_type: EventType::View,
            session_duration_s: None,
            time_ms: enter - 1,
        }
    }

    #[test]
    fn what_is_written_is_what_has_not_left_and_was_not_written_before() {
        let store = Arc::new(Moody::default());
        let settings =
            WriterSettings { store: Arc::clone(&store) as _, generation: 3, process: 0, workers: 2, keep: 1 };
        let (mut writer, (commands, outcomes)) = Writer::new(settings);
        let name = PageName { page: 7, page_url: "/seven".to_owned(), keep_until: Tick(100) };
        let mut write = |number, committed, events: Vec<Activity>| {
            commands.send(Command::Names(vec![name.clone()]));
            commands.send(Command::Committed(Tick(committed)));
            commands.send(Command::Events(events));
            commands.send(Command::Write { number });
            while writer.run_waiting() {}
            assert!(outcomes.try_recv().is_err(), "one of two workers has handed over everything");
            commands.send(Command::Write { number });
            while writer.run_waiting() {}
            let Ok(Outcome::Written { number: of, objects, error }) = outcomes.try_recv() else { panic!("no outcome") };
            assert_eq!(of, number);
            let mut users = Vec::new();
            for object in &objects {
                let read = read_object(&*store, object).unwrap();
                assert_eq!(read.names, std::slice::from_ref(&name));
                assert!(read.activities.iter().all(|activity| activity.leave <= object.needed_until));
                users.extend(read.activities.iter().map(|activity| activity.user));
            }
            users.sort_unstable();
            (users, error.is_some())
        };
        assert_eq!(write(1, 0, vec![event(10, 1), event(20, 2), event(10, 3)]), (vec![1, 2, 3], false));
        assert_eq!(write(2, 10, vec![]), (vec![], false));
        store.fails.store(true, Ordering::Relaxed);
        assert_eq!(write(3, 20, vec![event(30, 4), event(40, 5)]), (vec![], true));
        store.fails.store(false, Ordering::Relaxed);
        // What could not be written is written now; what has left meanwhile is not.
        assert_eq!(write(4, 60, vec![event(50, 6)]), (vec![5, 6], false));
    }
}
