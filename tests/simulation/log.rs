//! The broker: the partitions of the input, and what jobs commit.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clicktide::audit::Click;
use clicktide::avro::ProgressRecord;
use clicktide::ingest::{Ingest, Record};
use clicktide::progress::{CommittedProgress, IdleAdvance, Progress};
use clicktide::recovery::Bounds;
use clicktide::source::{DeadLetter, SanitisedRecord};
use clicktide::validation::Reason;
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Tick;

/// A record of the input.
#[derive(Clone, Debug)]
pub struct Entry {
    pub offset: i64,
    pub record_ms: Option<i64>,
    pub payload: Vec<u8>,
    /// What the oracle makes of it.
    pub click: Result<Click, Reason>,
    /// What others may see of it, if it is a valid event.
    pub sanitised: Option<Vec<u8>>,
}

/// One partition of the input.
#[derive(Clone, Debug, Default)]
pub struct InputPartition {
    /// In order of their offsets; with gaps, where markers of transactions and what was aborted would be.
    pub entries: Vec<Entry>,
    pub low: i64,
    pub high: i64,
    /// The first offset of a producer's transaction that is open, and those of its records.
    open: Option<(i64, Vec<i64>)>,
}

impl InputPartition {
    /// Adds a record, in the open transaction (which it may begin) or outside of any.
    pub fn append(&mut self, ingest: &Ingest, (record_ms, payload): (Option<i64>, Vec<u8>), in_transaction: bool) {
        let offset = self.high;
        self.high += 1;
        if in_transaction {
            self.open.get_or_insert((offset, Vec::new())).1.push(offset);
        }
        let record = Record { offset, record_timestamp_ms: record_ms, payload: &payload };
        let click = ingest.read(&record).map(|valid| Click::new(valid, record.payload));
        let sanitised = ingest.sanitised(&record).filter(|_| click.is_ok()).map(|sanitised| sanitised.body);
        self.entries.push(Entry { offset, record_ms, payload, click, sanitised });
    }

    /// Ends the open transaction, if there is one, which takes an offset for its marker.
    pub fn end_transaction(&mut self, committed: bool) {
        if let Some((_, offsets)) = self.open.take() {
            self.high += 1;
            if !committed {
                self.entries.retain(|entry| !offsets.contains(&entry.offset));
            }
        }
    }

    /// All before it can be read.
    pub fn last_stable(&self) -> i64 {
        self.open.as_ref().map_or(self.high, |(first, _)| *first)
    }

    pub fn bounds(&self) -> Bounds {
        Bounds { low: self.low, high: self.last_stable() }
    }

    /// The records that can be read, from an offset on.
    pub fn readable(&self, from: i64) -> impl Iterator<Item = &Entry> {
        let end = self.last_stable();
        self.entries.iter().filter(move |entry| (from..end).contains(&entry.offset))
    }
}

/// What a job sends in a transaction.
#[derive(Clone, Debug)]
pub enum Message {
    Result(PageAnalytics),
    Letter(DeadLetter),
    Sanitised(SanitisedRecord),
    Progress(ProgressRecord),
    /// A tombstone: forgets a record of the progress.
    Forget(String),
}

/// The producer belongs to a run that is no longer the latest.
#[derive(Debug)]
pub struct Fenced;

/// What jobs have sent and committed.
#[derive(Debug, Default)]
pub struct Output {
    latest_producer: i64,
    open: BTreeMap<i64, Vec<Message>>,
    /// Whether a new producer fences the older ones.
    pub unfenced: bool,
    pub results: Vec<PageAnalytics>,
    pub letters: Vec<DeadLetter>,
    pub sanitised: Vec<SanitisedRecord>,
    pub progress: Option<Progress>,
    idle_advances: BTreeMap<String, IdleAdvance>,
    /// Also those that were forgotten.
    pub idle_advances_ever: BTreeMap<(i32, i64), i64>,
    pub transactions: u64,
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// What was committed, for the steps.
    pub said: String,
}

impl Output {
    /// A new producer, which fences all before it and aborts what they had open.
    pub fn init(&mut self) -> i64 {
        self.latest_producer += 1;
        if !self.unfenced {
            self.open.clear();
        }
        self.latest_producer
    }

    fn fence(&self, producer: i64) -> Result<(), Fenced> {
        if producer == self.latest_producer || self.unfenced { Ok(()) } else { Err(Fenced) }
    }

    pub fn send(&mut self, producer: i64, message: Message) -> Result<(), Fenced> {
        self.fence(producer)?;
        self.open.entry(producer).or_default().push(message);
        Ok(())
    }

    pub fn abort(&mut self, producer: i64) {
        self.open.remove(&producer);
    }

    /// Makes all that the producer has sent visible at once.
    pub fn commit(&mut self, producer: i64) -> Result<(), Fenced> {
        self.fence(producer)?;
        let before = self.progress.as_ref().and_then(|progress| progress.committed_through);
        let generation = self.progress.as_ref().map_or(0, |progress| progress.generation);
        let messages = self.open.remove(&producer).unwrap_or_default();
        let after = messages.iter().rev().find_map(|message| match message {
            Message::Progress(ProgressRecord::Progress(progress)) => Some(progress),
            _ => None,
        });
        let after_ms = after.map_or(before, |progress| progress.committed_through);
        let mut violations = Vec::new();
        if after_ms < before {
            violations.push(format!("progress goes back from {before:?} to {after_ms:?}"));
        }
        if after.is_some_and(|progress| progress.generation < generation) {
            violations.push("an older generation commits".to_owned());
        }
        let within = |tick: i64| Some(tick) > before && Some(tick) <= after_ms;
        // What comes before its partition's first event belongs to no window, and goes out with whatever is first.
        let within_or_first = |tick: Tick| within(tick.0) || (tick == Tick::MIN && before.is_none());
        write!(self.said, "commit {before:?} to {after_ms:?}").expect("memory suffices");
        for message in messages {
            match message {
                Message::Result(result) => {
                    if !within(result.window_end) {
                        violations.push(format!("{result:?} is committed with {before:?} to {after_ms:?}"));
                    }
                    write!(self.said, " {}{}={}", result.window_end, result.page_url, result.view_count)
                        .expect("memory suffices");
                    self.results.push(result);
                }
                Message::Letter(letter) => {
                    if !within_or_first(letter.tick) {
                        violations.push(format!("{letter:?} is committed with {before:?} to {after_ms:?}"));
                    }
                    write!(self.said, " letter {}/{}", letter.partition, letter.offset).expect("memory suffices");
                    self.letters.push(letter);
                }
                Message::Sanitised(event) => {
                    if !within_or_first(event.tick) {
                        violations.push(format!("{event:?} is committed with {before:?} to {after_ms:?}"));
                    }
                    self.sanitised.push(event);
                }
                Message::Progress(record) => {
                    let key = record.key();
                    match record {
                        ProgressRecord::Progress(progress) => {
                            let cuts = progress.input.iter().map(|cut| (cut.position, cut.replay_from));
                            write!(self.said, " cuts {:?}", cuts.collect::<Vec<_>>()).expect("memory suffices");
                            self.progress = Some(progress);
                        }
                        ProgressRecord::IdleAdvance(advance) => {
                            write!(self.said, " {key}={}", advance.floor_ms).expect("memory suffices");
                            let ever = self.idle_advances_ever.entry((advance.partition, advance.next_offset));
                            let ever = ever.or_insert(advance.floor_ms);
                            if advance.floor_ms < *ever {
                                violations.push(format!("{advance:?} is less than {ever}, committed before"));
                            }
                            *ever = advance.floor_ms;
                            self.idle_advances.insert(key, advance);
                        }
                    }
                }
                Message::Forget(key) => drop(self.idle_advances.remove(&key)),
            }
        }
        self.said.push('\n');
        self.transactions += 1;
        if let Some(violation) = violations.into_iter().next() {
            self.violation.get_or_insert(violation);
        }
        Ok(())
    }

    /// What a start reads.
    pub fn committed(&self) -> CommittedProgress {
        let mut idle_advances: Vec<_> = self.idle_advances.values().copied().collect();
        idle_advances.sort_unstable();
        CommittedProgress { progress: self.progress.clone(), idle_advances }
    }
}

/// What becomes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is committed, and acknowledged.
    Fine,
    /// It is aborted, and the job is told so.
    Fails,
    /// The process is killed after so many messages; there may be fewer.
    KilledAfter(usize),
    /// The job is told that nobody knows.
    Unknown { visible: bool },
    /// The process is killed before it hears of the outcome.
    KilledDuring { visible: bool },
}

/// The log, and what is to become of the next transaction.
#[derive(Debug, Default)]
pub struct World {
    pub input: Vec<InputPartition>,
    pub output: Output,
    pub fate: Option<Fate>,
    /// The process that has just committed is to be killed.
    pub killed: bool,
}

impl World {
    pub fn bounds(&self) -> Vec<Bounds> {
        self.input.iter().map(InputPartition::bounds).collect()
    }
}
