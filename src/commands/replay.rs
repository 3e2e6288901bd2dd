//! `clicktide replay`: the job's dataflow over files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::cluster::{ClusterError, assemble};
use crate::commands::progress::{Unit, tell_progress};
use crate::commands::status_line::{Voice, say};
use crate::committer::{CommitEpoch, Epoch};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::file::{FilePartition, JsonLinesSink};
use crate::logging;
use crate::pipeline::{self, Ended, Job, JobError, ObserveJob, OpenPartitions, Unpaced, Waker};
use crate::progress::{JobStart, PartitionCut};
use crate::source::{SourceCounts, SourceError, SourcePartition, SourceSettings};
use crate::work::Work;

/// What to replay, and where its results go.
pub struct Replay {
    /// Each file is a partition.
    pub files: Vec<PathBuf>,
    /// Where results are written; none: standard output.
    pub output: Option<PathBuf>,
    /// Where sanitised events are written; none: nowhere.
    pub sanitised: Option<PathBuf>,
    /// How it is told what is going on. In JSON, the summary goes to standard output.
    pub voice: Voice,
}

/// Replays files; process 0 writes the results.
///
/// # Errors
/// When a file can't be read or the results can't be written.
pub fn replay(replay: Replay, config: &Config) -> Result<(), Failure> {
    let cluster = config.cluster();
    let source = SourceSettings { sanitised_events: replay.sanitised.is_some(), ..config.source_settings() };
    // Opened once before anything starts, so that a wrong name is told at once.
    for (partition, file) in replay.files.iter().enumerate() {
        FilePartition::open(file, partition as i32).map_err(|e| Failure::new(Exit::Source, e))?;
    }
    let written = [("--output", &replay.output), ("--sanitised", &replay.sanitised)];
    for (flag, path) in written.into_iter().filter_map(|(flag, path)| Some((flag, path.as_ref()?))) {
        let same =
            |file: &PathBuf| file.canonicalize().is_ok_and(|file| path.canonicalize().is_ok_and(|path| file == path));
        if replay.files.iter().any(same) {
            let why = format!("{flag} {}: is also read, and would be overwritten", path.display());
            return Err(Failure::new(Exit::Configuration, why));
        }
    }
    if replay.sanitised.is_some() && replay.sanitised == replay.output {
        return Err(Failure::new(Exit::Configuration, "--sanitised: is where the results go, too"));
    }
    let partitions = replay.files.len() as i32;
    let identity = format!("replay of {partitions} files");
    let (allocators, start) = assemble::<ClusterError>(&cluster, &identity, || Ok(JobStart::fresh(partitions)))
        .map_err(|e| Failure::new(e.exit(), e))?;
    let sink = (cluster.process == 0).then(|| sink(replay.output, replay.sanitised)).transpose()?;
    let counts = Arc::new(Counts::default());
    let work = Arc::new(Work::default());
    let observer: Arc<dyn ObserveJob> = Arc::clone(&counts) as _;
    let job = Job {
        workers: cluster.workers,
        source,
        start,
        partitions: Box::new(Files { files: replay.files, work: Arc::clone(&work) }),
        committer: sink.map_or_else(Mutex::default, |sink| pipeline::committer(sink, &observer, None)),
        restore_from: None,
        checkpoints: None,
        observer,
        now_ms: pipeline::monotonic_clock(),
        pace: Arc::new(Unpaced),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let progress = tell_progress("replay", work, Unit::Bytes, replay.voice)?;
    let ended = pipeline::run(allocators, Arc::new(job)).map_err(|e| Failure::new(Exit::Failure, e));
    drop(progress);
    match ended? {
        Ended::Finished => {
            counts.say(replay.voice);
            Ok(())
        }
        Ended::Stopped | Ended::Failed | Ended::Killed => {
            Err(Failure::new(Exit::Failure, "the replay has not come to its end"))
        }
    }
}

fn sink(output: Option<PathBuf>, sanitised: Option<PathBuf>) -> Result<Box<dyn CommitEpoch>, Failure> {
    type Output = Box<dyn Write + Send>;
    let created = |path: PathBuf| {
        let name = path.display().to_string();
        let file = File::create(&path).map_err(|e| Failure::new(Exit::Failure, format!("can't write {name}: {e}")))?;
        Ok::<_, Failure>((Box::new(BufWriter::new(file)) as Output, name))
    };
    let (output, name) = match output {
        Some(path) => created(path)?,
        None => (Box::new(BufWriter::new(io::stdout())) as Output, "standard output".to_owned()),
    };
    let sink = JsonLinesSink::new(output, name);
    Ok(match sanitised.map(created).transpose()? {
        Some((output, name)) => Box::new(sink.with_sanitised(output, name)),
        None => Box::new(sink),
    })
}

/// The files, and how much of those of this process is read.
struct Files {
    files: Vec<PathBuf>,
    work: Arc<Work>,
}

impl OpenPartitions for Files {
    fn open(
        &self,
        _worker: usize,
        _start: &JobStart,
        cuts: &[PartitionCut],
        _waker: Waker,
    ) -> Result<Vec<SourcePartition>, SourceError> {
        let open = |cut: &PartitionCut| {
            let file = &self.files[cut.partition as usize];
            let reader = FilePartition::open_for(file, cut.partition, Arc::clone(&self.work))?;
            let format = reader.format();
            Ok(SourcePartition {
                reader: Box::new(reader),
                format: Some(format),
                cut: *cut,
                floors: Default::default(),
            })
        };
        cuts.iter().map(open).collect()
    }
}

/// What the workers of this process have counted.
#[derive(Default)]
struct Counts(Mutex<(SourceCounts, u64)>);

impl ObserveJob for Counts {
    fn stepped(&self, _worker: usize, counts: &SourceCounts) {
        if let Ok(mut all) = self.0.lock() {
            all.0.add(counts);
        }
    }

    fn committed(&self, epoch: Epoch) {
        if let Ok(mut all) = self.0.lock() {
            all.1 += epoch.windows.iter().map(|window| window.results.len() as u64).sum::<u64>();
        }
    }

    fn failed(&self, error: &JobError) {
        let exit = match error {
            JobError::Source(_) => Exit::Source,
            JobError::Commit(_) | JobError::Restore(_) | JobError::Worker(_) => Exit::Failure,
        };
        // Whoever reads standard output may have seen enough.
        if error.to_string().contains("Broken pipe") {
            logging::flush();
            std::process::exit(0);
        }
        exit.now(error);
    }
}

impl Counts {
    fn say(&self, voice: Voice) {
        let Ok(all) = self.0.lock() else { return };
        let (SourceCounts { records, late, duplicates, other_pages, rejected, .. }, results) = &*all;
        if voice.json {
            let summary = json!({
                "read": records, "rejected": rejected, "late": late, "duplicates": duplicates, "other_pages": other_pages,
                "results": results,
            });
            return say(&summary.to_string());
        }
        let rejected: Vec<String> = rejected.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let rejected = if rejected.is_empty() { "0".to_owned() } else { rejected.join(", ") };
        let told = [("duplicates", duplicates), ("of other pages", other_pages)];
        let told = told.iter().filter(|(_, count)| **count > 0).map(|(what, count)| format!(", {what} {count}"));
        let told = told.collect::<String>();
        writeln!(io::stderr(), "read {records}, rejected {rejected}, late {late}{told}, results {results}").ok();
    }
}
