//! The sweep against the definitions applied to everything at once, and the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::{Judgement, PartitionClock, Tick, Windows};
use proptest::prelude::*;

use super::*;
use crate::event::DecodedEvent;
use crate::history::{History, HistoryLimits, OTHER_PAGES, Recalled};
use crate::privacy::HashKey;
use crate::validation::Reason;

type Records = Vec<(i64, Result<Click, Reason>)>;

fn run(
    definition: &Definition,
    partitions: &[(Records, Vec<IdleAdvance>)],
) -> (Totals, Vec<PageAnalytics>, Vec<Uncounted>) {
    let partitions = partitions.iter().map(|(records, idle_advances)| Partition {
        records: records.iter().cloned().map(Ok::<_, Infallible>),
        idle_advances: idle_advances.clone(),
    });
    let (mut results, mut uncounted) = (Vec::new(), Vec::new());
    let Ok(totals) =
        expect(definition, partitions.collect(), |result| results.push(result), |record| uncounted.push(record));
    (totals, results, uncounted)
}

/// Everything at once, with the job's own clock and history.
fn at_once(
    definition: &Definition,
    partitions: &[(Records, Vec<IdleAdvance>)],
) -> (Vec<PageAnalytics>, Vec<Uncounted>) {
    let Definition { windows, bound_ms, .. } = definition;
    let mut uncounted = Vec::new();
    let mut judged: Vec<(i64, i64, Click)> = Vec::new();
    let hash_key = HashKey::new("audited").unwrap();
    for (partition, (records, idle_advances)) in partitions.iter().enumerate() {
        let mut clock = PartitionClock::default();
        let mut history = History::new(definition.history, *windows);
        for (offset, click) in records {
            let due = idle_advances.iter().filter(|advance| advance.next_offset <= *offset);
            due.for_each(|advance| clock.raise_floor(advance.floor_ms));
            let tick = Some(clock.open_tick(windows, *bound_ms)).filter(|tick| *tick > Tick::MIN).map(|tick| tick.0);
            let mut without = |reason| uncounted.push(Uncounted { partition, offset: *offset, tick, reason });
            let mut click = match click {
                Ok(click) => click.clone(),
                Err(reason) => {
                    without(Some(*reason));
                    continue;
                }
            };
            let payload = click.payload.to_le_bytes();
            let watermark_ms = clock.watermark_ms(*bound_ms);
            match history.take_in(&hash_key, watermark_ms, &decoded(&click), *offset, &payload) {
                Recalled::Copy => continue,
                Recalled::New { told_apart: true } => {}
                Recalled::New { told_apart: false } => click.page_url = OTHER_PAGES.to_owned(),
            }
            match clock.judge(windows, *bound_ms, click.time_ms, click.record_timestamp_ms) {
                Judgement::Counts { enter, leave } => judged.push((enter.0, leave.0, click)),
                Judgement::Late => without(None),
            }
        }
    }
    let first = judged.iter().map(|(enter, ..)| *enter).min().unwrap_or(0);
    let last = judged.iter().map(|(_, leave, _)| *leave).max().unwrap_or(0);
    let mut results = Vec::new();
    for end in (first..last).step_by(windows.slide_ms() as usize) {
        let counts = |(enter, leave, _): &&(i64, i64, _)| *enter <= end && end < *leave;
        let window: Vec<&Click> = judged.iter().filter(counts).map(|(.., click)| click).collect();
        let pages: BTreeSet<_> = window.iter().map(|click| &click.page_url).collect();
        results.extend(pages.into_iter().map(|page| result(&window, page, end, windows.size_ms())));
    }
    (results, uncounted)
}

/// What the job sees of an event.
fn decoded(click: &Click) -> DecodedEvent<'_> {
    DecodedEvent {
        user_id: (&click.user_id).into(),
        session_id: (&click.session_id).into(),
        event_type: click.event_type,
        page_url: (&click.page_url).into(),
        timestamp: click.time_ms,
        session_duration: click.session_duration_s,
    }
}

fn result(window: &[&Click], page: &str, end: i64, size_ms: i64) -> PageAnalytics {
    let here: Vec<_> = window.iter().filter(|click| click.page_url == page).collect();
    let count = |kind| here.iter().filter(|click| click.event_type == kind).count() as i64;
    let users: BTreeSet<_> = here.iter().map(|click| &click.user_id).collect();
    let mut sessions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for click in window {
        sessions.entry(&click.session_id).or_default().push(click);
    }
    sessions.retain(|_, clicks| clicks.iter().any(|click| click.page_url == page));
    let share = |holds: &dyn Fn(&Vec<&&Click>) -> bool| {
        sessions.values().filter(|clicks| holds(clicks)).count() as f64 / sessions.len() as f64
    };
    let durations_ms = sessions.values().map(|clicks| {
        let times = || clicks.iter().map(|click| click.time_ms);
        let reported = clicks.iter().filter_map(|click| click.session_duration_s).max();
        reported.map_or(times().max().unwrap() - times().min().unwrap(), |seconds| i64::from(seconds) * 1_000)
    });
    PageAnalytics {
        page_url: page.to_owned(),
        window_start: end - size_ms,
        window_end: end,
        view_count: count(EventType::View),
        unique_users: users.len() as i32,
        click_count: count(EventType::Click),
        conversion_count: count(EventType::Purchase),
        engagement_rate: share(&|c| c.iter().any(|c| c.page_url == page && c.event_type != EventType::View)),
        bounce_rate: share(&|clicks| clicks.len() == 1 && clicks[0].event_type == EventType::View),
        avg_session_duration: durations_ms.sum::<i64>() as f64 / sessions.len() as f64 / 1_000.0,
    }
}

prop_compose! {
    fn any_click()(
        (user, session, page) in (0..4, 0..6, 0..3),
        kind in 0..5_usize,
        time_ms in 1..400_i64,
        ahead in proptest::option::of(-20..20_i64),
        session_duration_s in proptest::option::of(0..50),
    ) -> Click {
        use EventType::{AddToCart, Click as Clicked, Purchase, Search, View};
        Click {
            user_id: format!("user {user}"),
            session_id: format!("session {session}"),
            page_url: format!("/{page}"),
            event_type: [View, Clicked, AddToCart, Purchase, Search][kind],
            time_ms,
            record_timestamp_ms: ahead.map(|ahead| time_ms + ahead),
            session_duration_s,
            payload: 0,
        }
    }
}

prop_compose! {
    fn any_history()(
        horizon_ms in proptest::option::of(1..120_i64),
        pages_max in proptest::option::of(1..3_usize),
    ) -> HistoryLimits {
        HistoryLimits { horizon_ms, pages_max }
    }
}

/// Records at offsets with gaps, roughly in order of time.
fn any_partition() -> impl Strategy<Value = (Records, Vec<IdleAdvance>)> {
    let records = prop::collection::vec((1..3_i64, prop::option::weighted(0.9, any_click())), 0..25);
    let idle_advances = prop::collection::vec((-1..40_i64, -50..400_i64), 0..4);
    let copies = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..90_i64), 0..8);
    (records, copies, idle_advances, any::<bool>()).prop_map(|(mut records, copies, idle_advances, ordered)| {
        if ordered {
            records.sort_by_key(|(_, click)| click.as_ref().map(|click| click.time_ms / 40));
        }
        for (number, (_, click)) in records.iter_mut().enumerate() {
            click.iter_mut().for_each(|click| click.payload = number as u128);
        }
        for (of, to, later_ms) in copies.iter().filter(|_| !records.is_empty()).collect::<Vec<_>>() {
            let (step, mut click) = records[of.index(records.len())].clone();
            // The same payload in a later record.
            click.iter_mut().flat_map(|click| &mut click.record_timestamp_ms).for_each(|ms| *ms += later_ms);
            records.insert(to.index(records.len() + 1), (step, click));
        }
        let mut offset = 0;
        let records = records.into_iter().map(|(step, click)| {
            offset += step;
            (offset, click.ok_or(Reason::Undecodable))
        });
        let advances = idle_advances.into_iter().map(|(next_offset, floor_ms)| IdleAdvance { next_offset, floor_ms });
        (records.collect(), advances.collect())
    })
}

proptest! {
    #[test]
    fn the_sweep_is_everything_at_once(
        partitions in prop::collection::vec(any_partition(), 0..4),
        (slide, more, offset, bound_ms) in (1..30_i64, 0..80_i64, -50..50_i64, 0..60_i64),
        through_ms in prop::option::of(0..400_i64),
        history in any_history(),
    ) {
        let windows = Windows::new(slide + more, slide, offset).unwrap();
        let definition = Definition { windows, bound_ms, through_ms, history };
        let (totals, actual, mut uncounted) = run(&definition, &partitions);
        let (mut expected, mut expected_uncounted) = at_once(&definition, &partitions);
        expected.retain(|result| through_ms.is_none_or(|through| result.window_end <= through));
        prop_assert_eq!(totals.results, expected.len() as u64);
        if through_ms.is_none() {
            let read: usize = partitions.iter().map(|(records, _)| records.len()).sum();
            prop_assert_eq!(totals.counted + totals.late + totals.duplicates + totals.rejected, read as u64);
            prop_assert_eq!(totals.late + totals.rejected, expected_uncounted.len() as u64);
        }
        prop_assert_eq!(actual, expected);
        for records in [&mut uncounted, &mut expected_uncounted] {
            records.retain(|record| record.tick.is_some_and(|tick| through_ms.is_none_or(|through| tick <= through)));
            records.sort_unstable_by_key(|record| (record.partition, record.offset));
        }
        prop_assert_eq!(uncounted, expected_uncounted);
    }

    #[test]
    fn window_ends_are_the_dataflows(time_ms in -1_000..1_000_i64, slide in 1..50_i64, more in 0..90_i64, offset: i32) {
        let windows = Windows::new(slide + more, slide, i64::from(offset)).unwrap();
        let definition = Definition { windows, bound_ms: 0, through_ms: None, history: HistoryLimits::default() };
        prop_assert_eq!(definition.end_after(time_ms), windows.tick(time_ms).0);
    }
}

fn click(time_ms: i64) -> Click {
    Click {
        user_id: "u".into(),
        session_id: "s".into(),
        page_url: "/".into(),
        event_type: EventType::View,
        time_ms,
        record_timestamp_ms: None,
        session_duration_s: None,
        payload: 0,
    }
}

fn by_ten(through_ms: Option<i64>) -> Definition {
    Definition { windows: Windows::new(20, 10, 0).unwrap(), bound_ms: 5, through_ms, history: HistoryLimits::default() }
}

#[test]
fn idle_advances_apply_just_before_their_offset() {
    // At 25 the event counts in the windows that end at 30 and 40. A floor of 30 closes the first, of 40 both.
    let ends = |idle_advances: &[(i64, i64)]| -> Vec<i64> {
        let advance = |&(next_offset, floor_ms)| IdleAdvance { next_offset, floor_ms };
        let partition = (vec![(7, Ok(click(25)))], idle_advances.iter().map(advance).collect());
        run(&by_ten(None), &[partition]).1.iter().map(|result| result.window_end).collect()
    };
    assert_eq!(ends(&[]), [30, 40]);
    assert_eq!(ends(&[(7, 29)]), [30, 40]);
    assert_eq!(ends(&[(7, 30)]), [40]);
    assert_eq!(ends(&[(8, 40)]), [30, 40]);
    assert_eq!(ends(&[(7, 30), (7, 40), (7, 35)]), [] as [i64; 0]);
    assert_eq!(ends(&[(2, 30), (9, 40)]), [40]);
    assert_eq!(ends(&[(0, i64::MAX)]), [] as [i64; 0]);
    assert_eq!(ends(&[(0, i64::MIN)]), [30, 40]);
}

#[test]
fn partitions_are_read_no_further_than_windows_need() {
    let read = std::cell::Cell::new(0);
    let records = (0..1_000_000).map(|number| {
        read.set(read.get() + 1);
        Ok::<_, Infallible>((number, Ok(click(number * 10 + 1))))
    });
    let Ok(totals) = expect(&by_ten(Some(100)), vec![Partition { records, idle_advances: Vec::new() }], drop, drop);
    assert_eq!(totals.results, 10);
    assert!(read.get() < 20, "{}", read.get());
}

#[test]
fn a_failed_read_fails() {
    let records = [Ok((0, Ok(click(1)))), Err("lost"), Ok((1, Ok(click(2))))].into_iter();
    let partition = Partition { records, idle_advances: Vec::new() };
    assert_eq!(expect(&by_ten(None), vec![partition], drop, drop), Err("lost"));
}

#[test]
fn the_report_says_what_differs() {
    let result = |page: &str, window_end| PageAnalytics {
        page_url: page.into(),
        window_start: window_end - 20,
        window_end,
        view_count: 3,
        unique_users: 2,
        click_count: 1,
        conversion_count: 0,
        engagement_rate: 0.5,
        bounce_rate: 1.0 / 3.0,
        avg_session_duration: 12.0,
    };
    let expected: Vec<_> = (1..=6).map(|end| result("/", end * 10)).collect();
    let mut comparison = Comparison::new(10..=60, 1);
    // Missing: 10 and 60. Twice: 30, 40 (twice over). Different: 40, once of three. Unexpected: /x, also twice.
    let mut wrong = result("/", 40);
    (wrong.unique_users, wrong.bounce_rate) = (9, f64::NAN);
    let mut close = result("/", 20);
    close.bounce_rate += 9e-10;
    let x = result("/x", 20);
    let (thirty, forty, fifty) = (result("/", 30), result("/", 40), result("/", 50));
    for actual in [&forty, &thirty, &thirty, &close, &fifty, &wrong, &forty, &x, &x, &result("/", 70), &result("/", 0)]
    {
        comparison.actual(actual.clone());
    }
    expected.iter().for_each(|result| comparison.expected(result));
    comparison.expected(&result("/", 70));
    let report = comparison.finish();
    let key = |page: &str, window_end| ResultKey { window_end, page_url: page.into() };
    assert!(!report.agrees());
    assert_eq!((report.expected, report.actual), (6, 9));
    assert_eq!(report.missing, Findings { count: 2, examples: vec![key("/", 10)] });
    assert_eq!(report.twice, Findings { count: 4, examples: vec![key("/", 30)] });
    assert_eq!(report.unexpected, Findings { count: 1, examples: vec![key("/x", 20)] });
    let field = |field, expected: &str, actual: &str| {
        let (expected, actual) = (expected.to_owned(), actual.to_owned());
        FieldDifference { field, expected, actual }
    };
    let fields = vec![field("unique_users", "2", "9"), field("bounce_rate", "0.3333333333333333", "NaN")];
    assert_eq!(report.different, Findings { count: 1, examples: vec![Difference { result: key("/", 40), fields }] });
}
