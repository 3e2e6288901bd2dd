//! The job as Clicktide's dataflow, on one worker.

use std::collections::HashMap;
use std::sync::Arc;

use clicktide_dataflows::event::{Activity, PageAnalytics, PageId, PageName};
use clicktide_dataflows::page_analytics::page_analytics;
use clicktide_dataflows::time::{Tick, Windows};
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Input, Probe};

use crate::load::Log;

/// Activities per message.
const BATCH: usize = 2_048;

/// Computes every metric of every page and window.
pub fn all_metrics(log: &Arc<Log>, names: &Arc<HashMap<PageId, String>>, windows: Windows) -> Vec<PageAnalytics> {
    let (log, names) = (Arc::clone(log), Arc::clone(names));
    timely::execute_directly(move |worker| {
        let (results_sender, results) = std::sync::mpsc::channel();
        let mut events = InputHandle::new();
        let mut announced = InputHandle::new();
        let probe = worker.dataflow(|scope| {
            let events = scope.input_from(&mut events);
            let announced = scope.input_from(&mut announced);
            let (probe, results) = page_analytics(events, announced, windows).probe();
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
