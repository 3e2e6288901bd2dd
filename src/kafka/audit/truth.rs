//! Compares a job's results with expected ones that are given, without reading its input.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use clicktide_dataflows::event::PageAnalytics;

use super::{AuditError, AuditSettings};
use crate::audit::{AuditReport, Comparison};
use crate::kafka::progress::read_progress;
use crate::progress::{CommittedProgress, JobState};
use crate::work::Work;

/// Compares what a job has committed so far with the results in `file`: a JSON object per line, as
/// [`generator::truth`](crate::generator::truth) writes them. Dead letters are not compared.
///
/// Holds the published results of the windows compared, about 200 bytes each; those of the file stream by.
///
/// # Errors
/// See [`AuditError`]. That something differs is no error but what the report says.
pub fn compare_with_truth(settings: &AuditSettings, file: &Path, work: &Work) -> Result<AuditReport, AuditError> {
    let expected = read_truth(file)?;
    let topic = &settings.topics.progress;
    let CommittedProgress { progress, .. } = read_progress(&settings.brokers, &settings.properties, topic)?;
    let progress = progress.ok_or_else(|| AuditError::NoProgress { topic: topic.clone() })?;
    let finished = progress.state == JobState::Finished;
    let final_through = if finished { None } else { Some(progress.committed_through.unwrap_or(i64::MIN)) };
    let mut notes = Vec::new();
    let results = settings.results(&mut notes)?;
    // What ends at or before the moment of a take-over is another job's.
    let taken_over = progress.began_after.map(|end_ms| end_ms.saturating_add(1));
    let from = settings.from_ms.max(results.complete_from).max(taken_over);
    let through = [settings.through_ms, final_through].into_iter().flatten().min();

    let compared = from.unwrap_or(i64::MIN)..=through.unwrap_or(i64::MAX);
    let mut comparison = Comparison::new(compared.clone(), settings.examples_max);
    work.expect(results.ranges.iter().map(|range| u64::try_from(range.until - range.from).unwrap_or(0)).sum());
    settings.scan_results(&results.ranges, &mut comparison, work)?;
    let (mut windows, mut open) = (HashSet::new(), 0_u64);
    for result in expected {
        let result = result?;
        if compared.contains(&result.window_end) {
            windows.insert(result.window_end);
        } else if final_through.is_some_and(|through| result.window_end > through) {
            open += 1;
        }
        comparison.expected(&result);
    }
    if open > 0 {
        notes.push(format!("{open} expected results belong to windows that are not final yet: not compared"));
    }
    Ok(AuditReport {
        job: progress.job,
        generation: progress.generation,
        state: progress.state,
        committed_through: progress.committed_through,
        compared_from: from,
        compared_through: through,
        windows: windows.len() as u64,
        input: None,
        results: comparison.finish(),
        dead_letters: None,
        sanitised_events: None,
        notes,
    })
}

fn read_truth(file: &Path) -> Result<impl Iterator<Item = Result<PageAnalytics, AuditError>> + use<>, AuditError> {
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|error| AuditError::Truth {
        file: name.clone(),
        line: 0,
        reason: error.to_string(),
    })?;
    let read = move |(line, text): (usize, std::io::Result<String>)| {
        let wrong = |reason: String| AuditError::Truth { file: name.clone(), line: line + 1, reason };
        let text = text.map_err(|error| wrong(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| wrong(format!("no result: {error}")))
    };
    Ok(BufReader::new(opened).lines().enumerate().map(read))
}
