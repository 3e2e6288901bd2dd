//! The statistics of what is put into the traffic, with fixed seeds, and its laws.

use std::collections::{BTreeMap, HashMap, HashSet};

use clicktide_dataflows::event::EventType;
use proptest::prelude::*;

use super::*;
use crate::avro::{Decoder, encode_event};
use crate::event::DecodedEvent;
use crate::generator::injected::Injected;
use crate::generator::murmur2;
use crate::generator::settings::{
    Bots, ClockSkew, DelayDistribution, Delays, Duplicates, FlashCrowd, Invalid, Malformed, Mobile, Silence,
};
use crate::millis::Millis;
use crate::validation::{Limits, Reason, validate};

const START_MS: i64 = 1_700_000_000_000;
const PARTITIONS: u32 = 6;
const MINUTE_US: u64 = 60_000_000;

fn minutes(minutes: i64) -> Settings {
    Settings { duration: Some(Millis(minutes * 60_000)), ..Settings::default() }
}

fn traffic(settings: &Settings) -> impl Iterator<Item = Outgoing> + use<> {
    let mut traffic = Traffic::new(settings, START_MS, PARTITIONS).unwrap();
    std::iter::from_fn(move || traffic.next().cloned())
}

fn happened_us(outgoing: &Outgoing) -> u64 {
    (outgoing.event.timestamp - START_MS) as u64 * 1_000
}

fn close(what: &str, actual: f64, expected: f64, tolerance: f64) {
    assert!((actual - expected).abs() <= tolerance, "{what}: {actual}, not {expected} within {tolerance}");
}

fn share(outgoings: &[Outgoing], of: impl Fn(&Outgoing) -> bool) -> f64 {
    outgoings.iter().filter(|outgoing| of(outgoing)).count() as f64 / outgoings.len() as f64
}

#[test]
fn without_faults_events_are_the_models_own_when_they_happen() {
    let settings = minutes(1);
    let mut model = Model::new(&settings).unwrap();
    let mut event = Model::blank_event();
    let mut number = 0;
    for outgoing in traffic(&settings) {
        model.write_next(START_MS + (outgoing.due_us / 1_000) as i64, &mut event);
        assert_eq!((outgoing.due_us, outgoing.form, outgoing.marks), (number * 1_000, Form::Event, Marks::default()));
        assert_eq!(outgoing.event, event);
        number += 1;
    }
    assert_eq!(number, 60_000);
}

#[test]
fn faults_do_not_change_what_users_do() {
    let clean: Vec<_> = traffic(&minutes(1)).map(|outgoing| outgoing.event).collect();
    let duplicates = Duplicates { enabled: true, share: 0.3, ..Duplicates::default() };
    let first: Vec<_> = traffic(&Settings { duplicates, ..minutes(1) })
        .filter(|outgoing| !outgoing.marks.duplicate)
        .map(|outgoing| outgoing.event)
        .collect();
    assert!(clean == first, "{} events, {} with duplicates", clean.len(), first.len());
}

#[test]
fn delays_are_as_often_and_as_long_as_prescribed() {
    let check = |distribution, shape, expected: [f64; 3]| {
        let delays = Delays { enabled: true, share: 0.2, distribution, shape, ..Delays::default() };
        let all: Vec<_> = traffic(&Settings { delays, events_per_second: 400.0, ..minutes(10) }).collect();
        close("share", share(&all, |outgoing| outgoing.marks.delayed), 0.2, 0.005);
        assert!(all.iter().all(|outgoing| outgoing.marks.delayed || outgoing.due_us - happened_us(outgoing) < 1_000));
        // Of those that happened early enough for all but the very longest to have come.
        let early = all.iter().filter(|outgoing| outgoing.marks.delayed && happened_us(outgoing) < 5 * MINUTE_US);
        let mut delays_s: Vec<_> =
            early.map(|outgoing| (outgoing.due_us - happened_us(outgoing)) as f64 / 1e6).collect();
        delays_s.sort_unstable_by(f64::total_cmp);
        for (quantile, expected) in [0.5, 0.9, 0.99].into_iter().zip(expected) {
            let actual = delays_s[(delays_s.len() as f64 * quantile) as usize];
            close(&format!("{distribution:?} {quantile}"), actual, expected, expected * 0.1);
        }
        assert!(all.is_sorted_by_key(|outgoing| outgoing.due_us));
    };
    // Pareto: scale * (1 - q)^(-1 / shape), where half are below the median of 2 s.
    check(DelayDistribution::Pareto, 1.2, [2.0, 7.65, 52.1]);
    check(DelayDistribution::Pareto, 2.5, [2.0, 3.81, 9.56]);
    // Lognormal: exp(ln 2 + shape * z) with z = 0, 1.2816, 2.3263.
    check(DelayDistribution::Lognormal, 1.0, [2.0, 7.20, 20.5]);
}

#[test]
fn no_delay_is_longer_than_the_longest() {
    let delays = Delays { enabled: true, share: 1.0, shape: 0.1, max: Millis(30_000), ..Delays::default() };
    let all: Vec<_> = traffic(&Settings { delays, ..minutes(3) }).collect();
    let longest = all.iter().map(|outgoing| outgoing.due_us - happened_us(outgoing)).max().unwrap();
    assert!((30_000_000..30_001_000).contains(&longest), "{longest}");
}

#[test]
fn what_is_on_its_way_at_the_end_is_said() {
    let delays = Delays { enabled: true, share: 1.0, ..Delays::default() };
    let mut traffic = Traffic::new(&Settings { delays, ..minutes(1) }, START_MS, PARTITIONS).unwrap();
    let mut sent = 0;
    while traffic.next().is_some() {
        sent += 1;
    }
    assert_eq!((traffic.unsent(MINUTE_US), sent + traffic.on_the_way(MINUTE_US)), (0, 60_000));
    assert!(traffic.on_the_way(MINUTE_US) > 1_000);
}

#[test]
fn mobile_clients_upload_batches() {
    let mobile = Mobile { enabled: true, share: 0.2, ..Mobile::default() };
    // Every user is in a session, so that all are seen.
    let settings = Settings { mobile, active_share: 1.0, events_per_second: 200.0, ..minutes(30) };
    let all: Vec<_> = traffic(&settings).collect();
    let mut clients: HashMap<&str, BTreeMap<u64, Vec<&Outgoing>>> = HashMap::new();
    let mut others = HashSet::new();
    for outgoing in &all {
        let user = outgoing.event.user_id.as_str();
        if outgoing.marks.uploaded {
            clients.entry(user).or_default().entry(outgoing.due_us).or_default().push(outgoing);
        } else {
            others.insert(user);
        }
    }
    close("users", clients.len() as f64 / (clients.len() + others.len()) as f64, 0.2, 0.04);
    assert!(clients.keys().all(|user| !others.contains(user)), "a user has one client");
    let mut batches = 0;
    for batch in clients.values().flat_map(BTreeMap::values) {
        batches += usize::from(batch.len() > 10);
        assert!(batch.is_sorted_by_key(|outgoing| outgoing.event.timestamp));
        let waited_us = batch[0].due_us - happened_us(batch[0]);
        assert!((MINUTE_US..=10 * MINUTE_US + 1_000).contains(&waited_us), "{waited_us}");
    }
    assert!(batches > 100, "{batches}");
}

#[test]
fn duplicates_are_the_same_again() {
    let duplicates = Duplicates { enabled: true, share: 0.1, delayed_share: 0.4, delay_max: Millis(5_000) };
    let all: Vec<_> = traffic(&Settings { duplicates, ..minutes(5) }).collect();
    let copies = all.iter().filter(|outgoing| outgoing.marks.duplicate).count() as f64;
    close("share", copies / (all.len() as f64 - copies), 0.1, 0.003);
    let mut late = 0.0;
    let mut before: HashMap<_, u64> = HashMap::new();
    for outgoing in &all {
        let event = &outgoing.event;
        let key = (event.session_id.clone(), event.timestamp, event.page_url.clone(), event.event_type as u8);
        if outgoing.marks.duplicate {
            let apart_us = outgoing.due_us - before[&key];
            assert!(apart_us <= 5_000_000, "{apart_us}");
            late += f64::from(u8::from(apart_us > 0));
        } else {
            before.insert(key, outgoing.due_us);
        }
    }
    close("late", late / copies, 0.4, 0.02);
}

/// What validation says of a record as it is in the log, where it is appended as soon as it is due.
fn verdict(outgoing: &Outgoing) -> Option<Reason> {
    let mut payload = Vec::new();
    outgoing.form.write_avro(&outgoing.event, encode_event, &mut payload);
    let decoder = Decoder::default();
    let event: DecodedEvent<'_> = match decoder.decode(&payload) {
        Ok(event) => event,
        Err(_) => return Some(Reason::Undecodable),
    };
    validate(&event, Some(START_MS + (outgoing.due_us / 1_000) as i64), &Limits::default()).err()
}

#[test]
fn damage_is_as_often_as_prescribed_and_counted_as_what_it_is() {
    let malformed = Malformed { enabled: true, truncated: 0.03, garbage: 0.02, empty: 0.01, other_schema: 0.04 };
    let invalid = Invalid { enabled: true, share: 0.2 };
    let settings = Settings { malformed, invalid, ..minutes(3) };
    let (mut injected, mut reasons, mut all) = (Injected::default(), BTreeMap::<Reason, u64>::new(), 0.0);
    for outgoing in traffic(&settings) {
        injected.count(outgoing.form, &outgoing.marks);
        if let Some(reason) = verdict(&outgoing) {
            *reasons.entry(reason).or_default() += 1;
        }
        all += 1.0;
    }
    let counted: BTreeMap<_, _> = injected.kinds().collect();
    for (kind, expected) in [("truncated", 0.03), ("garbage", 0.02), ("empty", 0.01), ("other_schema", 0.04)] {
        close(kind, counted[kind] as f64 / all, expected, 0.002);
    }
    assert_eq!(reasons[&Reason::Undecodable], injected.undecodable());
    for reason in &Reason::all()[1..] {
        assert_eq!(reasons[reason], counted[reason.label()], "{reason:?}");
        close(reason.label(), counted[reason.label()] as f64 / all, 0.2 * 0.9 / 10.0, 0.002);
    }
}

#[test]
fn clocks_are_wrong_by_user() {
    let clock_skew = ClockSkew { enabled: true, share: 0.3, max: Millis(90_000) };
    let all: Vec<_> = traffic(&Settings { clock_skew, events_per_second: 100.0, ..minutes(20) }).collect();
    let mut skews: HashMap<&str, i64> = HashMap::new();
    for outgoing in &all {
        let skew_ms = outgoing.event.timestamp - START_MS - (outgoing.due_us / 1_000) as i64;
        assert_eq!(*skews.entry(&outgoing.event.user_id).or_insert(skew_ms), skew_ms);
        assert_eq!(outgoing.marks.skewed, skew_ms != 0);
    }
    let wrong: Vec<i64> = skews.values().copied().filter(|skew_ms| *skew_ms != 0).collect();
    close("share", wrong.len() as f64 / skews.len() as f64, 0.3, 0.05);
    assert!(wrong.iter().all(|skew_ms| skew_ms.abs() <= 90_000));
    close("ahead", wrong.iter().filter(|skew_ms| **skew_ms > 0).count() as f64 / wrong.len() as f64, 0.5, 0.12);
    let mean_ms = wrong.iter().map(|skew_ms| skew_ms.abs() as f64).sum::<f64>() / wrong.len() as f64;
    close("mean", mean_ms, 45_000.0, 6_000.0);
}

#[test]
fn bots_view_much_in_one_session_each() {
    let bots = Bots { enabled: true, count: 4, share: 0.25 };
    let all: Vec<_> = traffic(&Settings { bots, ..minutes(3) }).collect();
    close("share", share(&all, |outgoing| outgoing.marks.bot), 0.25, 0.003);
    let mut sessions: HashMap<&str, HashSet<&str>> = HashMap::new();
    let mut pages: HashMap<&str, HashMap<&str, u32>> = HashMap::new();
    for Outgoing { event, .. } in all.iter().filter(|outgoing| outgoing.marks.bot) {
        assert_eq!(event.event_type, EventType::View);
        sessions.entry(&event.user_id).or_default().insert(&event.session_id);
        *pages.entry(&event.user_id).or_default().entry(&event.page_url).or_default() += 1;
    }
    assert_eq!((sessions.len(), sessions.values().map(HashSet::len).max()), (4, Some(1)));
    // They crawl the whole site evenly.
    for counts in pages.values() {
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(counts.len() == 100 && most - least <= 1, "{counts:?}");
    }
    // People are as they are without them.
    let people: Vec<_> = all.into_iter().filter(|outgoing| !outgoing.marks.bot).collect();
    close("clicks", share(&people, |outgoing| outgoing.event.event_type == EventType::Click), 0.2, 0.005);
}

#[test]
fn the_hot_page_moves() {
    let flash_crowd = FlashCrowd { enabled: true, share: 0.4, ..FlashCrowd::default() };
    let all: Vec<_> = traffic(&Settings { flash_crowd, ..minutes(15) }).collect();
    let mut hot = Vec::new();
    for minute in 0..15 {
        let views: Vec<_> = all
            .iter()
            .filter(|outgoing| outgoing.due_us / MINUTE_US == minute && outgoing.event.event_type == EventType::View)
            .cloned()
            .collect();
        let (of_view, of_product) = (|outgoing: &Outgoing| outgoing.marks.hot, 0.4);
        // Hot from minute 1 on for 2 minutes, every 4.
        let expected = if (minute + 3) % 4 < 2 { of_product } else { 0.0 };
        close(&format!("minute {minute}"), share(&views, of_view), expected, 0.015);
        let pages: HashSet<_> =
            views.iter().filter(|view| view.marks.hot).map(|view| view.event.page_url.clone()).collect();
        assert_eq!(pages.len(), usize::from(expected > 0.0), "minute {minute}: {pages:?}");
        hot.extend(pages);
    }
    // Each page for two minutes.
    assert_eq!(hot.len(), 8);
    for pair in hot.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    hot.dedup();
    assert_eq!(hot.len(), 4, "{hot:?}");
}

#[test]
fn a_partition_at_a_time_falls_silent() {
    let silence = Silence { enabled: true, ..Silence::default() };
    let settings = Settings { silence, balanced_partitions: Some(PARTITIONS), ..minutes(9) };
    let mut traffic = Traffic::new(&settings, START_MS, PARTITIONS).unwrap();
    let mut counts = [[0; PARTITIONS as usize]; 9];
    let mut sent = 0;
    while let Some(Outgoing { due_us, event, .. }) = traffic.next() {
        let partition = murmur2::partition(event.user_id.as_bytes(), PARTITIONS);
        counts[(*due_us / MINUTE_US) as usize][partition as usize] += 1;
        sent += 1;
    }
    assert_eq!(sent + traffic.silenced(), 9 * 60_000);
    let silent: Vec<Vec<usize>> = counts
        .iter()
        .map(|minute| (0..PARTITIONS as usize).filter(|partition| minute[*partition] == 0).collect())
        .collect();
    for (minute, silent) in silent.iter().enumerate() {
        assert_eq!(silent.len(), usize::from(minute % 3 == 1), "minute {minute}: {silent:?}");
    }
    assert!(silent[1] != silent[4] && silent[4] != silent[7], "{silent:?}");
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let on = || any::<[bool; 9]>();
    (any::<u64>(), on(), 0.0..1.0_f64, 1..400_i64, any::<bool>()).prop_map(|(seed, on, share, rate, by_page)| {
        let settings = minutes(3);
        Settings {
            seed,
            events_per_second: rate as f64,
            key: if by_page { crate::generator::settings::EventKey::PageUrl } else { settings.key },
            delays: Delays { enabled: on[0], share, ..settings.delays },
            mobile: Mobile { enabled: on[1], share, ..settings.mobile },
            duplicates: Duplicates { enabled: on[2], share, ..settings.duplicates },
            malformed: Malformed { enabled: on[3], garbage: share / 2.0, ..settings.malformed },
            invalid: Invalid { enabled: on[4], share },
            clock_skew: ClockSkew { enabled: on[5], share, ..settings.clock_skew },
            bots: Bots { enabled: on[6], share: share * 0.9, ..settings.bots },
            flash_crowd: FlashCrowd { enabled: on[7], share, ..settings.flash_crowd },
            silence: Silence { enabled: on[8], ..settings.silence },
            ..settings
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever faults are on: the same seed, settings and start give the same records; they never go back, and none is lost.
    #[test]
    fn the_same_again(settings in any_settings()) {
        prop_assert_eq!(settings.validate(), Ok(()));
        let mut one = Traffic::new(&settings, START_MS, PARTITIONS).unwrap();
        let mut other = Traffic::new(&settings, START_MS, PARTITIONS).unwrap();
        let (mut due_us, mut firsts, mut copies) = (0, 0, 0);
        while let Some(outgoing) = one.next() {
            prop_assert_eq!(Some(outgoing), other.next());
            prop_assert!(outgoing.due_us >= due_us && outgoing.due_us < 3 * MINUTE_US);
            due_us = outgoing.due_us;
            *(if outgoing.marks.duplicate { &mut copies } else { &mut firsts }) += 1;
        }
        prop_assert_eq!(other.next(), None);
        prop_assert_eq!(one.unsent(3 * MINUTE_US), 0);
        let scheduled = Schedule::new(&settings, START_MS).count() as u64;
        prop_assert!(firsts + one.silenced() <= scheduled);
        prop_assert!(firsts + copies + one.silenced() + one.on_the_way(3 * MINUTE_US) >= scheduled);
    }
}
