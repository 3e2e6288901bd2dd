//! The exact results that the traffic has to give, by the audit's own recomputation and not by the dataflow.
//!
//! ```text
//!  deliveries ─▶ Witness ──partition by partition, in order──▶ audit::expect, on a thread of its own ─▶ FILE
//! ```
//!
//! What counts is what has arrived: each record with its place in the log and the log's own time for it, as the broker
//! acknowledges them. Every window is closed at the end, as in a run with `--until-end`.
//!
//! It assumes that the generator is the only writer of the topic from where the partitions ended when it began, and notices where
//! that is not so: then there is no file. It knows nothing of idle advances. A job that has recorded some judges events of a
//! partition that was quiet by them, so that events which come late there may be late for the job and count here.
//!
//! In memory are the events of one window, and those that have arrived in partitions ahead of the slowest: about 300 bytes each. A
//! partition that gets no event at all keeps everything waiting.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;

use crate::audit::{Click, Definition, Partition, Totals, expect};
use crate::history::HistoryLimits;
use crate::ingest::{Ingest, Record};
use crate::validation::Reason;

/// Why there is no truth.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// The file can't be written.
    #[error("can't write the truth to {file}: {source}")]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What has been generated can't be read again.
    #[error("can't tell the truth of what can't be read: {0}")]
    Read(String),
    /// Somebody else writes to the topic.
    #[error(
        "there is no truth: partition {partition} has records of others, offset {expected} for one; the generator has to be \
         the only writer of the topic"
    )]
    Foreign {
        /// The partition.
        partition: usize,
        /// The first offset that is not the generator's.
        expected: i64,
    },
    /// The place of an acknowledged record is not known.
    #[error(
        "there is no truth: the broker has acknowledged a record of partition {partition} without telling its offset"
    )]
    UnknownOffset {
        /// The partition.
        partition: usize,
    },
    /// It is not known whether some events have arrived.
    #[error("there is no truth: it is not known whether {0} events have arrived")]
    Unacknowledged(u64),
    /// The topic has another partition than when the run began.
    #[error("there is no truth: partition {0} has been added to the topic meanwhile")]
    NewPartition(usize),
    /// The thread that computes it is gone.
    #[error("the thread that computes the truth has failed")]
    Thread,
}

/// What the truth is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Where it is.
    pub file: PathBuf,
    /// What became of the records.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Computes the results of `partitions` and writes them to `file`, a JSON object per line in order of window end, then page. The
/// file is there once it is whole. `ingest` and `history` are how the job reads and judges.
///
/// # Errors
/// See [`TruthError`].
pub fn write_truth<I, E>(
    file: &Path,
    ingest: &Ingest,
    history: HistoryLimits,
    partitions: Vec<Partition<I>>,
) -> Result<Told, TruthError>
where
    I: Iterator<Item = Result<(i64, Result<Click, Reason>), E>>,
    E: std::fmt::Display,
{
    let mut lines = Lines::create(file)?;
    let totals = lines.write(&definition(ingest, history), partitions)?;
    lines.publish()?;
    Ok(Told { file: file.to_owned(), totals })
}

/// A truth that is computed while events arrive.
pub struct LiveTruth {
    file: PathBuf,
    witness: Witness,
    computing: JoinHandle<Result<(Lines, Totals), TruthError>>,
}

/// Hears of every record that has arrived.
#[derive(Clone)]
pub struct Witness {
    ingest: Arc<Ingest>,
    heard: Arc<Mutex<Heard>>,
}

struct Heard {
    partitions: Vec<PartitionHeard>,
    failure: Option<TruthError>,
}

struct PartitionHeard {
    next_offset: i64,
    arrived: Sender<(i64, Result<Click, Reason>)>,
}

impl LiveTruth {
    /// Begins a truth of what arrives from `end_offsets` on, where the partitions end now. `ingest` and `history` are how the job
    /// reads and judges.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn begin(file: &Path, ingest: Ingest, history: HistoryLimits, end_offsets: &[i64]) -> Result<Self, TruthError> {
        let mut lines = Lines::create(file)?;
        let definition = definition(&ingest, history);
        let (partitions, receivers): (Vec<_>, Vec<Receiver<_>>) = end_offsets
            .iter()
            .map(|next_offset| {
                let (arrived, receiver) = mpsc::channel();
                (PartitionHeard { next_offset: *next_offset, arrived }, receiver)
            })
            .unzip();
        let witness =
            Witness { ingest: Arc::new(ingest), heard: Arc::new(Mutex::new(Heard { partitions, failure: None })) };
        let compute = move || {
            let partitions = receivers.into_iter().map(|receiver| Partition {
                records: receiver.into_iter().map(Ok::<_, Infallible>),
                idle_advances: Vec::new(),
            });
            let totals = lines.write(&definition, partitions.collect())?;
            Ok((lines, totals))
        };
        let computing = std::thread::Builder::new()
            .name("truth".to_owned())
            .spawn(compute)
            .map_err(|source| TruthError::Write { file: file.to_owned(), source })?;
        Ok(LiveTruth { file: file.to_owned(), witness, computing })
    }

    /// To be told of what arrives.
    pub fn witness(&self) -> Witness {
        self.witness.clone()
    }

    /// Waits until every window has been computed, and publishes the file. `unacknowledged` events may have arrived unheard of.
    ///
    /// # Errors
    /// See [`TruthError`]. Then there is no file.
    pub fn finish(self, unacknowledged: u64) -> Result<Told, TruthError> {
        let failure = {
            let mut heard = self.witness.heard();
            // Without senders the channels end.
            heard.partitions.clear();
            heard.failure.take()
        };
        let (lines, totals) = self.computing.join().map_err(|_| TruthError::Thread)??;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if unacknowledged > 0 {
            return Err(TruthError::Unacknowledged(unacknowledged));
        }
        lines.publish()?;
        Ok(Told { file: self.file, totals })
    }
}

impl Witness {
    /// Hears of a record. Those of a partition are told in the order of their offsets; costs decoding it.
    pub fn acknowledged(&self, record: &Record<'_>, partition: usize) {
        let click = self.ingest.read(record).map(|valid| Click::new(valid, record.payload));
        let mut heard = self.heard();
        let Heard { partitions, failure } = &mut *heard;
        if failure.is_some() {
            return;
        }
        let outcome = match partitions.get_mut(partition) {
            None => Err(TruthError::NewPartition(partition)),
            Some(_) if record.offset < 0 => Err(TruthError::UnknownOffset { partition }),
            Some(of) if record.offset != of.next_offset => {
                Err(TruthError::Foreign { partition, expected: of.next_offset.min(record.offset) })
            }
            Some(of) => {
                of.next_offset += 1;
                // Where nobody listens any more, the file could not be written, which is said at the end.
                _ = of.arrived.send((record.offset, click));
                Ok(())
            }
        };
        *failure = outcome.err();
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // What is behind this lock is right whatever happened to another holder.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the results of a job with no end are that reads and judges so.
fn definition(ingest: &Ingest, history: HistoryLimits) -> Definition {
    Definition { windows: ingest.windows, bound_ms: ingest.bound_ms, through_ms: None, history }
}

/// The file while it is not whole, beside its place. Dropped before that, it is gone.
struct Lines {
    file: PathBuf,
    partial: PathBuf,
    output: BufWriter<File>,
}

impl Lines {
    fn create(file: &Path) -> Result<Self, TruthError> {
        let mut name = file.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let output = File::create(&partial).map_err(|source| TruthError::Write { file: file.to_owned(), source })?;
        Ok(Lines { file: file.to_owned(), partial, output: BufWriter::new(output) })
    }

    fn write<I, E>(&mut self, definition: &Definition, partitions: Vec<Partition<I>>) -> Result<Totals, TruthError>
    where
        I: Iterator<Item = Result<(i64, Result<Click, Reason>), E>>,
        E: std::fmt::Display,
    {
        let mut failed = None;
        let write = |result: PageAnalytics| {
            if failed.is_none() {
                failed = self.line(&result).err();
            }
        };
        let totals = expect(definition, partitions, write, |_| {}).map_err(|e| TruthError::Read(e.to_string()))?;
        match failed.map_or_else(|| self.output.flush(), Err) {
            Ok(()) => Ok(totals),
            Err(source) => Err(TruthError::Write { file: self.file.clone(), source }),
        }
    }

    fn line(&mut self, result: &PageAnalytics) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, result)?;
        self.output.write_all(b"\n")
    }

    fn publish(self) -> Result<(), TruthError> {
        fs::rename(&self.partial, &self.file).map_err(|source| TruthError::Write { file: self.file.clone(), source })
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // After it was published there is nothing left to remove.
        _ = fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests;
