//! Drives the dataflow over a load in memory.

use std::collections::HashMap;
use std::sync::Arc;

use clicktide_dataflows::event::{Activity, PageAnalytics, PageId, PageName};
use clicktide_dataflows::page_analytics::{page_analytics, page_windows};
use clicktide_dataflows::pane::file_by_pane;
use clicktide_dataflows::sliding::slide;
use clicktide_dataflows::time::{Tick, Windows};
use clicktide_dataflows::visitors::Visitors;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Input, Probe};
use timely::worker::Worker;

use crate::load::Log;

/// Which statistics are computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// Those of page-analytics.avsc.
    All,
    /// Without those of sessions.
    CountersAndUniques,
}

/// Runs the dataflow, every worker reading its part of the log in messages of `batch` activities, and collects the results.
///
/// `prepare` sees every worker before its dataflow is built.
pub fn run_dataflow(
    metrics: Metrics,
    logs: &Arc<Vec<Log>>,
    names: &Arc<HashMap<PageId, String>>,
    windows: Windows,
    batch: usize,
    prepare: impl Fn(&Worker) + Send + Sync + 'static,
) -> Vec<PageAnalytics> {
    let (logs, names) = (Arc::clone(logs), Arc::clone(names));
    let config = timely::Config::process(logs.len());
    let guards = timely::execute(config, move |worker| {
        prepare(worker);
        let (results_sender, results) = std::sync::mpsc::channel();
        let mut events = InputHandle::new();
        let mut announced = InputHandle::new();
        let probe = worker.dataflow(|scope| {
            let events = scope.input_from(&mut events);
            let announced = scope.input_from(&mut announced);
            let results = match metrics {
                Metrics::All => page_analytics(events, announced, windows),
                Metrics::CountersAndUniques => {
                    let panes = file_by_pane(events);
                    page_windows(slide(panes.page_events, "visitors", Visitors::new(windows)), announced, windows)
                }
            };
            let (probe, results) = results.probe();
            results.sink(Pipeline, "collect", move |(input, _)| {
                input.for_each(|_, results| {
                    // The other end outlives the dataflow.
                    let _ = results_sender.send(std::mem::take(results));
                });
            });
            probe
        });

        let log = &logs[worker.index()];
        let mut buffer: Vec<Activity> = Vec::with_capacity(batch);
        if worker.index() == 0 {
            for (page, page_url) in names.iter() {
                announced.send(PageName { page: *page, page_url: page_url.clone(), keep_until: Tick::NEVER });
            }
        }
        let mut from = 0;
        let ends = log.opens.iter().copied().chain([(log.activities.len(), Tick::NEVER)]);
        for (until, open) in ends {
            for activities in log.activities[from..until].chunks(batch) {
                buffer.extend_from_slice(activities);
                events.send_batch(&mut buffer);
                buffer.clear();
                worker.step();
            }
            from = until;
            events.advance_to(open);
            announced.advance_to(open);
            // As a source does: no partition runs ahead of the others.
            let behind = Tick(open.0 - 8 * windows.slide_ms());
            while open < Tick::NEVER && probe.less_than(&behind) {
                worker.step_or_park(None);
            }
        }
        drop((events, announced));
        while !probe.done() {
            worker.step_or_park(None);
        }
        results.try_iter().flatten().collect::<Vec<PageAnalytics>>()
    })
    .expect("worker threads start");
    guards.join().into_iter().flat_map(|results| results.expect("no worker fails")).collect()
}
