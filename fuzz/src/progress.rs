//! A record of the progress topic.
//!
//! It is refused, or it is one that can be written again and read back; and a run that finds it committed is started or
//! objects to it, whatever its numbers.

use clicktide::avro::{ProgressRecord, decode_progress_record, encode_progress_record};
use clicktide::progress::{CommittedProgress, Progress};
use clicktide::recovery::{Asked, Bounds, Recovery, objection};
use clicktide_dataflows::time::Windows;

use super::reference::bound_allocations;

/// Checks one record.
pub fn run(data: &[u8]) {
    bound_allocations();
    let Ok(record) = decode_progress_record(data) else { return };
    let bytes = encode_progress_record(&record);
    assert_eq!(decode_progress_record(&bytes), Ok(record.clone()));
    match record {
        ProgressRecord::Progress(progress) => start_from(progress),
        ProgressRecord::IdleAdvance(_) => assert!(record.key().starts_with("idle/")),
    }
}

/// Starts a run that means the same as the one that has committed `progress`.
fn start_from(progress: Progress) {
    let asked = Asked {
        job: &progress.job.clone(),
        events: "clickstream-events",
        topic_id: None,
        progress: "clicktide-progress",
        until_end: progress.input.iter().any(|cut| cut.until.is_some()),
        configuration: &progress.configuration.clone(),
        differences: &|_| Vec::new(),
        windows: Windows::new(300_000, 10_000, 0).expect("windows"),
        bound_ms: 30_000,
        keeps_history: true,
        accept_gap: progress.generation % 2 == 0,
        generation_seen: 0,
    };
    let committed = CommittedProgress { progress: Some(progress), idle_advances: Vec::new() };
    if objection(&asked, &committed).is_some() {
        return;
    }
    let progress = committed.progress.expect("it was given");
    let log = [Bounds { low: 2, high: 100 }, Bounds { low: 0, high: 0 }];
    if let Ok(recovery) = Recovery::resumed(&asked, progress.clone(), Vec::new(), &log, None) {
        assert!(recovery.progress.generation > progress.generation);
        assert_eq!(recovery.start.committed_through.map(|tick| tick.0), progress.committed_through);
    }
}
