//! Schedules written by hand, for what seeds find too seldom.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use clicktide::history::HistoryLimits;
use clicktide_dataflows::time::Windows;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::incarnation::{Incarnation, Surroundings, lock};
use super::log::{InputPartition, World};
use super::oracle;
use super::plan::{Fault, Plan};
use super::records::{EPOCH_MS, click};
use super::run::ingest;

/// A job with windows of 10 ms every 10 ms and no disorder, whose partitions are idle after 10 ms.
pub struct Script {
    around: Surroundings,
    workers: usize,
    starts: u32,
    run: Option<Incarnation>,
}

impl Script {
    pub fn new(partitions: usize, workers: usize) -> Self {
        let plan = Plan {
            windows: Windows::new(10, 10, 0).expect("such windows are possible"),
            bound_ms: 0,
            idle_timeout_ms: Some(10),
            ticks_ahead: 100,
            records_in_flight: 100,
            until_end: false,
            plain: false,
            history: HistoryLimits::default(),
            checkpoint_every_ms: None,
            ..Plan::draw(&mut ChaCha8Rng::seed_from_u64(0))
        };
        let world = World { input: vec![InputPartition::default(); partitions], ..World::default() };
        let around = Surroundings {
            ingest: ingest(&plan),
            plan,
            fault: Fault::None,
            world: Arc::new(Mutex::new(world)),
            clock: Arc::new(AtomicI64::new(0)),
            shelf: Arc::default(),
        };
        let mut script = Script { around, workers, starts: 0, run: None };
        script.restart();
        script
    }

    /// Kills the run, if there is one, and starts the next.
    pub fn restart(&mut self) {
        self.run = None;
        self.starts += 1;
        let run = Incarnation::start(self.starts, self.workers, &self.around);
        self.run = Some(run.expect("nothing is in the way"));
        // A reader is there once its worker has had its first turn.
        self.turn(&(0..self.workers).collect::<Vec<_>>());
        let partitions = lock(&self.around.world).input.len() as i32;
        for partition in 0..partitions {
            self.run().readers.fetch(partition, usize::MAX, true);
        }
    }

    fn run(&self) -> &Incarnation {
        self.run.as_ref().expect("it was started")
    }

    /// An event at so many ms arrives in a partition.
    pub fn event(&self, partition: usize, at_ms: i64) {
        self.record(partition, click(EPOCH_MS + at_ms));
    }

    pub fn record(&self, partition: usize, record: (Option<i64>, Vec<u8>)) {
        lock(&self.around.world).input[partition].append(&self.around.ingest, record, false);
        self.run().readers.fetch(partition as i32, usize::MAX, true);
    }

    /// The broker says that nothing more is there of a partition.
    pub fn answer(&self, partition: usize) {
        self.run().readers.ask(partition as i32);
        self.run().readers.answer(partition as i32, self.around.clock.load(Ordering::Relaxed));
    }

    pub fn pass(&self, by_ms: i64) {
        self.around.clock.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// The workers take turns, in this order, and what is complete is committed.
    fn turn(&self, workers: &[usize]) {
        workers.iter().for_each(|worker| assert_eq!(self.run().baton.give(*worker, 1), None));
        self.run().commit();
    }

    /// These workers take enough turns for all to come about that can without the others.
    pub fn settle(&self, workers: &[usize]) {
        for _ in 0..20 {
            self.pass(20);
            self.turn(workers);
        }
    }

    /// How far the job has come, ms.
    pub fn through_ms(&self) -> Option<i64> {
        let world = lock(&self.around.world);
        world.output.progress.as_ref().and_then(|progress| Some(progress.committed_through? - EPOCH_MS))
    }

    /// What is committed has to be right.
    pub fn check(&self) {
        if let Err(reason) = oracle::check(&lock(&self.around.world), &self.around.plan) {
            panic!("{reason}");
        }
    }
}
