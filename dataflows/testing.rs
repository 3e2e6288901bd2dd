//! Runs the dataflow over events in memory, and recomputes its results from the definitions: for tests and benchmarks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::mpsc;

use foldhash::fast::FixedState;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Inspect, Probe};

use crate::event::{Activity, EventType, PageAnalytics, PageName};
use crate::page_analytics::page_analytics;
use crate::time::{Judgement, PartitionClock, Tick, Windows};

/// An event of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestEvent {
    /// Where.
    pub page: u64,
    /// Who.
    pub user: u64,
    /// In which session.
    pub session: u64,
    /// Did what.
    pub event_type: EventType,
    /// The reported duration, seconds.
    pub session_duration_s: Option<i32>,
    /// When, ms.
    pub time_ms: i64,
}

/// Windows and the bound on disorder.
#[derive(Clone, Copy, Debug)]
pub struct TestJob {
    /// The windows.
    pub windows: Windows,
    /// How far an event may be behind the greatest before it, ms.
    pub bound_ms: i64,
}

impl TestJob {
    /// The activities of one partition in log order, without the late events; beside each the first open tick before it.
    pub fn judge(&self, partition: &[TestEvent]) -> Vec<(Tick, Activity)> {
        let mut clock = PartitionClock::default();
        let mut judged = Vec::with_capacity(partition.len());
        for event in partition {
            let open = clock.open_tick(&self.windows, self.bound_ms);
            if let Judgement::Counts { enter, leave } = clock.judge(&self.windows, self.bound_ms, event.time_ms, None) {
                let hash = FixedState::default();
                judged.push((
                    open,
                    Activity {
                        enter,
                        leave,
                        page: hash.hash_one(event.page),
                        user: hash.hash_one(event.user),
                        session: hash.hash_one(event.session),
                        event_type: event.event_type,
                        session_duration_s: event.session_duration_s,
                        time_ms: event.time_ms,
                    },
                ));
            }
        }
        judged
    }

    /// The results of the dataflow, ordered by window end and page; partition `p` is read by worker `p` modulo `workers`.
    pub fn run(&self, workers: usize, partitions: &[Vec<TestEvent>]) -> Vec<PageAnalytics> {
        let names: HashMap<u64, String> = partitions
            .iter()
            .flatten()
            .map(|event| (FixedState::default().hash_one(event.page), page_url(event.page)))
            .collect();
        let names = Arc::new(names);
        let judged: Arc<Vec<_>> = Arc::new(partitions.iter().map(|partition| self.judge(partition)).collect());
        let windows = self.windows;
        let (sender, receiver) = mpsc::channel();
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let mut events = InputHandle::new();
            let mut announced = InputHandle::new();
            let sender = sender.clone();
            let probe = worker.dataflow(|scope| {
                let events = events.to_stream(scope);
                let announced = announced.to_stream(scope);
                page_analytics(events, announced, windows)
                    .inspect(move |result| sender.send(result.clone()).expect("the test reads the results"))
                    .probe()
                    .0
            });
            let (index, peers) = (worker.index(), worker.peers());
            let mine = || judged.iter().skip(index).step_by(peers);
            let mut positions = vec![0; mine().count()];
            // The partition that is furthest behind goes next, as with flow control.
            while let Some((open, at, activity)) = mine()
                .zip(&mut positions)
                .filter_map(|(partition, at)| partition.get(*at).map(|(open, activity)| (*open, at, *activity)))
                .min_by_key(|(open, _, _)| *open)
            {
                *at += 1;
                events.advance_to(open);
                announced.advance_to(open);
                announced.send(PageName {
                    page: activity.page,
                    page_url: names[&activity.page].clone(),
                    keep_until: activity.leave,
                });
                events.send(activity);
                if activity.time_ms % 7 == 0 {
                    events.flush();
                    worker.step();
                }
            }
            drop((events, announced));
            while !probe.done() {
                worker.step();
            }
        })
        .expect("worker threads start");
        drop(guards);
        let mut results: Vec<PageAnalytics> = receiver.iter().collect();
        results.sort_by(|a, b| (a.window_end, &a.page_url).cmp(&(b.window_end, &b.page_url)));
        results
    }

    /// What [`TestJob::run`] has to give, recomputed for every window from the definitions.
    pub fn expected(&self, partitions: &[Vec<TestEvent>]) -> Vec<PageAnalytics> {
        let mut entering: BTreeMap<i64, Vec<(i64, &TestEvent)>> = BTreeMap::new();
        for partition in partitions {
            let mut clock_ms: Option<i64> = None;
            for event in partition {
                let mut enter = self.end_after(event.time_ms);
                if let Some(clock_ms) = clock_ms {
                    enter = enter.max(self.end_after(clock_ms - self.bound_ms));
                }
                let leave = self.end_after(event.time_ms + self.windows.size_ms());
                if enter < leave {
                    entering.entry(enter).or_default().push((leave, event));
                }
                clock_ms = clock_ms.max(Some(event.time_ms));
            }
        }
        let mut results = Vec::new();
        let mut window: Vec<(i64, &TestEvent)> = Vec::new();
        let Some(mut end) = entering.first_key_value().map(|(end, _)| *end) else { return results };
        while !entering.is_empty() || !window.is_empty() {
            window.retain(|(leave, _)| *leave > end);
            window.extend(entering.remove(&end).unwrap_or_default());
            let events: Vec<&TestEvent> = window.iter().map(|(_, event)| *event).collect();
            results.extend(self.of_window(end, &events));
            end += self.windows.slide_ms();
        }
        results
    }

    /// The first window end after `time_ms`, by search.
    fn end_after(&self, time_ms: i64) -> i64 {
        let ends_here =
            |end: i64| (end - self.windows.size_ms() - self.windows.offset_ms()) % self.windows.slide_ms() == 0;
        (time_ms + 1..).find(|end| ends_here(*end)).expect("a window ends within a slide")
    }

    fn of_window(&self, end: i64, events: &[&TestEvent]) -> Vec<PageAnalytics> {
        let pages: BTreeMap<String, u64> = events.iter().map(|event| (page_url(event.page), event.page)).collect();
        let of_session = |session| events.iter().filter(move |event| event.session == session);
        let duration_ms = |session| {
            let reported = of_session(session).filter_map(|event| event.session_duration_s).max();
            let times = || of_session(session).map(|event| event.time_ms);
            reported.map_or_else(
                || times().max().unwrap_or(0) - times().min().unwrap_or(0),
                |seconds| i64::from(seconds) * 1_000,
            )
        };
        let result = |(page_url, page): (String, u64)| {
            let here: Vec<_> = events.iter().filter(|event| event.page == page).collect();
            let count = |event_type| here.iter().filter(|event| event.event_type == event_type).count() as i64;
            let sessions: BTreeSet<u64> = here.iter().map(|event| event.session).collect();
            let engaged: BTreeSet<u64> =
                here.iter().filter(|event| event.event_type != EventType::View).map(|event| event.session).collect();
            let bounced = sessions
                .iter()
                .filter(|session| of_session(**session).all(|event| event.event_type == EventType::View))
                .filter(|session| of_session(**session).count() == 1)
                .count();
            PageAnalytics {
                page_url,
                window_start: end - self.windows.size_ms(),
                window_end: end,
                view_count: count(EventType::View),
                unique_users: here.iter().map(|event| event.user).collect::<BTreeSet<_>>().len() as i32,
                click_count: count(EventType::Click),
                conversion_count: count(EventType::Purchase),
                engagement_rate: engaged.len() as f64 / sessions.len() as f64,
                bounce_rate: bounced as f64 / sessions.len() as f64,
                avg_session_duration: sessions.iter().map(|session| duration_ms(*session)).sum::<i64>() as f64
                    / sessions.len() as f64
                    / 1_000.0,
            }
        };
        pages.into_iter().map(result).collect()
    }
}

fn page_url(page: u64) -> String {
    format!("/page/{page:05}")
}
