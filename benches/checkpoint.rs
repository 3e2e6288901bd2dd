//! What a checkpoint costs, and what it saves at the next start, by state and by change.
//!
//! What it isolates: the job of `pipeline::run` in this process, without Kafka. Its log makes every record up from its
//! offset, as an Avro body, so that reading costs what decoding costs and no network; its sink keeps the progress that a Kafka
//! transaction would hold; its store is a directory, synced. "Rows" are events in open windows. The log fills the window
//! with them, over twenty slides, and then brings so many events (the change) within one slide, or three times so many in
//! three. A checkpoint is made due by the job's clock when a slide's end is committed, never before.
//!
//! A start is timed from the search for a checkpoint to the first commit that is new, which waits for nothing but the job:
//! the records that close its window are there already. "Rebuilt" is the same start without a checkpoint.

#[path = "harness.rs"]
mod harness;
#[path = "memory.rs"]
mod memory;

use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use clicktide::avro::{Decoder, encode_event};
use clicktide::checkpoint::choose::newest;
use clicktide::checkpoint::coordinator::{Committed, CoordinatorSettings, SavepointRequests, Taken};
use clicktide::checkpoint::restore::Restore;
use clicktide::checkpoint::store::{Store, StoreError, StoreLocation, open_store};
use clicktide::checkpoint::worker::Checkpoints;
use clicktide::checkpoint::writer::{Command, Outcome, Writer, WriterSettings};
use clicktide::cluster::{Cluster, ClusterError, assemble};
use clicktide::committer::{CommitEpoch, CommitError, Epoch};
use clicktide::event::ClickEvent;
use clicktide::history::{self, HistoryLimits};
use clicktide::ingest::{Accepted, Format, Ingest, Record};
use clicktide::kafka::properties::Properties;
use clicktide::pipeline::{self, Ended, Job, JobError, ObserveJob, OpenPartitions, Pace, Waker};
use clicktide::privacy::{HashKey, PageKey};
use clicktide::progress::{JobStart, PartitionCut, Progress};
use clicktide::recovery::{Asked, Bounds, Recovery};
use clicktide::source::{DeadLetterPayload, LogEnd, ReadPartition, SourceError, SourcePartition, SourceSettings};
use clicktide::validation::Limits;
use clicktide_dataflows::event::{EventType, PageName};
use clicktide_dataflows::time::{PartitionClock, Tick, Windows};
use harness::{Report, ReportFiles, Spent, Table, median_s};
use memory::CountingAllocator;

/// What a checkpoint costs, and what it saves at the next start.
#[derive(Parser)]
struct Args {
    /// Events in open windows.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 10_000_000])]
    rows: Vec<u64>,
    /// Events between two checkpoints; of each number of rows, those that do not exceed it.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    changes: Vec<u64>,
    /// Numbers of workers to start with.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    workers: Vec<usize>,
    /// Starts of each kind; one of more than a million rows.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Small states only, for a look.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    files: ReportFiles,
}

const SIZE_MS: i64 = 300_000;
const SLIDE_MS: i64 = 10_000;
const BOUND_MS: i64 = 1_000;
/// Over so much event time the window is filled; what follows has the rest of it.
const FILL_MS: i64 = 20 * SLIDE_MS;
/// A window's end, as all that is added to it is a multiple of the slide.
const BEGIN_MS: i64 = 1_700_000_000_000;
const PARTITIONS: u64 = 4;
const PAGES: u64 = 1_000;
/// The checkpoints are due so long after the last, by the job's clock.
const INTERVAL_MS: i64 = 1 << 40;
/// In the slides after the changes, for the starts.
const EVENTS_PER_LATER_SLIDE: u64 = 1_000;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = Args::parse();
    if args.quick {
        args.rows.retain(|rows| *rows <= 100_000);
        args.repetitions = 1;
    }
    let mut report = Report::new("checkpoint");
    let mut full = Table::new(
        "All rows written as one checkpoint, by the writer alone",
        &["rows"],
        &[("MB", 3), ("bytes/row", 1), ("s", 4), ("of it in the store, s", 4), ("rows/s", 0)],
    );
    let mut incremental = Table::new(
        "Checkpoints of a running job (2 workers; the first of each holds all rows)",
        &["rows", "change"],
        &[
            ("written, bytes", 0),
            ("bytes/event", 1),
            ("took, ms", 1),
            ("of it in the store, ms", 1),
            ("refers to, MB", 3),
            ("commits to the slide, s", 2),
        ],
    );
    let mut starts = Table::new(
        "Starts",
        &["rows", "from", "workers"],
        &[
            ("first new commit after, s", 3),
            ("CPU, s", 3),
            ("of it checking, s", 3),
            ("peak MB", 0),
            ("rebuilt / this, by wall", 1),
            ("by CPU", 1),
        ],
    );
    for &rows in &args.rows {
        eprintln!("{rows} rows");
        full.row([rows], write_all(rows)?);
        let mut changes = Vec::new();
        for change in args.changes.iter().copied().filter(|change| *change <= rows) {
            // A change that counts beside the state is made once.
            changes.extend(std::iter::repeat_n(change, if change * 30 <= rows { 3 } else { 1 }));
        }
        let (history, lines) = History::make(rows, &changes)?;
        for TakenAfter { change, took, figures } in lines {
            let [written, per_event, stored_ms, refers_mb, committed_s] = figures;
            incremental
                .row([rows, change], [written, per_event, median_s(took) * 1e3, stored_ms, refers_mb, committed_s]);
        }
        let repetitions = if rows > 1_000_000 { 1 } else { args.repetitions };
        history.starts(&args.workers, repetitions, &mut starts)?;
    }
    [full, incremental, starts].into_iter().for_each(|table| report.table(table));
    report.finish(&args.files)
}

/// Writes `rows` events that were collected since the last checkpoint, on one thread.
fn write_all(rows: u64) -> Result<[f64; 5], Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = TimedStore::open(&dir)?;
    let settings = WriterSettings { store: Arc::clone(&store) as _, generation: 1, process: 0, workers: 1, keep: 3 };
    let (mut writer, (commands, outcomes)) = Writer::new(settings);
    let log = Log::new(rows, &[]);
    let ingest = ingest();
    let (mut event, mut body, mut clock) = (Log::event(), Vec::new(), PartitionClock::default());
    let mut took = Duration::ZERO;
    let mut carry_out = |command| {
        commands.send(command);
        let began = Instant::now();
        writer.run_waiting();
        took += began.elapsed();
        Ok::<_, &str>(())
    };
    for batch in 0..rows.div_ceil(2_048) {
        let (mut activities, mut names) = (Vec::new(), Vec::new());
        for number in batch * 2_048..rows.min((batch + 1) * 2_048) {
            let record = log.record(number, number as i64, &mut event, &mut body);
            let Accepted::Counted { activity, page_url, .. } =
                ingest.accept(&mut clock, &mut history::History::default(), &record)
            else {
                return Err("every event counts".into());
            };
            if number < PAGES * 20 {
                names.push(PageName { page: activity.page, page_url: page_url.into_owned(), keep_until: Tick::NEVER });
            }
            activities.push(activity);
        }
        carry_out(Command::Names(names))?;
        carry_out(Command::Events(activities))?;
    }
    carry_out(Command::Write { number: 1 })?;
    let Outcome::Written { objects, error: None, .. } = outcomes.try_recv()? else { return Err("not written".into()) };
    let written: u64 = objects.iter().map(|object| object.events).sum();
    assert_eq!(written, rows);
    let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
    Ok([
        bytes as f64 / 1e6,
        bytes as f64 / rows as f64,
        took.as_secs_f64(),
        store.waited().as_secs_f64(),
        rows as f64 / took.as_secs_f64(),
    ])
}

/// The checkpoints that a running job has taken after changes of one size.
struct TakenAfter {
    change: u64,
    took: Vec<Duration>,
    /// Of the first: bytes written, and per event; ms in the store; MB that it refers to; s until the slide was committed.
    figures: [f64; 5],
}

/// What a job has left behind: its checkpoints, what it has committed, and a log that goes on.
struct History {
    log: Arc<Log>,
    store: Arc<TimedStore>,
    progress: Progress,
    rows: u64,
    /// As long as the store is used.
    _dir: tempfile::TempDir,
}

impl History {
    /// Runs a job through `rows` events and then the changes, each in a slide of its own, with a checkpoint after each.
    /// Also gives the lines of the report.
    fn make(rows: u64, changes: &[u64]) -> Result<(Self, Vec<TakenAfter>), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let store = TimedStore::open(&dir)?;
        let log = Arc::new(Log::new(rows, changes));
        let recovery = Recovery::new_job(&asked(), &[0; PARTITIONS as usize], &log.bounds(BEGIN_MS));
        let mut run = Run::start(&log, &store, recovery, 2, true)?;
        let mut lines: Vec<TakenAfter> = Vec::new();
        let mut through_ms = BEGIN_MS + FILL_MS;
        for change in std::iter::once(rows).chain(changes.iter().copied()) {
            let began = Instant::now();
            log.release_to_close(through_ms);
            run.committed_through(through_ms)?;
            let committed_after = began.elapsed();
            store.reset();
            let began = Instant::now();
            run.clock_ahead_ms.fetch_add(INTERVAL_MS, Ordering::Relaxed);
            let taken = run.checkpoint()?;
            let took = began.elapsed();
            assert_eq!(taken.through_ms, through_ms);
            let figures = [
                taken.bytes_written as f64,
                taken.bytes_written as f64 / change as f64,
                store.waited().as_secs_f64() * 1e3,
                taken.bytes as f64 / 1e6,
                committed_after.as_secs_f64(),
            ];
            match lines.last_mut().filter(|last| last.change == change && change != rows) {
                Some(last) => last.took.push(took),
                None => lines.push(TakenAfter { change, took: vec![took], figures }),
            }
            through_ms += SLIDE_MS;
        }
        let progress = run.kill()?;
        assert_eq!(progress.committed_through, Some(through_ms - SLIDE_MS));
        log.release_to_close(through_ms);
        Ok((History { log, store, progress, rows, _dir: dir }, lines))
    }

    /// Starts the job again and again, in each way, for `table`.
    fn starts(&self, workers: &[usize], repetitions: usize, table: &mut Table) -> Result<(), Box<dyn Error>> {
        let ways: Vec<(bool, usize)> =
            [true, false].into_iter().flat_map(|restored| workers.iter().map(move |w| (restored, *w))).collect();
        let mut measured: Vec<Vec<Start>> = vec![Vec::new(); ways.len()];
        // They take turns, so that a noisy neighbour disturbs all alike.
        for _ in 0..repetitions {
            for (&(restored, workers), measured) in ways.iter().zip(&mut measured) {
                measured.push(self.start(restored, workers)?);
            }
        }
        let of = |way: usize| {
            let of = |what: fn(&Start) -> Duration| median_s(measured[way].iter().map(what));
            (of(|start| start.spent.wall), of(|start| start.spent.cpu), of(|start| start.checking))
        };
        for (way, &(restored, workers)) in ways.iter().enumerate() {
            let (took, cpu, checking) = of(way);
            let rebuilt = ways.iter().position(|other| *other == (false, workers)).unwrap_or(way);
            let (rebuilt_took, rebuilt_cpu, _) = of(rebuilt);
            let peak_mb = measured[way].iter().map(|start| start.peak_mb).fold(0.0, f64::max);
            let from = if restored { "checkpoint" } else { "rebuilt" };
            let figures = [took, cpu, checking, peak_mb, rebuilt_took / took, rebuilt_cpu / cpu];
            table.row([&self.rows as &dyn std::fmt::Display, &from, &workers], figures);
        }
        Ok(())
    }

    fn start(&self, restored: bool, workers: usize) -> Result<Start, Box<dyn Error>> {
        let committed = self.progress.clone();
        let through = committed.committed_through.ok_or("something is committed")?;
        let (measured, peak_mb) = CountingAllocator::peak_mb(|| {
            let (started, spent) = Spent::by(|| {
                let (restorable, checking) = Spent::by(|| match restored {
                    true => {
                        let (found, _) = newest(&*self.store, JOB, CONFIGURATION, Some(Tick(through)))?;
                        let (name, manifest) = found.ok_or("the checkpoint is good")?;
                        Ok::<_, Box<dyn Error>>(Some(Restore::of(name, manifest)))
                    }
                    false => Ok(None),
                });
                let bounds = self.log.bounds(through + 2 * SLIDE_MS);
                let recovery = Recovery::resumed(&asked(), committed, Vec::new(), &bounds, restorable?)?;
                let mut run = Run::start(&self.log, &self.store, recovery, workers, false)?;
                run.committed_through(through + SLIDE_MS)?;
                Ok::<_, Box<dyn Error>>((run, checking.cpu))
            });
            let (run, checking) = started?;
            run.kill()?;
            Ok::<_, Box<dyn Error>>((spent, checking))
        });
        let (spent, checking) = measured?;
        Ok(Start { spent, checking, peak_mb })
    }
}

/// What a start took.
#[derive(Clone, Copy)]
struct Start {
    /// Until the first new commit.
    spent: Spent,
    /// What of its CPU time went into finding the checkpoint and reading all of it once, before it is read again.
    checking: Duration,
    peak_mb: f64,
}

const JOB: &str = "bench";
const CONFIGURATION: &str = "{}";

fn windows() -> Windows {
    Windows::new(SIZE_MS, SLIDE_MS, 0).expect("windows")
}

fn ingest() -> Ingest {
    Ingest {
        format: Format::Avro(Decoder::default()),
        limits: Limits::default(),
        hash_key: HashKey::new("a benchmark").expect("a key"),
        page_key: PageKey::Full,
        windows: windows(),
        bound_ms: BOUND_MS,
    }
}

fn asked() -> Asked<'static> {
    Asked {
        job: JOB,
        events: "events",
        topic_id: None,
        progress: "progress",
        until_end: false,
        configuration: CONFIGURATION,
        differences: &|_| Vec::new(),
        windows: windows(),
        bound_ms: BOUND_MS,
        keeps_history: false,
        accept_gap: false,
        generation_seen: 0,
    }
}

/// A job that runs, on threads of its own, until it is killed.
struct Run {
    workers: JoinHandle<Result<Ended, JobError>>,
    news: mpsc::Receiver<News>,
    killed: Arc<AtomicBool>,
    clock_ahead_ms: Arc<AtomicI64>,
    progress: Arc<Mutex<Progress>>,
    committed_ms: i64,
}

enum News {
    Committed(Option<Tick>),
    Checkpoint(Result<Taken, String>),
    Failed(String),
}

impl Run {
    fn start(
        log: &Arc<Log>,
        store: &Arc<TimedStore>,
        recovery: Recovery,
        workers: usize,
        takes_checkpoints: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let Recovery { progress, start, .. } = recovery;
        let (allocators, start) = assemble::<ClusterError>(&Cluster::single(workers), JOB, || Ok(start))?;
        let checkpoints = takes_checkpoints.then(|| {
            let (writer, (commands, outcomes)) = Writer::new(WriterSettings {
                store: Arc::clone(store) as _,
                generation: start.generation,
                process: 0,
                workers,
                keep: 3,
            });
            std::thread::spawn(move || writer.run());
            Checkpoints {
                settings: CoordinatorSettings {
                    job: JOB.to_owned(),
                    configuration: CONFIGURATION.to_owned(),
                    topic_id: None,
                    interval_ms: INTERVAL_MS,
                    processes: 1,
                },
                committed: Arc::new(Mutex::new(Committed::at(&start, SIZE_MS))),
                requests: SavepointRequests::default(),
                process: 0,
                commands: Mutex::new(commands),
                outcomes: Mutex::new(Some(outcomes)),
            }
        });
        let (tell, news) = mpsc::channel();
        let observer: Arc<dyn ObserveJob> = Arc::new(Watch(tell));
        let progress = Arc::new(Mutex::new(progress));
        let sink = Remembers(Arc::clone(&progress));
        let (killed, clock_ahead_ms) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (clock, ahead_ms) = (pipeline::monotonic_clock(), Arc::clone(&clock_ahead_ms));
        let job = Job {
            workers,
            source: SourceSettings {
                ingest: Arc::new(ingest()),
                history: HistoryLimits::default(),
                idle_timeout_ms: None,
                ticks_ahead: 4,
                records_in_flight: 1_000_000,
                late_to_dead_letters: true,
                dead_letter_payload: DeadLetterPayload::Original,
                sanitised_events: false,
            },
            start,
            partitions: Box::new(Memory(Arc::clone(log))),
            committer: pipeline::committer(Box::new(sink), &observer, checkpoints.as_ref()),
            restore_from: Some(Arc::clone(store) as _),
            checkpoints,
            observer,
            now_ms: Arc::new(move || clock() + ahead_ms.load(Ordering::Relaxed)),
            pace: Arc::new(UntilKilled(Arc::clone(&killed))),
            stop: Arc::default(),
        };
        let workers = std::thread::spawn(move || pipeline::run(allocators, Arc::new(job)));
        Ok(Run { workers, news, killed, clock_ahead_ms, progress, committed_ms: i64::MIN })
    }

    fn committed_through(&mut self, end_ms: i64) -> Result<(), Box<dyn Error>> {
        while self.committed_ms < end_ms {
            match self.news.recv_timeout(PATIENCE)? {
                News::Committed(through) => self.committed_ms = through.map_or(i64::MIN, |through| through.0),
                News::Failed(reason) => return Err(reason.into()),
                News::Checkpoint(taken) => return Err(format!("a checkpoint that was not due: {taken:?}").into()),
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Taken, Box<dyn Error>> {
        match self.news.recv_timeout(PATIENCE)? {
            News::Checkpoint(taken) => Ok(taken?),
            News::Failed(reason) => Err(reason.into()),
            News::Committed(through) => Err(format!("committed what is not complete: {through:?}").into()),
        }
    }

    /// Ends it on the spot; what it has committed.
    fn kill(self) -> Result<Progress, Box<dyn Error>> {
        self.killed.store(true, Ordering::Relaxed);
        self.workers.join().map_err(|_| "a worker panicked")??;
        Ok(self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

struct Watch(mpsc::Sender<News>);

impl ObserveJob for Watch {
    // Nobody listens any more once it is killed.
    fn committed(&self, epoch: Epoch) {
        self.0.send(News::Committed(epoch.through)).ok();
    }

    fn checkpoint(&self, outcome: &Result<Taken, String>) {
        self.0.send(News::Checkpoint(outcome.clone())).ok();
    }

    fn failed(&self, error: &JobError) {
        self.0.send(News::Failed(error.to_string())).ok();
    }
}

struct UntilKilled(Arc<AtomicBool>);

impl Pace for UntilKilled {
    fn turn(&self, _worker: usize) -> Option<Duration> {
        (!self.0.load(Ordering::Relaxed)).then_some(Duration::from_millis(20))
    }
}

/// A sink that keeps the progress, as a transaction of the committer on Kafka does, and no results.
struct Remembers(Arc<Mutex<Progress>>);

impl CommitEpoch for Remembers {
    fn commit(&mut self, epoch: &Epoch) -> Result<(), CommitError> {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.committed_through = epoch.through.map(|tick| tick.0);
        for cut in &epoch.cuts {
            progress.input[cut.partition as usize] = *cut;
        }
        Ok(())
    }
}

/// A log whose records are made up from their numbers; number `n` is offset `n / PARTITIONS` of partition `n % PARTITIONS`.
struct Log {
    /// The first number, the first event time (ms), the length (ms) and the events of each stretch of it.
    stretches: Vec<(u64, i64, i64, u64)>,
    rows: u64,
    /// What is before this number has arrived.
    released: AtomicU64,
}

impl Log {
    fn new(rows: u64, changes: &[u64]) -> Self {
        let mut stretches = vec![(0, BEGIN_MS, FILL_MS, rows)];
        let (mut number, mut time_ms) = (rows, BEGIN_MS + FILL_MS);
        for &change in changes.iter().chain(&[EVENTS_PER_LATER_SLIDE; 4]) {
            // One event for each partition closes the slide before, so that no checkpoint holds more of what follows.
            stretches.push((number, time_ms + BOUND_MS, BOUND_MS, PARTITIONS));
            number += PARTITIONS;
            stretches.push((number, time_ms + 2 * BOUND_MS, SLIDE_MS - 2 * BOUND_MS, change));
            number += change;
            time_ms += SLIDE_MS;
        }
        Log { stretches, rows, released: AtomicU64::new(0) }
    }

    fn time_ms(&self, number: u64) -> i64 {
        let (first, first_ms, length_ms, events) =
            self.stretches[self.stretches.partition_point(|stretch| stretch.0 <= number) - 1];
        first_ms + ((number - first) as i128 * i128::from(length_ms) / i128::from(events)) as i64
    }

    /// Has everything arrive that closes the windows up to `end_ms`, and nothing else.
    fn release_to_close(&self, end_ms: i64) {
        self.released.store(self.before_ms(end_ms + 2 * BOUND_MS), Ordering::Relaxed);
    }

    /// How many events are before a time.
    fn before_ms(&self, time_ms: i64) -> u64 {
        let last = self.stretches.partition_point(|stretch| stretch.1 < time_ms).max(1) - 1;
        let (first, first_ms, length_ms, events) = self.stretches[last];
        let within_ms = (time_ms - first_ms).clamp(0, length_ms);
        first + (i128::from(within_ms) * i128::from(events) / i128::from(length_ms)) as u64
    }

    fn bounds(&self, time_ms: i64) -> Vec<Bounds> {
        let high = |partition| Self::offsets(self.before_ms(time_ms), partition);
        (0..PARTITIONS).map(|partition| Bounds { low: 0, high: high(partition) }).collect()
    }

    /// How many of the first `numbers` are in a partition.
    fn offsets(numbers: u64, partition: u64) -> i64 {
        (numbers.saturating_sub(partition)).div_ceil(PARTITIONS) as i64
    }

    fn event() -> ClickEvent {
        ClickEvent {
            user_id: String::new(),
            session_id: String::new(),
            event_type: EventType::View,
            page_url: String::new(),
            product_id: None,
            timestamp: 0,
            user_agent: "Mozilla/5.0 (X11; Linux x86_64)".to_owned(),
            ip_address: "192.0.2.1".to_owned(),
            referrer: None,
            session_duration: None,
        }
    }

    /// Record `number`, with the offset it is to have. Sessions have 20 events each, all over the window, and users two
    /// sessions.
    fn record<'a>(&self, number: u64, offset: i64, event: &mut ClickEvent, body: &'a mut Vec<u8>) -> Record<'a> {
        let chance = mixed(number);
        let session = chance % (self.rows / 20).max(1);
        let rewrite = |text: &mut String, what: &str, number: u64| {
            text.clear();
            // Writing to a string does not fail.
            write!(text, "{what}{number}").ok();
        };
        rewrite(&mut event.user_id, "user-", session / 2);
        rewrite(&mut event.session_id, "session-", session);
        rewrite(&mut event.page_url, "https://shop.example/page/", (chance >> 40) % PAGES);
        event.event_type =
            [EventType::View, EventType::View, EventType::Click, EventType::Purchase][(chance >> 32) as usize % 4];
        event.session_duration = (chance >> 60 == 0).then_some(((chance >> 50) % 600) as i32);
        event.timestamp = self.time_ms(number);
        body.clear();
        encode_event(event, body);
        Record { offset, record_timestamp_ms: Some(event.timestamp), payload: body }
    }
}

/// A number that looks like chance (SplitMix64; Steele, Lea and Flood 2014).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Memory(Arc<Log>);

impl OpenPartitions for Memory {
    fn open(
        &self,
        _worker: usize,
        start: &JobStart,
        cuts: &[PartitionCut],
        _: Waker,
    ) -> Result<Vec<SourcePartition>, SourceError> {
        let open = |cut: &PartitionCut| SourcePartition {
            reader: Box::new(MemoryPartition {
                log: Arc::clone(&self.0),
                partition: cut.partition as u64,
                position: cut.replay_from,
                event: Log::event(),
                body: Vec::new(),
            }),
            format: None,
            cut: *cut,
            floors: start.floors_of(cut),
        };
        Ok(cuts.iter().map(open).collect())
    }
}

struct MemoryPartition {
    log: Arc<Log>,
    partition: u64,
    position: i64,
    event: ClickEvent,
    body: Vec<u8>,
}

impl ReadPartition for MemoryPartition {
    fn read(&mut self, limit: usize, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), SourceError> {
        let end = Log::offsets(self.log.released.load(Ordering::Relaxed), self.partition);
        for _ in 0..limit.min(usize::try_from(end - self.position).unwrap_or(0)) {
            let number = self.position as u64 * PARTITIONS + self.partition;
            each(&self.log.record(number, self.position, &mut self.event, &mut self.body));
            self.position += 1;
        }
        Ok(())
    }

    fn position(&self) -> i64 {
        self.position
    }

    fn end(&self) -> Option<LogEnd> {
        None
    }
}

/// A directory store that tells how long writers waited for it.
struct TimedStore {
    store: Arc<dyn Store>,
    waited_ns: AtomicU64,
}

impl TimedStore {
    fn open(dir: &tempfile::TempDir) -> Result<Arc<Self>, StoreError> {
        let store = open_store(&StoreLocation::Directory(dir.path().to_owned()), &Properties::default(), JOB)?;
        Ok(Arc::new(TimedStore { store, waited_ns: AtomicU64::new(0) }))
    }

    fn reset(&self) {
        self.waited_ns.store(0, Ordering::Relaxed);
    }

    fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed))
    }
}

impl Store for TimedStore {
    fn put_new(&self, name: &str, body: Vec<u8>) -> Result<(), StoreError> {
        let began = Instant::now();
        let done = self.store.put_new(name, body);
        self.waited_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        done
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
