//! The dataflow against the definitions, at several numbers of workers.

use clicktide_dataflows::event::EventType;
use clicktide_dataflows::testing::{TestEvent, TestJob};
use clicktide_dataflows::time::Windows;
use proptest::prelude::*;

/// Events as `(page, user, session, type, time)` per partition.
type Partition = Vec<(u64, u64, u64, EventType, i64)>;

fn check(size_ms: i64, slide_ms: i64, bound_ms: i64, partitions: Vec<Partition>) {
    let job = TestJob { windows: Windows::new(size_ms, slide_ms, 0).unwrap(), bound_ms };
    let partitions: Vec<Vec<TestEvent>> = partitions
        .into_iter()
        .map(|partition| {
            let event = |(page, user, session, event_type, time_ms)| TestEvent {
                page,
                user,
                session,
                event_type,
                session_duration_s: None,
                time_ms,
            };
            partition.into_iter().map(event).collect()
        })
        .collect();
    check_job(job, &partitions);
}

fn check_job(job: TestJob, partitions: &[Vec<TestEvent>]) {
    let expected = job.expected(partitions);
    for workers in 1..=3 {
        let actual = job.run(workers, partitions);
        assert_eq!(actual.len(), expected.len(), "number of results at {workers} workers: {actual:#?}");
        for (actual, expected) in actual.iter().zip(&expected) {
            assert_eq!(actual, expected, "at {workers} workers");
        }
    }
}

use EventType::{AddToCart, Click, Purchase, Search, View};

#[test]
fn no_events_no_results() {
    check(100, 10, 20, vec![]);
    check(100, 10, 20, vec![vec![], vec![]]);
}

#[test]
fn one_event_is_in_every_window_over_it() {
    check(100, 10, 20, vec![vec![(1, 1, 1, View, 1_000)]]);
    check(25, 10, 0, vec![vec![(1, 1, 1, Purchase, 1_009)]]);
}

#[test]
fn sessions_bounce_until_they_go_on() {
    check(100, 10, 20, vec![vec![(1, 1, 1, View, 1_000), (2, 1, 1, View, 1_031), (2, 1, 1, Click, 1_032)]]);
    check(100, 10, 20, vec![vec![(1, 1, 1, View, 1_000), (1, 2, 2, AddToCart, 1_001), (1, 2, 1, Search, 1_090)]]);
}

#[test]
fn quiet_times_are_bridged_and_late_events_are_shifted() {
    check(
        100,
        10,
        20,
        vec![vec![(1, 1, 1, View, 1_000), (1, 1, 1, View, 1_300), (2, 2, 2, View, 1_201), (3, 3, 3, Click, 1_100)]],
    );
}

#[test]
fn partitions_are_judged_by_their_own_clocks() {
    let fast = (0..50).map(|i| (i % 3, i, i, View, 10_000 + i as i64)).collect();
    let slow = (0..50).map(|i| (i % 2, i % 7, i, Click, 100 + 11 * i as i64)).collect();
    check(60, 20, 5, vec![fast, slow]);
}

#[test]
fn a_session_may_be_on_many_pages() {
    // More than are looked through one by one; pages are left and come back, and the last of them alone in the end.
    let of_bot = |i: u64| (i * 7 % 400, 1, 1, if i.is_multiple_of(5) { Click } else { View }, 1_000 + i as i64 / 4);
    let of_others = |i: u64| (i % 90, i % 50, i % 50, View, 1_000 + i as i64 / 3);
    let mut events: Partition = (0..900).map(of_bot).chain((0..300).map(of_others)).collect();
    events.sort_by_key(|(.., time_ms)| *time_ms);
    events.push((3, 1, 1, View, 1_300));
    check(100, 50, 20, vec![events]);
}

fn events() -> impl Strategy<Value = Vec<TestEvent>> {
    let event_type = prop::sample::select(vec![View, Click, AddToCart, Purchase, Search]);
    let event =
        (0..4u64, 0..6u64, 0..8u64, event_type, prop::option::of(0..100i32), 0..60i64, prop::bool::weighted(0.03));
    prop::collection::vec(event, 0..60).prop_map(|steps| {
        let mut now_ms = 1;
        let mut events = Vec::new();
        for (page, user, session, event_type, session_duration_s, step, jump) in steps {
            now_ms += if jump { 700 } else { step / 4 };
            let time_ms = (now_ms - step * 2).max(1);
            events.push(TestEvent { page, user, session, event_type, session_duration_s, time_ms });
        }
        events
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 600 }))]
    #[test]
    fn equals_the_definitions(
        partitions in prop::collection::vec(events(), 1..4),
        slide_ms in 1..40i64,
        beyond_ms in 0..150i64,
        offset_ms in -50..50i64,
        bound_ms in 0..60i64,
    ) {
        let windows = Windows::new(slide_ms + beyond_ms, slide_ms, offset_ms).unwrap();
        check_job(TestJob { windows, bound_ms }, &partitions);
    }
}
