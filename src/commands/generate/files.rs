//! `clicktide generate --output`: traffic into files, as fast as can be.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{Generate, Generated};
use crate::audit::{Click, Partition};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::file::FilePartition;
use crate::generator::clock::{Clock, SystemClock, VirtualClock};
use crate::generator::lines::LinesSink;
use crate::generator::report::Progress;
use crate::generator::run::{RunError, run};
use crate::generator::truth::write_truth;
use crate::ingest::{Format, Ingest};
use crate::source::{ReadPartition, SourceError};
use crate::validation::Reason;

/// Writes the traffic of the configured duration, or until `stop`, and then the truth about it.
///
/// # Errors
/// When there is no duration, or a file can't be written.
pub(super) fn write(
    generate: &Generate,
    config: &Config,
    stop: &AtomicBool,
    report: impl FnMut(&Progress),
) -> Result<Generated, Failure> {
    if config.generator.duration.is_none() {
        let why = "--output needs an end: give --duration, or generator.duration";
        return Err(Failure::new(Exit::Configuration, why));
    }
    let clock = VirtualClock::new(generate.start_ms.unwrap_or_else(|| SystemClock::new().origin_ms()));
    let failure = |e: &dyn std::fmt::Display| Failure::new(Exit::Failure, e);
    let mut sink = LinesSink::create(&generate.output, config.generator.key, &clock).map_err(|e| failure(&e))?;
    let summary = run(&config.generator, &clock, stop, &mut sink, report).map_err(|error| match error {
        RunError::Settings(_) => Failure::new(Exit::Configuration, error),
        RunError::Send { .. } => failure(&error),
    })?;
    drop(sink);
    let truth = match &generate.truth {
        None => None,
        Some(file) => {
            let ingest = Ingest { format: Format::JsonLines, ..config.ingest() };
            let open = |(partition, output): (usize, &std::path::PathBuf)| {
                let records = records(output, partition as i32, &ingest)?;
                Ok(Partition { records, idle_advances: Vec::new() })
            };
            let partitions = generate.output.iter().enumerate().map(open).collect::<Result<_, SourceError>>();
            Some(write_truth(file, &ingest, config.history(), partitions.map_err(|e| failure(&e))?))
        }
    };
    Ok(Generated { summary, truth })
}

/// A record's offset, and its event or why it was rejected.
type Read = Result<(i64, Result<Click, Reason>), SourceError>;

/// The records of a file, one at a time.
fn records<'a>(
    file: &Path,
    partition: i32,
    ingest: &'a Ingest,
) -> Result<impl Iterator<Item = Read> + use<'a>, SourceError> {
    let mut reader = FilePartition::open(file, partition)?;
    Ok(std::iter::from_fn(move || {
        let mut read = None;
        while read.is_none() && !reader.exhausted() {
            let outcome = reader.read(1, &mut |record| {
                read = Some((record.offset, ingest.read(record).map(|valid| Click::new(valid, record.payload))))
            });
            if let Err(error) = outcome {
                return Some(Err(error));
            }
        }
        read.map(Ok)
    }))
}
