//! What timely and differential say of themselves, as metrics: scheduling, exchange, and what the operators keep.
//!
//! ```text
//!  "timely" ───────────────────▶ operators, channels, parks ─┐
//!  "differential/arrange" ─────▶ rows, batches, merges ──────┼─▶ Tallies ─▶ report ─▶ metrics, by worker and name
//!  KEPT, of our own operators ─▶ rows, batches, keys ────────┘
//! ```
//!
//! The log streams of a worker are added up on its own thread as they come; nothing is kept of an event and nothing is
//! allocated for one. Operators of one name are shown together.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use clicktide_dataflows::logging::{KEPT, KeptEvent, KeptEventBuilder};
use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use metrics::{counter, gauge};
use timely::logging::{ParkEvent, StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use crate::metrics as names;

/// The figures of a worker's dataflows.
pub struct DataflowMetrics {
    worker: String,
    tallies: Rc<RefCell<Tallies>>,
}

impl DataflowMetrics {
    /// Begins to add up what happens in `worker`. To be called before its dataflows are built.
    pub fn of(worker: &Worker) -> DataflowMetrics {
        let tallies = Rc::new(RefCell::new(Tallies::default()));
        if let Some(mut streams) = worker.log_register() {
            let timely = Rc::clone(&tallies);
            streams.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
                let mut tallies = timely.borrow_mut();
                events.iter_mut().flat_map(|events| events.drain(..)).for_each(|(at, event)| tallies.timely(at, event));
            });
            let differential = Rc::clone(&tallies);
            streams.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
                let mut tallies = differential.borrow_mut();
                events
                    .iter_mut()
                    .flat_map(|events| events.drain(..))
                    .for_each(|(_, event)| tallies.differential(event));
            });
            let kept = Rc::clone(&tallies);
            streams.insert::<KeptEventBuilder, _>(KEPT, move |_, events| {
                let mut tallies = kept.borrow_mut();
                events.iter_mut().flat_map(|events| events.drain(..)).for_each(|(_, event)| tallies.kept(event));
            });
        }
        DataflowMetrics { worker: worker.index().to_string(), tallies }
    }

    /// Brings the metrics up to date.
    pub fn report(&self) {
        let tallies = self.tallies.borrow();
        let label = |label: &'static str, name: &str| [("worker", self.worker.clone()), (label, name.to_owned())];

        for (name, Scheduled { activations, busy }) in tallies.by_operator() {
            counter!(names::OPERATOR_ACTIVATIONS, &label("operator", name)).absolute(activations);
            gauge!(names::OPERATOR_BUSY, &label("operator", name)).set(busy.as_secs_f64());
        }
        for (name, Exchanged { messages, records }) in tallies.by_target() {
            counter!(names::EXCHANGED_MESSAGES, &label("operator", name)).absolute(messages);
            counter!(names::EXCHANGED_RECORDS, &label("operator", name)).absolute(records);
        }
        for (operator, arrangement) in &tallies.arrangements {
            let Some(Named { name, .. }) = tallies.operators.get(*operator) else { continue };
            let Arrangement { rows, waiting, keys, batches, merges } = *arrangement;
            gauge!(names::ARRANGEMENT_ROWS, &label("arrangement", name)).set(rows as f64);
            gauge!(names::ARRANGEMENT_WAITING_ROWS, &label("arrangement", name)).set(waiting as f64);
            gauge!(names::ARRANGEMENT_KEYS, &label("arrangement", name)).set(keys as f64);
            gauge!(names::ARRANGEMENT_BATCHES, &label("arrangement", name)).set(batches as f64);
            counter!(names::ARRANGEMENT_MERGES, &label("arrangement", name)).absolute(merges);
        }
        counter!(names::WORKER_PARKS, "worker" => self.worker.clone()).absolute(tallies.parks);
        gauge!(names::WORKER_PARKED, "worker" => self.worker.clone()).set(tallies.parked.as_secs_f64());
    }
}

/// What has happened in a worker since its dataflows were built. Operators and channels are numbered from 0 by the worker.
#[derive(Default)]
struct Tallies {
    operators: Vec<Named>,
    by_address: HashMap<Vec<usize>, usize>,
    channels: Vec<Channel>,
    arrangements: BTreeMap<usize, Arrangement>,
    /// The operators that run, each within the one before.
    running: Vec<Running>,
    parks: u64,
    parked: Duration,
    /// When the worker went to sleep, while it sleeps.
    asleep: Option<Duration>,
}

/// An operator.
#[derive(Clone, Default)]
struct Named {
    name: String,
    scheduled: Scheduled,
}

#[derive(Clone, Copy, Default)]
struct Scheduled {
    activations: u64,
    /// Without the operators inside it.
    busy: Duration,
}

/// Where messages go, and those to other workers.
#[derive(Clone, Default)]
struct Channel {
    target: Vec<usize>,
    exchanged: Exchanged,
}

#[derive(Clone, Copy, Default)]
struct Exchanged {
    messages: u64,
    records: u64,
}

#[derive(Clone, Copy)]
struct Running {
    operator: usize,
    since: Duration,
    /// For how long operators inside it have run.
    inside: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Arrangement {
    /// Signed, as are the next, since what is logged are differences.
    rows: i64,
    waiting: i64,
    keys: i64,
    batches: i64,
    merges: u64,
}

impl Tallies {
    fn timely(&mut self, at: Duration, event: TimelyEvent) {
        match event {
            TimelyEvent::Schedule(schedule) => match schedule.start_stop {
                StartStop::Start => {
                    self.running.push(Running { operator: schedule.id, since: at, inside: Duration::ZERO });
                }
                StartStop::Stop => self.stopped(at),
            },
            TimelyEvent::Messages(message) if message.is_send && message.source != message.target => {
                let exchanged = &mut entry(&mut self.channels, message.channel).exchanged;
                exchanged.messages += 1;
                exchanged.records += u64::try_from(message.record_count).unwrap_or(0);
            }
            TimelyEvent::Park(ParkEvent::Park(_)) => {
                self.parks += 1;
                self.asleep = Some(at);
            }
            TimelyEvent::Park(ParkEvent::Unpark) => {
                self.parked += self.asleep.take().map_or(Duration::ZERO, |since| at.saturating_sub(since));
            }
            TimelyEvent::Operates(operates) => {
                entry(&mut self.operators, operates.id).name = operates.name;
                self.by_address.insert(operates.addr, operates.id);
            }
            TimelyEvent::Channels(channel) => {
                let target = channel.scope_addr.into_iter().chain([channel.target.0]).collect();
                entry(&mut self.channels, channel.id).target = target;
            }
            TimelyEvent::Messages(_)
            | TimelyEvent::PushProgress(_)
            | TimelyEvent::Shutdown(_)
            | TimelyEvent::CommChannels(_)
            | TimelyEvent::Text(_) => {}
        }
    }

    /// The innermost of the operators that run does so no more.
    fn stopped(&mut self, at: Duration) {
        let Some(Running { operator, since, inside }) = self.running.pop() else { return };
        let ran = at.saturating_sub(since);
        if let Some(outer) = self.running.last_mut() {
            outer.inside += ran;
        }
        let scheduled = &mut entry(&mut self.operators, operator).scheduled;
        scheduled.activations += 1;
        scheduled.busy += ran.saturating_sub(inside);
    }

    fn differential(&mut self, event: DifferentialEvent) {
        let size = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        match event {
            DifferentialEvent::Batch(batch) => {
                let arrangement = self.arrangement(batch.operator);
                arrangement.rows += size(batch.length);
                arrangement.batches += 1;
            }
            DifferentialEvent::Merge(merge) => {
                let Some(merged) = merge.complete else { return };
                let arrangement = self.arrangement(merge.operator);
                arrangement.rows += size(merged) - size(merge.length1) - size(merge.length2);
                arrangement.batches -= 1;
                arrangement.merges += 1;
            }
            DifferentialEvent::Drop(batch) => {
                let arrangement = self.arrangement(batch.operator);
                arrangement.rows -= size(batch.length);
                arrangement.batches -= 1;
            }
            DifferentialEvent::Batcher(batcher) => {
                self.arrangement(batcher.operator).waiting += batcher.records_diff as i64;
            }
            DifferentialEvent::MergeShortfall(_) | DifferentialEvent::TraceShare(_) => {}
        }
    }

    fn kept(&mut self, event: KeptEvent) {
        match event {
            KeptEvent::Rows { operator, rows } => {
                let arrangement = self.arrangement(operator);
                arrangement.waiting = rows.waiting as i64;
                arrangement.rows = rows.entered as i64;
                arrangement.batches = rows.batches as i64;
            }
            KeptEvent::Keys { operator, keys } => self.arrangement(operator).keys = keys as i64,
        }
    }

    fn arrangement(&mut self, operator: usize) -> &mut Arrangement {
        self.arrangements.entry(operator).or_default()
    }

    fn by_operator(&self) -> BTreeMap<&str, Scheduled> {
        let mut sums: BTreeMap<&str, Scheduled> = BTreeMap::new();
        for Named { name, scheduled } in self.operators.iter().filter(|operator| !operator.name.is_empty()) {
            let sum = sums.entry(name).or_default();
            sum.activations += scheduled.activations;
            sum.busy += scheduled.busy;
        }
        sums
    }

    /// What was sent to operators in other workers, by the operators' names.
    fn by_target(&self) -> BTreeMap<&str, Exchanged> {
        let mut sums: BTreeMap<&str, Exchanged> = BTreeMap::new();
        for Channel { target, exchanged } in self.channels.iter().filter(|channel| channel.exchanged.messages > 0) {
            let Some(Named { name, .. }) = self.by_address.get(target).and_then(|id| self.operators.get(*id)) else {
                continue;
            };
            let sum = sums.entry(name).or_default();
            sum.messages += exchanged.messages;
            sum.records += exchanged.records;
        }
        sums
    }
}

/// The entry of `index`, made if it is not there yet.
fn entry<T: Clone + Default>(entries: &mut Vec<T>, index: usize) -> &mut T {
    if entries.len() <= index {
        entries.resize(index + 1, T::default());
    }
    &mut entries[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    use clicktide_dataflows::event::{Activity, EventType, PageName};
    use clicktide_dataflows::page_analytics::page_analytics;
    use clicktide_dataflows::time::{Tick, Windows};
    use foldhash::fast::FixedState;
    use std::hash::BuildHasher;
    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::{Input, Probe};

    /// What is said of `workers` workers after an event of each of 100 users in each of 20 ticks, on 10 pages.
    fn observed(workers: usize) -> Vec<String> {
        let recorder = crate::metrics::recorder().expect("valid buckets");
        let (handle, recorder) = (recorder.handle(), std::sync::Arc::new(recorder));
        let windows = Windows::new(100, 10, 0).expect("windows");
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let figures = DataflowMetrics::of(worker);
            let (mut events, mut names) = (InputHandle::new(), InputHandle::new());
            let probe = worker.dataflow::<Tick, _, _>(|scope| {
                let (activities, named) = (scope.input_from(&mut events), scope.input_from(&mut names));
                page_analytics(activities, named, windows).probe().0
            });
            let users = (worker.index() as u64..100).step_by(worker.peers());
            for tick in 1..=20 {
                let (enter, leave) = (Tick(10 * tick), Tick(10 * tick + 100));
                for number in users.clone() {
                    let (page, user) = (number / 2 % 10, FixedState::default().hash_one(number));
                    names.send(PageName { page, page_url: format!("/{page}"), keep_until: leave });
                    let time_ms = enter.0 - 5;
                    let event_type = EventType::View;
                    let (session, session_duration_s) = (user, None);
                    events.send(Activity {
                        page,
                        user,
                        session,
                        enter,
                        leave,
                        event_type,
                        session_duration_s,
                        time_ms,
                    });
                }
                events.advance_to(enter);
                names.advance_to(enter);
                worker.step_while(|| probe.less_than(&enter));
            }
            // What is on its way within the worker arrives.
            (0..10).for_each(|_| _ = worker.step());
            metrics::with_local_recorder(&*recorder, || figures.report());
        });
        guards.expect("worker threads start").join().into_iter().for_each(|ended| ended.expect("no worker fails"));
        crate::metrics::page(&handle).lines().map(str::to_owned).collect()
    }

    /// The sum of a metric's series that have this label.
    fn sum(lines: &[String], metric: &str, label: &str) -> f64 {
        let series = lines.iter().filter(|line| line.starts_with(&format!("{metric}{{")) && line.contains(label));
        series.map(|line| line.rsplit_once(' ').expect("a value").1.parse::<f64>().expect("a number")).sum()
    }

    #[test]
    fn what_is_kept_is_what_is_in_the_window() {
        for workers in [1, 2] {
            let lines = observed(workers);
            let kept = |metric: &str, arrangement: &str| sum(&lines, metric, &format!("arrangement=\"{arrangement}\""));
            for arrangement in ["visitors", "sessions"] {
                // Tick 200 is not complete: its events wait for it, as far as they have come from the other worker, and those of
                // ticks 100 to 190 are in the window.
                let waiting = kept(names::ARRANGEMENT_WAITING_ROWS, arrangement);
                assert!(waiting == 100.0 || workers > 1, "{waiting} {arrangement}: {lines:#?}");
                assert_eq!(kept(names::ARRANGEMENT_ROWS, arrangement), 1_000.0, "{arrangement}: {lines:#?}");
                assert_eq!(kept(names::ARRANGEMENT_KEYS, arrangement), 100.0, "{arrangement}: {lines:#?}");
                assert!(kept(names::ARRANGEMENT_BATCHES, arrangement) >= 10.0, "{arrangement}: {lines:#?}");
            }
            assert_eq!(kept(names::ARRANGEMENT_KEYS, "arrange_pages"), 10.0, "{lines:#?}");
            assert!(kept(names::ARRANGEMENT_ROWS, "arrange_pages") >= 10.0, "{lines:#?}");
            assert!(kept(names::ARRANGEMENT_BATCHES, "arrange_pages") >= 1.0, "{lines:#?}");
            assert!(kept(names::ARRANGEMENT_MERGES, "arrange_pages") >= 1.0, "{lines:#?}");
        }
    }

    #[test]
    fn what_is_exchanged_is_what_goes_to_another_worker() {
        let to = |lines: &[String], operator: &str| {
            sum(lines, names::EXCHANGED_RECORDS, &format!("operator=\"{operator}\""))
        };
        assert_eq!(to(&observed(1), ""), 0.0);
        let lines = observed(2);
        assert!(to(&lines, "visitors") > 0.0 && to(&lines, "arrange_pages") > 0.0, "{lines:#?}");
        // Names go to the worker of their page, which is another for half of them, for each of 20 ticks.
        assert!(to(&lines, "page_windows") > 0.0, "{lines:#?}");
    }

    #[test]
    fn time_inside_another_operator_is_not_counted_twice() {
        let mut tallies = Tallies::default();
        let schedule = |tallies: &mut Tallies, at_ms: u64, id: usize, start_stop: StartStop| {
            let event = timely::logging::ScheduleEvent { id, start_stop };
            tallies.timely(Duration::from_millis(at_ms), event.into());
        };
        for (at_ms, id, start_stop) in [
            (10, 0, StartStop::Start),
            (12, 1, StartStop::Start),
            (15, 1, StartStop::Stop),
            (15, 2, StartStop::Start),
            (16, 2, StartStop::Stop),
            (20, 0, StartStop::Stop),
        ] {
            schedule(&mut tallies, at_ms, id, start_stop);
        }
        let busy_ms: Vec<_> = tallies.operators.iter().map(|operator| operator.scheduled.busy.as_millis()).collect();
        assert_eq!(busy_ms, [6, 3, 1]);
        tallies.timely(Duration::from_millis(30), ParkEvent::park(None).into());
        tallies.timely(Duration::from_millis(37), ParkEvent::unpark().into());
        assert_eq!((tallies.parks, tallies.parked), (1, Duration::from_millis(7)));
    }
}
