//! The results that events have to give, as the audit computes them.

use clicktide::audit::{Click, Definition, Partition, Totals, expect};
use clicktide::event::ClickEvent;
use clicktide::history::HistoryLimits;
use clicktide::validation::Reason;
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;

/// The results of all windows that end at or before `through_ms`, of valid events in each partition in their order, and what
/// became of them. Nothing is de-duplicated, and no partition is ever idle.
pub fn results_of(
    partitions: &[Vec<ClickEvent>],
    windows: Windows,
    bound_ms: i64,
    through_ms: i64,
) -> (Vec<PageAnalytics>, Totals) {
    let click = |event: &ClickEvent| Click {
        user_id: event.user_id.clone(),
        session_id: event.session_id.clone(),
        page_url: event.page_url.clone(),
        event_type: event.event_type,
        time_ms: event.timestamp,
        record_timestamp_ms: None,
        session_duration_s: event.session_duration,
        payload: 0,
    };
    let records = |events: &Vec<ClickEvent>| {
        let clicks: Vec<_> = events.iter().map(click).collect();
        (0..).zip(clicks).map(|(offset, click)| Ok::<_, ()>((offset, Ok::<_, Reason>(click))))
    };
    let partitions = partitions.iter().map(|events| Partition { records: records(events), idle_advances: vec![] });
    let definition = Definition { windows, bound_ms, through_ms: Some(through_ms), history: HistoryLimits::default() };
    let mut results = Vec::new();
    let totals = expect(&definition, partitions.collect(), |result| results.push(result), |_| {}).expect("events");
    (results, totals)
}
