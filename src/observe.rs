//! What a job does, brought to those who watch it: metrics, status, the HTTP view.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::{Tick, Windows};

use crate::checkpoint::coordinator::Taken;
use crate::committer::Epoch;
use crate::exit::Exit;
use crate::http::{CheckpointStatus, ClosedWindow, PartitionStatus, Status, View};
use crate::metrics;
use crate::pipeline::{JobError, ObserveJob};
use crate::report::{ProcessReport, WorkerReport};
use crate::source::{PartitionReport, SourceCounts};

/// Brings what happens in a job's process to its status and view. Ends the program when the job fails.
pub struct Observer {
    status: Arc<Status>,
    /// In process 0 alone.
    view: Option<Arc<View>>,
    windows: Windows,
    /// What earlier runs have committed.
    resumed: Option<Tick>,
    watermarks_ms: Mutex<BTreeMap<i32, i64>>,
    /// Sees each epoch before it goes into the view.
    tell: Option<Tell>,
}

/// Sees an epoch that has been committed.
type Tell = Box<dyn Fn(&Epoch) + Send + Sync>;

impl Observer {
    /// An observer of a job that computes `windows`, and of which earlier runs have committed those up to `resumed`.
    pub fn new(status: Arc<Status>, view: Option<Arc<View>>, windows: Windows, resumed: Option<Tick>) -> Self {
        if let Some(resumed) = resumed {
            status.set_committed(resumed.0);
        }
        Observer { status, view, windows, resumed, watermarks_ms: Mutex::default(), tell: None }
    }

    /// Has `tell` see each committed epoch too.
    pub fn telling(mut self, tell: impl Fn(&Epoch) + Send + Sync + 'static) -> Self {
        self.tell = Some(Box::new(tell));
        self
    }
}

impl ObserveJob for Observer {
    fn stepped(&self, worker: usize, counts: &SourceCounts) {
        self.status.worker_stepped(worker);
        let SourceCounts { records, bytes, late, duplicates, other_pages, rejected } = counts;
        ::metrics::counter!(metrics::EVENTS).increment(*records);
        ::metrics::counter!(metrics::EVENT_BYTES).increment(*bytes);
        ::metrics::counter!(metrics::LATE_EVENTS).increment(*late);
        ::metrics::counter!(metrics::DUPLICATE_EVENTS).increment(*duplicates);
        ::metrics::counter!(metrics::OTHER_PAGES_EVENTS).increment(*other_pages);
        for (reason, count) in rejected {
            ::metrics::counter!(metrics::REJECTED_EVENTS, "reason" => reason.clone()).increment(*count);
        }
    }

    fn process(&self) -> ProcessReport {
        self.status.process_report(metrics::resident_memory_bytes())
    }

    fn worker(&self, report: &WorkerReport) {
        self.status.set_worker(report);
    }

    fn partition(&self, report: &PartitionReport, worker: usize, own: bool) {
        let PartitionReport { partition, watermark_ms, idle, position, high_watermark, awaited } = *report;
        if let Some(watermark_ms) = watermark_ms {
            let mut watermarks = self.watermarks_ms.lock().unwrap_or_else(PoisonError::into_inner);
            watermarks.insert(partition, watermark_ms);
            if let Some(least_ms) = watermarks.values().min() {
                self.status.set_watermark(*least_ms);
            }
        }
        let high_watermark = high_watermark.unwrap_or(position);
        let status = PartitionStatus { partition, worker, position, high_watermark, watermark_ms, idle, awaited };
        self.status.set_partition(status, own);
    }

    fn reached(&self, first: Tick) {
        if first == Tick::MIN {
            return;
        }
        let through = self.windows.previous(first);
        if Some(through) >= self.resumed {
            self.status.replayed();
            self.status.set_committed(through.0);
        }
    }

    fn checkpoint(&self, outcome: &Result<Taken, String>) {
        let label = if outcome.is_ok() { "taken" } else { "failed" };
        ::metrics::counter!(metrics::CHECKPOINTS, "outcome" => label).increment(1);
        match outcome {
            Ok(taken) => {
                ::metrics::histogram!(metrics::CHECKPOINT).record(taken.took_ms as f64 / 1_000.0);
                ::metrics::gauge!(metrics::CHECKPOINT_WRITTEN).set(taken.bytes_written as f64);
                ::metrics::gauge!(metrics::CHECKPOINT_SIZE).set(taken.bytes as f64);
                ::metrics::gauge!(metrics::CHECKPOINT_WINDOW_END).set(taken.through_ms as f64 / 1_000.0);
                ::metrics::gauge!(metrics::CHECKPOINT_TAKEN).set(wall_clock_s());
                let Taken { name, through_ms, events, bytes_written, took_ms, .. } = taken;
                tracing::info!(checkpoint = name, through_ms, events, bytes_written, took_ms, "a checkpoint is taken");
            }
            Err(reason) => {
                tracing::warn!(error = reason, "no checkpoint: it is tried again after checkpoints.interval")
            }
        }
        self.status.set_checkpoint(outcome.clone().map(|taken| {
            let Taken { name, through_ms, events, bytes_written, bytes, took_ms } = taken;
            CheckpointStatus { name, through_ms, took_ms, events, bytes, bytes_written }
        }));
    }

    fn committed(&self, epoch: Epoch) {
        if let Some(tell) = &self.tell {
            tell(&epoch);
        }
        let (now, now_s) = (Instant::now(), wall_clock_s());
        self.status.add_dead_letters(epoch.dead_letters.len() as u64);
        ::metrics::counter!(metrics::TICKS).increment(epoch.windows.len() as u64);
        for window in epoch.windows {
            let close_to_commit = now.duration_since(window.closed);
            tracing::debug!(tick_ms = window.end.0, results = window.results.len(), "a window is committed");
            ::metrics::histogram!(metrics::WINDOW_CLOSE_TO_COMMIT).record(close_to_commit);
            // A clock that runs ahead of this one may close a window before its time.
            ::metrics::histogram!(metrics::END_TO_END).record((now_s - window.end.0 as f64 / 1_000.0).max(0.0));
            ::metrics::histogram!(metrics::WINDOW_PROCESSING).record(window.computed.duration_since(window.closed));
            self.status.add_results(window.results.len() as u64);
            record_totals(&window.results);
            if let Some(view) = &self.view {
                view.publish(ClosedWindow {
                    window_start: window.end.0 - self.windows.size_ms(),
                    window_end: window.end.0,
                    close_to_commit_ms: u64::try_from(close_to_commit.as_millis()).ok(),
                    pages: window.results,
                });
            }
        }
    }

    fn failed(&self, error: &JobError) {
        let exit = match error {
            JobError::Source(_) => Exit::Source,
            JobError::Commit(error) => error.exit(),
            JobError::Restore(_) => Exit::Checkpoints,
            JobError::Worker(_) => Exit::Panic,
        };
        exit.now(error);
    }
}

/// The wall clock, seconds since the epoch.
fn wall_clock_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What all pages of a window have together; its metrics know no pages.
fn record_totals(pages: &[PageAnalytics]) {
    let total = |count: fn(&PageAnalytics) -> i64| pages.iter().map(count).sum::<i64>() as f64;
    let top = pages.iter().map(|page| page.view_count).max().unwrap_or(0);
    ::metrics::gauge!(metrics::WINDOW_VIEWS).set(total(|page| page.view_count));
    ::metrics::gauge!(metrics::WINDOW_CLICKS).set(total(|page| page.click_count));
    ::metrics::gauge!(metrics::WINDOW_CONVERSIONS).set(total(|page| page.conversion_count));
    ::metrics::gauge!(metrics::WINDOW_PAGES).set(pages.len() as f64);
    ::metrics::gauge!(metrics::WINDOW_TOP_PAGE_VIEWS).set(top as f64);
}
