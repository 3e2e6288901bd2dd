//! One seed: its schedule, step after step.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use clicktide::checkpoint::store::Store;
use clicktide::ingest::{Format, Ingest};
use clicktide::pipeline::Ended;
use clicktide::privacy::{HashKey, PageKey};
use clicktide::progress::JobState;
use clicktide::validation::Limits;
use rand::prelude::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::incarnation::{Incarnation, NotStarted, Surroundings, lock};
use super::log::{Fate, InputPartition, World};
use super::oracle;
use super::plan::{Fault, Plan};
use super::records::{Records, click};
use super::shelf::PutFate;

/// Why a seed has failed.
#[derive(Debug)]
pub struct Failure(pub String);

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub steps: u64,
    pub turns: u64,
    pub starts: u32,
    pub restores: u32,
    pub commits: u64,
    pub results: usize,
}

/// Runs a seed, and tells its steps.
pub fn run_seed(seed: u64, fault: Fault) -> (Result<Summary, Failure>, String) {
    let mut run = Run::new(seed, fault);
    let outcome = catch_unwind(AssertUnwindSafe(|| run.run()));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    });
    let world = lock(&run.around.world);
    let summary = Summary { commits: world.output.transactions, results: world.output.results.len(), ..run.summary };
    drop(world);
    (outcome.map(|()| summary).map_err(Failure), std::mem::take(&mut run.steps))
}

/// How the job reads records.
pub fn ingest(plan: &Plan) -> Arc<Ingest> {
    Arc::new(Ingest {
        format: Format::JsonLines,
        limits: Limits { future_ms: plan.future_ms, ..Limits::default() },
        hash_key: HashKey::new("simulated").expect("there is something"),
        page_key: PageKey::Full,
        windows: plan.windows,
        bound_ms: plan.bound_ms,
    })
}

struct Run {
    rng: ChaCha8Rng,
    around: Surroundings,
    records: Records,
    records_left: usize,
    current: Option<Incarnation>,
    /// Runs that were thought to be dead.
    zombies: Vec<Incarnation>,
    stalled: Vec<bool>,
    finished: bool,
    failures_at_end: u32,
    savepoints: u32,
    steps: String,
    summary: Summary,
}

type Outcome = Result<(), String>;

impl Run {
    fn new(seed: u64, fault: Fault) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng);
        let ingest = ingest(&plan);
        let input = vec![InputPartition::default(); plan.partitions];
        let world = Arc::new(Mutex::new(World { input, ..World::default() }));
        let (records_left, stalled) = (plan.records, vec![false; plan.partitions]);
        let steps = format!("{plan:?}\n");
        Run {
            rng,
            around: Surroundings {
                plan,
                fault,
                ingest,
                world,
                clock: Arc::new(AtomicI64::new(0)),
                shelf: Arc::default(),
            },
            records: Records::default(),
            records_left,
            current: None,
            zombies: Vec::new(),
            stalled,
            finished: false,
            failures_at_end: 0,
            savepoints: 0,
            steps,
            summary: Summary::default(),
        }
    }

    fn say(&mut self, step: impl std::fmt::Display) {
        writeln!(self.steps, "{step}").expect("memory suffices");
    }

    fn run(&mut self) -> Outcome {
        if self.around.plan.until_end {
            // What comes after the start is not read.
            let partitions = self.around.plan.partitions;
            while self.records_left > self.around.plan.records / 4 {
                let partition = self.rng.random_range(0..partitions);
                self.arrive(partition, 3);
                self.pass(self.around.plan.windows.slide_ms() / 2);
            }
        }
        while self.records_left > 0 && !self.finished {
            self.step()?;
        }
        for _ in 0..self.rng.random_range(0..200) {
            if !self.finished {
                self.step()?;
            }
        }
        self.end()
    }

    fn now_ms(&self) -> i64 {
        self.around.clock.load(Ordering::Relaxed)
    }

    fn any_partition(&mut self) -> usize {
        self.rng.random_range(0..self.stalled.len())
    }

    /// One step of the schedule.
    fn step(&mut self) -> Outcome {
        self.summary.steps += 1;
        if self.current.is_none() && self.rng.random_ratio(1, 2) {
            return self.start();
        }
        let Plan { paces: [time, arrivals, fetches, commits], crashes, writes, .. } = self.around.plan;
        let rare = self.rng.random_range(0..1_000);
        if rare < crashes {
            return self.crash();
        }
        match rare {
            900..904 => return self.stop(),
            910..920 => self.stall(),
            920..925 => self.grow(),
            930..940 => self.forget_old_records(),
            940..943 => self.store_comes_and_goes(),
            943..946 => self.ask_savepoint(),
            rare if (950..950 + self.around.plan.damages).contains(&rare) => self.damage(),
            _ => {}
        }
        let choice = self.rng.random_range(0..30 + time + arrivals + fetches + commits + writes);
        let (time, arrivals, fetches) = (time, time + arrivals, time + arrivals + fetches);
        if choice < time {
            let Plan { windows, idle_timeout_ms, .. } = self.around.plan;
            let slide_ms = windows.slide_ms();
            let by = match self.rng.random_range(0..60) {
                0 => 3_500,
                1..5 => idle_timeout_ms.unwrap_or(slide_ms),
                5..25 => slide_ms / 2,
                _ => self.rng.random_range(1..=slide_ms / 4 + 1),
            };
            self.pass(by);
        } else if choice < arrivals {
            let (partition, most) =
                (self.any_partition(), *[1, 1, 2, 5].choose(&mut self.rng).expect("there are some"));
            if !self.stalled[partition] {
                self.arrive(partition, most);
            }
        } else if choice < fetches {
            self.fetch();
        } else if choice < fetches + commits {
            return self.commit();
        } else if choice < fetches + commits + writes {
            return self.write();
        } else {
            return self.turn();
        }
        Ok(())
    }

    /// The checkpoint writer does a few things, unless it breaks off.
    fn write(&mut self) -> Outcome {
        let zombie = !self.zombies.is_empty() && self.rng.random_ratio(1, 3);
        let fate = self.put_fate();
        let run = if zombie { self.zombies.last() } else { self.current.as_ref() };
        let Some(run) = run else { return Ok(()) };
        *lock(&self.around.shelf.fate) = fate;
        let done = (0..self.rng.random_range(1..6)).take_while(|_| run.write() && !run.killed()).count();
        let unused = lock(&self.around.shelf.fate).take().is_some();
        let (killed, taken, number) = (run.killed(), run.taken(), run.number);
        let fate = fate.filter(|_| !unused);
        if done > 0 || killed {
            self.say(format_args!("run {number}: {done} things for checkpoints, {fate:?}{taken}"));
        }
        if killed {
            if zombie {
                drop(self.zombies.pop());
            } else {
                return self.over();
            }
        }
        Ok(())
    }

    fn put_fate(&mut self) -> Option<PutFate> {
        if !self.rng.random_ratio(self.around.plan.broken_puts, 1_000) {
            return None;
        }
        Some(match self.rng.random_range(0..4) {
            0 | 1 => PutFate::Fails,
            2 => PutFate::Unknown,
            _ => PutFate::Killed { kept: self.rng.random() },
        })
    }

    /// The store can't be reached for a while.
    fn store_comes_and_goes(&mut self) {
        let down = !self.around.shelf.down.fetch_xor(true, Ordering::Relaxed);
        self.say(format_args!("the store is down: {down}"));
    }

    fn ask_savepoint(&mut self) {
        if let Some(run) = &self.current {
            self.savepoints += 1;
            run.ask_savepoint(self.savepoints);
            self.say("a savepoint is asked for");
        }
    }

    /// An object or a manifest is lost, cut, changed or exchanged.
    fn damage(&mut self) {
        let objects = &self.around.shelf.objects;
        let names: Vec<String> = objects.names().into_iter().filter(|name| !name.starts_with("generations/")).collect();
        let Some(name) = names.choose(&mut self.rng) else { return };
        let mut body = objects.get(name).expect("it is there");
        let kind = self.rng.random_range(0..4);
        match kind {
            0 => objects.delete(name).expect("it is there"),
            1 if !body.is_empty() => {
                body.truncate(self.rng.random_range(0..body.len()));
                objects.overwrite(name, body);
            }
            2 if !body.is_empty() => {
                let at = self.rng.random_range(0..body.len());
                body[at] ^= 1 << self.rng.random_range(0..8);
                objects.overwrite(name, body);
            }
            _ => {
                let other = names.choose(&mut self.rng).expect("there are some");
                objects.overwrite(name, objects.get(other).expect("it is there"));
            }
        }
        let name = name.clone();
        self.say(format_args!("{name} is damaged, {kind}"));
    }

    fn pass(&mut self, by_ms: i64) {
        self.around.clock.fetch_add(by_ms, Ordering::Relaxed);
        self.say(format_args!("time {}", self.now_ms()));
    }

    /// Records arrive in a partition, or a producer's transaction ends.
    fn arrive(&mut self, partition: usize, most: usize) {
        let now_ms = self.now_ms();
        let plan = &self.around.plan;
        let mut world = lock(&self.around.world);
        let input = &mut world.input[partition];
        let ends = plan.transactions && self.rng.random_ratio(1, 3);
        if ends {
            input.end_transaction(self.rng.random_ratio(2, 3));
        } else {
            let in_transaction = plan.transactions && self.rng.random_ratio(1, 2);
            for _ in 0..self.rng.random_range(1..=most).min(self.records_left) {
                let record = self.records.next(&mut self.rng, plan, partition, now_ms);
                input.append(&self.around.ingest, record, in_transaction);
                self.records_left -= 1;
            }
        }
        let (high, stable) = (input.high, input.last_stable());
        drop(world);
        self.say(format_args!("partition {partition} reaches {high}, stable {stable}"));
    }

    /// A reader gets records, or an answer about the end of its partition.
    fn fetch(&mut self) {
        let partition = self.any_partition();
        if self.stalled[partition] {
            return;
        }
        let (kind, now_ms) = (self.rng.random_range(0..8), self.now_ms());
        let most = *[1, 2, 5, 100].choose(&mut self.rng).expect("there are some");
        let zombie = self.zombies.choose(&mut self.rng).filter(|_| self.rng.random_ratio(1, 4));
        let Some(run) = zombie.or(self.current.as_ref()) else { return };
        let (readers, number, of) = (Arc::clone(&run.readers), run.number, partition as i32);
        match kind {
            0..=3 => {
                let all = kind > 0;
                readers.fetch(of, most, all);
                self.say(format_args!("run {number}: {most} of partition {partition} fetched, {all}"));
            }
            4 => readers.ask(of),
            5 => readers.answer(of, now_ms),
            _ => {
                readers.ask(of);
                readers.answer(of, now_ms);
                self.say(format_args!("run {number}: the end of partition {partition} is answered"));
            }
        }
    }

    /// A worker takes turns.
    fn turn(&mut self) -> Outcome {
        if !self.zombies.is_empty() && self.rng.random_ratio(1, 3) {
            let zombie = self.rng.random_range(0..self.zombies.len());
            let run = &self.zombies[zombie];
            let (worker, turns) = (self.rng.random_range(0..run.workers), self.rng.random_range(1..=6));
            let ended = run.baton.give(worker, turns);
            let (number, failed) = (run.number, run.failed());
            self.say(format_args!("zombie {number}: worker {worker} takes {turns} turns: {ended:?} {failed:?}"));
            if ended.is_some() || failed.is_some() {
                self.zombies.swap_remove(zombie).kill()?;
            }
            return Ok(());
        }
        let Some(run) = &self.current else { return Ok(()) };
        let (worker, turns) = (self.rng.random_range(0..run.workers), self.rng.random_range(1..=6));
        self.summary.turns += u64::from(turns);
        let ended = run.baton.give(worker, turns);
        let failed = run.failed();
        self.say(format_args!("worker {worker} takes {turns} turns: {ended:?}"));
        if let Some(reason) = failed {
            self.say(format_args!("the job has failed: {reason}"));
            return self.over();
        }
        if ended == Some(Ended::Finished)
            && let Some(run) = self.current.take()
        {
            let ended = run.wind_down()?;
            self.say(format_args!("ended: {ended:?}"));
            self.finished = true;
            self.check()?;
        }
        Ok(())
    }

    /// The committing does what is waiting, unless it breaks off.
    fn commit(&mut self) -> Outcome {
        let zombie = !self.zombies.is_empty() && self.rng.random_ratio(1, 3);
        let fate = self.fate();
        lock(&self.around.world).fate = fate;
        let run = if zombie { self.zombies.last() } else { self.current.as_ref() };
        let Some(run) = run else { return Ok(()) };
        let (done, number) = (run.commit(), run.number);
        let mut world = lock(&self.around.world);
        let unused = world.fate.take().is_some();
        let killed = std::mem::take(&mut world.killed);
        let said = std::mem::take(&mut world.output.said);
        drop(world);
        if !done {
            return Ok(());
        }
        let fate = fate.filter(|_| !unused);
        self.say(format_args!("run {number}: commits, {fate:?}: {said}"));
        if killed {
            if zombie {
                drop(self.zombies.pop());
            } else {
                return self.over();
            }
        }
        if self.around.plan.checks_every_commit {
            self.check()?;
        }
        Ok(())
    }

    fn fate(&mut self) -> Option<Fate> {
        if !self.rng.random_ratio(self.around.plan.broken_commits, 1_000) {
            return None;
        }
        let visible = self.rng.random();
        Some(match self.rng.random_range(0..7) {
            0 => Fate::Fails,
            1 => Fate::KilledAfter(0),
            2 => Fate::KilledAfter(self.rng.random_range(1..10)),
            3 => Fate::KilledAfter(usize::MAX),
            4 => Fate::KilledDuring { visible },
            _ => Fate::Unknown { visible },
        })
    }

    /// A partition is cut off, or comes back.
    fn stall(&mut self) {
        let partition = self.any_partition();
        self.stalled[partition] ^= true;
        let stalled = self.stalled[partition];
        self.say(format_args!("partition {partition} stalls: {stalled}"));
    }

    /// The topic gets one partition more.
    fn grow(&mut self) {
        if self.stalled.len() < self.around.plan.partitions_max {
            self.stalled.push(false);
            lock(&self.around.world).input.push(InputPartition::default());
            self.say("a partition more");
        }
    }

    /// Retention deletes what nobody will read again.
    fn forget_old_records(&mut self) {
        let mut world = lock(&self.around.world);
        let Some(progress) = world.output.progress.clone() else { return };
        for cut in progress.input {
            let low = &mut world.input[cut.partition as usize].low;
            *low = cut.reads_from().max(*low);
        }
        drop(world);
        self.say("what is not needed any more is deleted");
    }

    fn crash(&mut self) -> Outcome {
        if let Some(run) = self.current.take() {
            if self.zombies.len() < 2 && self.rng.random_ratio(1, 4) {
                self.say(format_args!("run {} is thought to be dead", run.number));
                self.zombies.push(run);
            } else {
                self.say(format_args!("run {} is killed", run.number));
                self.current = Some(run);
                self.over()?;
            }
        }
        Ok(())
    }

    /// The current run's process is gone.
    fn over(&mut self) -> Outcome {
        if let Some(run) = self.current.take() {
            let ended = run.kill()?;
            self.say(format_args!("ended: {ended:?}"));
        }
        self.check()
    }

    /// An orderly stop, during which everything may still go wrong.
    fn stop(&mut self) -> Outcome {
        let Some(run) = &self.current else { return Ok(()) };
        run.stop();
        let (number, workers) = (run.number, run.workers);
        self.say(format_args!("run {number} is asked to stop"));
        for _ in 0..10_000 {
            match self.rng.random_range(0..12) {
                0..3 => self.commit()?,
                3..5 => self.write()?,
                5 => self.pass(50),
                _ => self.turn()?,
            }
            let Some(run) = &self.current else { return Ok(()) };
            if run.number != number || (0..workers).all(|worker| run.baton.give(worker, 1).is_some()) {
                return self.over();
            }
        }
        Err(format!("run {number} does not stop"))
    }

    fn start(&mut self) -> Outcome {
        let workers = self.rng.random_range(1..=4);
        let fate = self.fate();
        lock(&self.around.world).fate = fate;
        self.summary.starts += 1;
        let put_fate = self.put_fate();
        *lock(&self.around.shelf.fate) = put_fate;
        let started = Incarnation::start(self.summary.starts, workers, &self.around);
        *lock(&self.around.shelf.fate) = None;
        let said = std::mem::take(&mut lock(&self.around.world).output.said);
        lock(&self.around.world).fate = None;
        match started {
            Ok(run) => {
                self.summary.restores += u32::from(run.restored.is_some());
                let restored = &run.restored;
                self.say(format_args!("run {} starts with {workers} workers, {restored:?}: {said}", run.number));
                self.current = Some(run);
            }
            Err(NotStarted::Again) => self.say(format_args!("no start, {fate:?}: {said}")),
            Err(NotStarted::Refused(reason)) => {
                // The commit that finished the job was not acknowledged.
                let world = lock(&self.around.world);
                let state = world.output.progress.as_ref().map(|progress| progress.state);
                if state != Some(JobState::Finished) || !reason.contains("it is finished") {
                    return Err(format!("refused: {reason}"));
                }
                self.finished = true;
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Outcome {
        oracle::check(&lock(&self.around.world), &self.around.plan).map(drop)
    }

    /// Nothing goes wrong any more, and all windows are closed.
    fn end(&mut self) -> Outcome {
        self.say("to the end");
        self.around.plan.broken_commits = 0;
        self.around.plan.broken_puts = 0;
        self.around.shelf.down.store(false, Ordering::Relaxed);
        self.zombies.clear();
        let target_ms = self.last_arrivals();
        if self.current.as_ref().is_some_and(|run| run.partitions < self.stalled.len()) {
            self.over()?;
        }
        for _ in 0..20_000 {
            if self.finished {
                break;
            }
            match self.current {
                None => self.start()?,
                Some(_) => self.round()?,
            }
            if !self.around.plan.until_end && !self.more(target_ms)? {
                break;
            }
        }
        if self.around.plan.until_end {
            self.refuses_to_go_on()?;
        } else if self.more(target_ms)? {
            return Err("it does not come to its end".to_owned());
        }
        oracle::check_by_definition(&lock(&self.around.world), &self.around.plan)
    }

    /// Whether more has to be committed, when all windows up to `target_ms` have to be closed.
    fn more(&self, target_ms: Option<i64>) -> Result<bool, String> {
        let world = lock(&self.around.world);
        let Some(target_ms) = target_ms else {
            // Without a single event no window ever closes.
            return oracle::check(&world, &self.around.plan).map(|_| false);
        };
        let through_ms = world.output.progress.as_ref().and_then(|progress| progress.committed_through);
        if through_ms < Some(target_ms) {
            return Ok(true);
        }
        let next_ms = oracle::check(&world, &self.around.plan)?;
        // The events that close all windows have windows of their own.
        let closes_all = self.around.plan.idle_timeout_ms.is_some();
        Ok(next_ms.is_some_and(|next_ms| closes_all || next_ms <= target_ms))
    }

    /// Ends what producers have open; returns the window end up to which all has to be closed, if there is anything.
    fn last_arrivals(&mut self) -> Option<i64> {
        let Plan { windows, bound_ms, idle_timeout_ms, until_end, .. } = self.around.plan;
        let mut world = lock(&self.around.world);
        world.input.iter_mut().for_each(|input| input.end_transaction(true));
        let entries = world.input.iter().flat_map(|input| &input.entries);
        let last_ms = entries.filter_map(|entry| Some(entry.click.as_ref().ok()?.time_ms)).max()?;
        let target_ms = windows.leave(last_ms).0;
        if idle_timeout_ms.is_none() && !until_end {
            // Nothing else would close the last windows.
            let last = click(target_ms + bound_ms + 3 * windows.slide_ms());
            for input in &mut world.input {
                input.append(&self.around.ingest, last.clone(), false);
            }
        }
        Some(target_ms)
    }

    /// All have their turn, everything arrives, and time passes.
    fn round(&mut self) -> Outcome {
        self.pass(self.around.plan.windows.slide_ms());
        let now_ms = self.now_ms();
        let Some(run) = &self.current else { return Ok(()) };
        for partition in 0..run.partitions as i32 {
            run.readers.fetch(partition, usize::MAX, true);
            run.readers.ask(partition);
            run.readers.answer(partition, now_ms);
        }
        for worker in (0..run.workers).chain(0..run.workers) {
            let ended = run.baton.give(worker, 4);
            self.summary.turns += 4;
            if let Some(reason) = run.failed() {
                // It is told only now that its last commit before the end broke off.
                self.say(format_args!("the job has failed: {reason}"));
                self.failures_at_end += 1;
                return if self.failures_at_end > 3 { Err(format!("it fails again: {reason}")) } else { self.over() };
            }
            if ended == Some(Ended::Finished) {
                self.finished = true;
            }
        }
        run.commit();
        while run.write() {}
        let said = std::mem::take(&mut lock(&self.around.world).output.said);
        if self.finished
            && let Some(run) = self.current.take()
        {
            run.wind_down()?;
        }
        if !said.is_empty() {
            self.say(said);
        }
        Ok(())
    }

    /// A bounded job that is finished is complete, and does not start again.
    fn refuses_to_go_on(&mut self) -> Outcome {
        let world = lock(&self.around.world);
        let state = world.output.progress.as_ref().map(|progress| progress.state);
        if state != Some(JobState::Finished) || oracle::check(&world, &self.around.plan)?.is_some() {
            return Err(format!("a bounded job does not finish: {state:?}"));
        }
        drop(world);
        match Incarnation::start(self.summary.starts + 1, 1, &self.around) {
            Err(NotStarted::Refused(reason)) if reason.contains("it is finished") => Ok(()),
            other => Err(format!("a finished job starts again: {:?}", other.err())),
        }
    }
}
