//! What came before in a partition: which records are copies, and which pages are told apart.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Click, Definition};
use crate::history::OTHER_PAGES;

/// What was seen in one partition.
#[derive(Default)]
pub(super) struct Past {
    /// The payloads seen, and the same by the first window end after their event.
    seen: HashSet<u128>,
    by_end: BTreeMap<i64, Vec<u128>>,
    /// The pages that are told apart, by epoch: as long as windows, and counted from where those begin.
    pages: BTreeMap<i64, BTreeSet<String>>,
}

/// What is to be done with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts as if it were not there.
    Copy,
    /// It counts, for the page that it has now.
    Counts,
}

impl Past {
    /// Looks at the next event of the partition, whose watermark is so before it, and gives it the page that it counts for.
    pub(super) fn look(&mut self, definition: &Definition, watermark_ms: Option<i64>, click: &mut Click) -> Verdict {
        let is_past = |ms: i64| watermark_ms.is_some_and(|watermark_ms| ms <= watermark_ms);
        if let Some(horizon_ms) = definition.history.horizon_ms {
            while let Some(first) = self.by_end.first_entry().filter(|first| is_past(first.key() + horizon_ms)) {
                for payload in first.remove() {
                    self.seen.remove(&payload);
                }
            }
            let end = definition.end_after(click.time_ms);
            if !is_past(end + horizon_ms) {
                if !self.seen.insert(click.payload) {
                    return Verdict::Copy;
                }
                self.by_end.entry(end).or_default().push(click.payload);
            }
        }
        if let Some(pages_max) = definition.history.pages_max {
            let epoch = definition.epoch(click.time_ms);
            if !is_past(definition.epoch_end(epoch) + definition.windows.size_ms()) {
                self.pages.retain(|epoch, _| !is_past(definition.epoch_end(*epoch) + definition.windows.size_ms()));
                let pages = self.pages.entry(epoch).or_default();
                if pages.len() < pages_max {
                    pages.insert(click.page_url.clone());
                }
                if !pages.contains(&click.page_url) {
                    click.page_url = OTHER_PAGES.to_owned();
                }
            }
        }
        Verdict::Counts
    }
}
