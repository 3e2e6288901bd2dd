//! The job as dbsp circuits: counters and exact unique users of every page and window.
//!
//! ```text
//!  windowed   events by pane ─▶ window ───────────┬─▶ (page, what) ─▶ aggregate_linear ──▶ counters ─┐
//!  retracted  +1 at enter, -1 at leave ───────────┤                                                  ├─▶ results
//!                                                 └─▶ (page, user) ─▶ distinct_count ────▶ uniques ──┘
//!  split      the same, as two inputs of one use each
//! ```
//!
//! There is one transaction per window end. What leaves the circuit are changes; a map beside it holds what every page counts now and is
//! copied into the results at each window end, since a page with a live event has a result there, changed or not. Joining counters and
//! uniques in the circuit would only add to its work.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;

use clap::ValueEnum;
use clicktide_dataflows::event::{Activity, EventType, PageAnalytics, PageId, UserId};
use clicktide_dataflows::time::{Tick, Windows};
use dbsp::circuit::CircuitConfig;
use dbsp::typed_batch::{IndexedZSetReader, SpineSnapshot};
use dbsp::utils::{Tup2, Tup4};
use dbsp::{
    DBData, DBSPHandle, IndexedZSetHandle, InputHandle, OrdIndexedZSet, OutputHandle, RootCircuit, Runtime, Stream,
    TypedBox, ZWeight,
};
use foldhash::fast::FixedState;

use crate::load::Log;

/// How the job is put to dbsp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Formulation {
    /// Events by pane, through dbsp's `window` with bounds that move by a slide.
    Windowed,
    /// Every event as two changes, +1 where it enters and -1 where it leaves. They wait outside the circuit until then.
    Retracted,
    /// The same, with inputs of their own for counters and uniques, each without what the other needs.
    Split,
}

impl fmt::Display for Formulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Formulation::Windowed => "windowed",
            Formulation::Retracted => "retracted",
            Formulation::Split => "split",
        })
    }
}

/// What was done, as a number.
type Kind = u8;
/// Events, views, clicks and purchases.
type Counters = Tup4<ZWeight, ZWeight, ZWeight, ZWeight>;
/// An event, without its pane.
type Event = Tup2<PageId, Tup2<UserId, Kind>>;
/// Rows of a page, with their weights.
type Rows<V> = Vec<Tup2<PageId, Tup2<V, ZWeight>>>;
/// Changes of what there is of every page.
type Changes<V> = OutputHandle<SpineSnapshot<OrdIndexedZSet<PageId, V>>>;

/// Computes counters and distinct users of every page and window, ordered by window; the other fields are zero.
///
/// # Errors
/// When dbsp fails, or the size of the windows is no multiple of their slide, which panes are made for.
pub fn counters_and_uniques(
    log: &Log,
    names: &HashMap<PageId, String>,
    windows: Windows,
    formulation: Formulation,
) -> Result<Vec<PageAnalytics>, Box<dyn Error>> {
    if windows.size_ms() % windows.slide_ms() != 0 {
        return Err("the window size must be a multiple of the slide".into());
    }
    match formulation {
        Formulation::Windowed => Job::new(names, windows, Windowed::new(windows)?).run(log),
        Formulation::Retracted => Job::new(names, windows, Retracted::new()?).run(log),
        Formulation::Split => Job::new(names, windows, Split::new()?).run(log),
    }
}

/// A circuit with its inputs.
trait Circuit {
    /// Takes an event that is not late.
    fn read(&mut self, activity: &Activity);

    /// Brings the outputs to the window that ends at `tick`.
    fn close(&mut self, tick: Tick) -> Result<(), Box<dyn Error>>;

    /// What comes out.
    fn outputs(&self) -> &Outputs;

    /// Ends the threads.
    fn end(self) -> Result<(), Box<dyn Error>>;
}

/// What comes out of a circuit.
struct Outputs {
    counters: Changes<Counters>,
    uniques: Changes<ZWeight>,
}

impl Outputs {
    fn new(
        kinds: &Stream<RootCircuit, OrdIndexedZSet<PageId, Kind>>,
        users: &Stream<RootCircuit, OrdIndexedZSet<PageId, UserId>>,
    ) -> Self {
        Outputs {
            counters: kinds.aggregate_linear(|kind| weigh(*kind)).accumulate_output(),
            uniques: users.distinct_count().accumulate_output(),
        }
    }
}

fn weigh(kind: Kind) -> Counters {
    let of = |event_type: EventType| ZWeight::from(kind == event_type as Kind);
    Tup4(1, of(EventType::View), of(EventType::Click), of(EventType::Purchase))
}

/// Events by `leave`, which is their pane plus the size of the window.
struct Windowed {
    circuit: DBSPHandle,
    events: IndexedZSetHandle<i64, Event>,
    bounds: InputHandle<(i64, i64)>,
    outputs: Outputs,
    windows: Windows,
    read: Vec<Tup2<i64, Tup2<Event, ZWeight>>>,
}

impl Windowed {
    fn new(windows: Windows) -> Result<Self, Box<dyn Error>> {
        let (circuit, (events, bounds, outputs)) = Runtime::init_circuit(one_worker(), |circuit| {
            let (events, events_handle) = circuit.add_input_indexed_zset();
            let (bounds, bounds_handle) = circuit.add_input_stream::<(i64, i64)>();
            let bounds = bounds.apply(|(from, to)| (TypedBox::new(*from), TypedBox::new(*to)));
            let live = events.window((true, true), &bounds);
            let kinds = live.map_index(|(_, Tup2(page, Tup2(_, kind)))| (*page, *kind));
            let users = live.map_index(|(_, Tup2(page, Tup2(user, _)))| (*page, *user));
            Ok((events_handle, bounds_handle, Outputs::new(&kinds, &users)))
        })?;
        Ok(Windowed { circuit, events, bounds, outputs, windows, read: Vec::new() })
    }
}

impl Circuit for Windowed {
    fn read(&mut self, activity: &Activity) {
        let Activity { leave, page, user, event_type, .. } = *activity;
        self.read.push(Tup2(leave.0, Tup2(Tup2(page, Tup2(user, event_type as Kind)), 1)));
    }

    fn close(&mut self, tick: Tick) -> Result<(), Box<dyn Error>> {
        self.events.append(&mut self.read);
        // Whoever is late for some of its windows is read when these are closed, so that bounds on `leave` say it all.
        self.bounds.set_for_all((tick.0 + 1, tick.0 + self.windows.size_ms()));
        Ok(self.circuit.transaction()?)
    }

    fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    fn end(self) -> Result<(), Box<dyn Error>> {
        kill(self.circuit)
    }
}

/// Changes that wait for their tick.
struct Waiting<V>(BTreeMap<Tick, Rows<V>>);

impl<V: DBData + Copy> Waiting<V> {
    fn new() -> Self {
        Waiting(BTreeMap::new())
    }

    fn push(&mut self, activity: &Activity, value: V) {
        self.0.entry(activity.enter).or_default().push(Tup2(activity.page, Tup2(value, 1)));
        self.0.entry(activity.leave).or_default().push(Tup2(activity.page, Tup2(value, -1)));
    }

    fn take(&mut self, tick: Tick) -> Rows<V> {
        self.0.remove(&tick).unwrap_or_default()
    }
}

/// All of an event as a change.
struct Retracted {
    circuit: DBSPHandle,
    events: IndexedZSetHandle<PageId, Tup2<UserId, Kind>>,
    outputs: Outputs,
    waiting: Waiting<Tup2<UserId, Kind>>,
}

impl Retracted {
    fn new() -> Result<Self, Box<dyn Error>> {
        let (circuit, (events, outputs)) = Runtime::init_circuit(one_worker(), |circuit| {
            let (events, handle) = circuit.add_input_indexed_zset();
            let kinds = events.map_index(|(page, Tup2(_, kind))| (*page, *kind));
            let users = events.map_index(|(page, Tup2(user, _))| (*page, *user));
            Ok((handle, Outputs::new(&kinds, &users)))
        })?;
        Ok(Retracted { circuit, events, outputs, waiting: Waiting::new() })
    }
}

impl Circuit for Retracted {
    fn read(&mut self, activity: &Activity) {
        self.waiting.push(activity, Tup2(activity.user, activity.event_type as Kind));
    }

    fn close(&mut self, tick: Tick) -> Result<(), Box<dyn Error>> {
        self.events.append(&mut self.waiting.take(tick));
        Ok(self.circuit.transaction()?)
    }

    fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    fn end(self) -> Result<(), Box<dyn Error>> {
        kill(self.circuit)
    }
}

/// What of an event is for the counters, and what for the uniques.
struct Split {
    circuit: DBSPHandle,
    kinds: IndexedZSetHandle<PageId, Kind>,
    users: IndexedZSetHandle<PageId, UserId>,
    outputs: Outputs,
    kinds_waiting: Waiting<Kind>,
    users_waiting: Waiting<UserId>,
}

impl Split {
    fn new() -> Result<Self, Box<dyn Error>> {
        let (circuit, (kinds, users, outputs)) = Runtime::init_circuit(one_worker(), |circuit| {
            let (kinds, kinds_handle) = circuit.add_input_indexed_zset();
            let (users, users_handle) = circuit.add_input_indexed_zset();
            Ok((kinds_handle, users_handle, Outputs::new(&kinds, &users)))
        })?;
        let (kinds_waiting, users_waiting) = (Waiting::new(), Waiting::new());
        Ok(Split { circuit, kinds, users, outputs, kinds_waiting, users_waiting })
    }
}

impl Circuit for Split {
    fn read(&mut self, activity: &Activity) {
        self.kinds_waiting.push(activity, activity.event_type as Kind);
        self.users_waiting.push(activity, activity.user);
    }

    fn close(&mut self, tick: Tick) -> Result<(), Box<dyn Error>> {
        self.kinds.append(&mut self.kinds_waiting.take(tick));
        self.users.append(&mut self.users_waiting.take(tick));
        Ok(self.circuit.transaction()?)
    }

    fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    fn end(self) -> Result<(), Box<dyn Error>> {
        kill(self.circuit)
    }
}

/// One worker, and what dbsp can do better when nothing is put in while it commits.
fn one_worker() -> CircuitConfig {
    CircuitConfig::with_workers(1).with_allow_input_during_commit(false)
}

fn kill(circuit: DBSPHandle) -> Result<(), Box<dyn Error>> {
    circuit.kill().map_err(|_| "a thread of dbsp has failed".into())
}

/// What a page counts.
#[derive(Default)]
struct Page {
    counters: Counters,
    uniques: ZWeight,
}

/// The job: reads a log, closes windows, collects results.
struct Job<'a, C> {
    names: &'a HashMap<PageId, String>,
    windows: Windows,
    circuit: C,
    /// Events that wait for their first window to close, by its end.
    entering: BTreeMap<Tick, usize>,
    pages: HashMap<PageId, Page, FixedState>,
    emitted: Option<Tick>,
    results: Vec<PageAnalytics>,
}

impl<'a, C: Circuit> Job<'a, C> {
    fn new(names: &'a HashMap<PageId, String>, windows: Windows, circuit: C) -> Self {
        let (entering, pages) = (BTreeMap::new(), HashMap::default());
        Job { names, windows, circuit, entering, pages, emitted: None, results: Vec::new() }
    }

    fn run(mut self, log: &Log) -> Result<Vec<PageAnalytics>, Box<dyn Error>> {
        let mut from = 0;
        for (until, open) in log.opens.iter().copied().chain([(log.activities.len(), Tick::NEVER)]) {
            for of_tick in log.activities[from..until].chunk_by(|a, b| a.enter == b.enter) {
                *self.entering.entry(of_tick[0].enter).or_default() += of_tick.len();
                of_tick.iter().for_each(|activity| self.circuit.read(activity));
            }
            self.close_before(open)?;
            from = until;
        }
        self.circuit.end()?;
        Ok(self.results)
    }

    /// Closes every window that ends before `open`.
    fn close_before(&mut self, open: Tick) -> Result<(), Box<dyn Error>> {
        loop {
            let quiet = self.emitted.filter(|_| !self.pages.is_empty()).map(|emitted| self.windows.next(emitted));
            let entering = self.entering.first_key_value().map(|(tick, _)| *tick);
            let Some(tick) = quiet.into_iter().chain(entering).min().filter(|tick| *tick < open) else { return Ok(()) };
            self.entering.remove(&tick);
            self.circuit.close(tick)?;
            self.update();
            self.emit(tick);
            self.emitted = Some(tick);
        }
    }

    /// Brings the pages up to date. A value that was replaced comes with weight -1, its successor with +1, in either order.
    fn update(&mut self) {
        let Outputs { counters, uniques } = self.circuit.outputs();
        for (page, counters, weight) in counters.concat().iter() {
            let page = self.pages.entry(page).or_default();
            if weight > 0 {
                page.counters = counters;
            } else if page.counters == counters {
                page.counters = Counters::default();
            }
        }
        for (page, uniques, weight) in uniques.concat().iter() {
            let page = self.pages.entry(page).or_default();
            if weight > 0 {
                page.uniques = uniques;
            } else if page.uniques == uniques {
                page.uniques = 0;
            }
        }
        self.pages.retain(|_, page| page.counters.0 > 0);
    }

    fn emit(&mut self, tick: Tick) {
        for (page, Page { counters: Tup4(_, views, clicks, purchases), uniques }) in &self.pages {
            self.results.push(PageAnalytics {
                page_url: self.names[page].clone(),
                window_start: tick.0 - self.windows.size_ms(),
                window_end: tick.0,
                view_count: *views,
                unique_users: *uniques as i32,
                click_count: *clicks,
                conversion_count: *purchases,
                engagement_rate: 0.0,
                bounce_rate: 0.0,
                avg_session_duration: 0.0,
            });
        }
    }
}
