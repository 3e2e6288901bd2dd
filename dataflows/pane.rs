//! Panes: the rows that enter and leave the windows together.
//!
//! An event counts from `enter` to `leave`. Filed by that pair, the rows of all events fall into few panes (one a slide, and
//! some for late events), which travel, enter and leave as a whole.

use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::event::Activity;
use crate::sessions::SessionEvent;
use crate::time::Tick;
use crate::visitors::PageEvent;

/// Rows that enter at one tick and leave at another, on their way to the worker that keeps them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pane<D> {
    /// The first window end that counts the rows.
    pub enter: Tick,
    /// The first window end that no longer does.
    pub leave: Tick,
    /// The index of the worker that keeps the rows.
    pub worker: u64,
    /// The rows, in no order.
    pub rows: Vec<D>,
}

/// The two streams of panes that the statistics are made of, with a row per event each.
pub struct PaneStreams<'scope> {
    /// What happened on pages, for the workers that keep their visitors.
    pub page_events: Stream<'scope, Tick, Vec<Pane<PageEvent>>>,
    /// What happened in sessions, for the workers that keep them.
    pub session_events: Stream<'scope, Tick, Vec<Pane<SessionEvent>>>,
}

/// Files every event by pane and by the workers that keep its visitor and its session.
///
/// In: activities under capabilities at or before their `enter`. Out: panes under the same capabilities. Keeps nothing. Costs
/// two short copies per event.
pub fn file_by_pane<'scope>(activities: Stream<'scope, Tick, Vec<Activity>>) -> PaneStreams<'scope> {
    let scope = activities.scope();
    let workers = scope.peers();
    let mut builder = OperatorBuilder::new("file_by_pane".to_owned(), scope);
    let mut input = builder.new_input(activities, Pipeline);
    let (page_output, page_events) = builder.new_output();
    let (session_output, session_events) = builder.new_output();
    let mut page_output = OutputBuilder::from(page_output);
    let mut session_output = OutputBuilder::from(session_output);

    builder.build(move |_capabilities| {
        let mut page_panes = Filing::new(workers);
        let mut session_panes = Filing::new(workers);
        move |_frontiers| {
            let mut page_output = page_output.activate();
            let mut session_output = session_output.activate();
            input.for_each(|capability, activities| {
                // Neighbours are mostly of one pane.
                for run in activities.chunk_by(|a, b| (a.enter, a.leave) == (b.enter, b.leave)) {
                    page_panes.file(run, |activity| (activity.page ^ activity.user, PageEvent::of(activity)));
                    session_panes.file(run, |activity| (activity.session, SessionEvent::of(activity)));
                }
                activities.clear();
                page_output.session(&capability).give_iterator(page_panes.drain());
                session_output.session(&capability).give_iterator(session_panes.drain());
            });
        }
    });
    PaneStreams { page_events, session_events }
}

/// Rows being filed by pane and worker, until they are sent.
struct Filing<D> {
    panes: Vec<Pane<D>>,
    workers: u64,
}

impl<D> Filing<D> {
    fn new(workers: usize) -> Self {
        Self { panes: Vec::new(), workers: workers as u64 }
    }

    /// Files what `row` makes of every activity of a run with one `enter` and `leave`: a hash that decides which worker keeps
    /// the row, and the row.
    #[inline]
    fn file(&mut self, run: &[Activity], row: impl Fn(&Activity) -> (u64, D)) {
        let Some(Activity { enter, leave, .. }) = run.first().copied() else { return };
        let first = self.panes_of(enter, leave, run.len());
        if self.workers == 1 {
            self.panes[first].rows.extend(run.iter().map(|activity| row(activity).1));
            return;
        }
        for activity in run {
            let (hash, row) = row(activity);
            // The hash's low half as a fraction of all workers, which takes no division (Lemire, 2016).
            let worker = (u64::from(hash as u32) * self.workers) >> u32::BITS;
            self.panes[first + worker as usize].rows.push(row);
        }
    }

    /// Where the panes of all workers begin, with room for `rows` more rows dealt out among them.
    fn panes_of(&mut self, enter: Tick, leave: Tick, rows: usize) -> usize {
        let found = self.panes.iter().rposition(|pane| (pane.enter, pane.leave, pane.worker) == (enter, leave, 0));
        let first = found.unwrap_or_else(|| {
            let panes = (0..self.workers).map(|worker| Pane { enter, leave, worker, rows: Vec::new() });
            self.panes.extend(panes);
            self.panes.len() - self.workers as usize
        });
        for pane in &mut self.panes[first..first + self.workers as usize] {
            pane.rows.reserve(rows / self.workers as usize);
        }
        first
    }

    fn drain(&mut self) -> impl Iterator<Item = Pane<D>> {
        self.panes.drain(..).filter(|pane| !pane.rows.is_empty())
    }
}

/// The rows of all chunks, dealt out by the first bits of a hash of what they belong to, so that those which belong to the same,
/// and find it in the cache, are near to each other. Costs two passes.
pub fn deal<D: Copy>(chunks: &[Vec<D>], hash: impl Fn(&D) -> u64) -> Vec<D> {
    const ROWS_PER_PART: usize = 32;
    const BITS_MAX: u32 = 8;
    let mut dealt = chunks.concat();
    let bits = (dealt.len() / ROWS_PER_PART).checked_ilog2().unwrap_or(0).min(BITS_MAX);
    if bits == 0 {
        return dealt;
    }
    let part_of = |row: &D| (hash(row) >> (u64::BITS - bits)) as usize;
    let mut sizes = [0; 1 << BITS_MAX];
    for row in chunks.iter().flatten() {
        sizes[part_of(row)] += 1;
    }
    // Where the next row of each part goes.
    let mut next = sizes;
    let mut start = 0;
    for part in &mut next {
        start += std::mem::replace(part, start);
    }
    for row in chunks.iter().flatten() {
        let at = &mut next[part_of(row)];
        dealt[*at] = *row;
        *at += 1;
    }
    dealt
}
