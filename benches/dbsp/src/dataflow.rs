//! The job as Clicktide's dataflow, on one worker, with all metrics and with counters and unique users alone.

use std::collections::HashMap;
use std::sync::Arc;

use clicktide_dataflows::event::{Activity, PageAnalytics, PageId, PageName};
use clicktide_dataflows::page_analytics::{page_analytics, page_windows};
use clicktide_dataflows::pane::file_by_pane;
use clicktide_dataflows::sliding::slide;
use clicktide_dataflows::time::{Tick, Windows};
use clicktide_dataflows::visitors::Visitors;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandle, Stream};

use crate::load::Log;

/// Activities per message.
const BATCH: usize = 2_048;

/// Computes every metric of every page and window.
pub fn all_metrics(log: &Arc<Log>, names: &Arc<HashMap<PageId, String>>, windows: Windows) -> Vec<PageAnalytics> {
    run(log, names, windows, page_analytics)
}

/// Computes counters and distinct users alone: the same dataflow without its part for sessions, whose fields are zero.
pub fn counters_and_uniques(
    log: &Arc<Log>,
    names: &Arc<HashMap<PageId, String>>,
    windows: Windows,
) -> Vec<PageAnalytics> {
    run(log, names, windows, |activities, names, windows| {
        let visitors = slide(file_by_pane(activities).page_events, "visitors", Visitors::new(windows));
        page_windows(visitors, names, windows)
    })
}

/// A dataflow from activities and the names of their pages to results.
type Dataflow = for<'scope> fn(
    Stream<'scope, Tick, Vec<Activity>>,
    Stream<'scope, Tick, Vec<PageName>>,
    Windows,
) -> Stream<'scope, Tick, Vec<PageAnalytics>>;

fn run(
    log: &Arc<Log>,
    names: &Arc<HashMap<PageId, String>>,
    windows: Windows,
    dataflow: Dataflow,
) -> Vec<PageAnalytics> {
    let (log, names) = (Arc::clone(log), Arc::clone(names));
    timely::execute_directly(move |worker| {
        let (results_sender, results) = std::sync::mpsc::channel();
        let mut events = InputHandle::new();
        let mut announced = InputHandle::new();
        let probe = worker.dataflow(|scope| {
            let events = scope.input_from(&mut events);
            let announced = scope.input_from(&mut announced);
            let (probe, results) = dataflow(events, announced, windows).probe();
            results.sink(Pipeline, "collect", move |(input, _)| {
                input.for_each(|_, results| {
                    // The other end outlives the dataflow.
                    let _ = results_sender.send(std::mem::take(results));
                });
            });
            probe
        });
        for (page, page_url) in names.iter() {
            announced.send(PageName { page: *page, page_url: page_url.clone(), keep_until: Tick::NEVER });
        }
        let mut buffer: Vec<Activity> = Vec::with_capacity(BATCH);
        let mut from = 0;
        for (until, open) in log.opens.iter().copied().chain([(log.activities.len(), Tick::NEVER)]) {
            for activities in log.activities[from..until].chunks(BATCH) {
                buffer.extend_from_slice(activities);
                events.send_batch(&mut buffer);
                buffer.clear();
                worker.step();
            }
            from = until;
            events.advance_to(open);
            announced.advance_to(open);
            // As a source does: the reader does not run far ahead.
            let behind = Tick(open.0 - 8 * windows.slide_ms());
            while open < Tick::NEVER && probe.less_than(&behind) {
                worker.step();
            }
        }
        drop((events, announced));
        while !probe.done() {
            worker.step();
        }
        results.try_iter().flatten().collect()
    })
}
