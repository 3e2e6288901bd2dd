//! `clicktide audit`: recompute from the input topic, compare with the results topic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::commands::progress::{Unit, tell_progress};
use crate::commands::status_line::Voice;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::kafka::audit::{AuditSettings, AuditTopics, audit as audit_topics, compare_with_truth};
use crate::kafka::probe::reach;
use crate::work::Work;

/// What is compared, and how it is told.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Windows that end before this (ms) are left out.
    pub from_ms: Option<i64>,
    /// Windows that end after this (ms) are left out.
    pub through_ms: Option<i64>,
    /// A file with the expected results; none: they are recomputed from the input.
    pub truth: Option<PathBuf>,
    /// Examples told of each kind of finding.
    pub examples: usize,
    /// How it is told what is going on. In JSON, the report is.
    pub voice: Voice,
}

/// Audits the job that the configuration names, and prints a report.
///
/// # Errors
/// When a topic can't be read, and, with its own exit code, when the results are not what they must be.
pub fn audit(audit: Audit, config: &Config) -> Result<(), Failure> {
    let topics = config.job_topics();
    let kafka = config.connection();
    // First, as it can say best why nobody answers.
    reach(&kafka, Duration::from_secs(10)).map_err(|e| Failure::new(e.exit(), e))?;
    let settings = AuditSettings {
        brokers: kafka.brokers,
        properties: kafka.properties.to_map(),
        topics: AuditTopics {
            input: topics.events,
            results: topics.results,
            dead_letters: Some(topics.dead_letters),
            sanitised_events: topics.sanitised_events,
            progress: topics.progress,
        },
        ingest: config.ingest(),
        history: config.history(),
        late_to_dead_letters: config.dead_letters.late,
        from_ms: audit.from_ms,
        through_ms: audit.through_ms,
        examples_max: audit.examples,
        timeout: Duration::from_secs(30),
    };
    let work = Arc::new(Work::default());
    let progress = tell_progress("audit", Arc::clone(&work), Unit::Records, audit.voice)?;
    let report = match &audit.truth {
        None => audit_topics(&settings, &work),
        Some(file) => compare_with_truth(&settings, file, &work),
    };
    drop(progress);
    let report = report.map_err(|e| Failure::new(e.exit(), e))?;
    if audit.voice.json {
        println!("{}", serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failure, e))?);
    } else {
        println!("{report}");
    }
    if report.agrees() { Ok(()) } else { Err(Failure::new(Exit::Different, "the results are not what they must be")) }
}
