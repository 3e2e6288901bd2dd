//! The statistics of the model, with fixed seeds, and the laws of its sessions.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::generator::murmur2;
use crate::generator::settings::Mix;

const START_MS: i64 = 1_700_000_000_000;
const MINUTE_MS: i64 = 60_000;

/// So many events of the settings, evenly spaced at their rate.
fn events(settings: &Settings, count: usize) -> impl Iterator<Item = ClickEvent> + use<> {
    let mut model = Model::new(settings).unwrap();
    let interval_ms = 1_000.0 / settings.events_per_second;
    (0..count).map(move |i| {
        let mut event = Model::blank_event();
        model.write_next(START_MS + (i as f64 * interval_ms) as i64, &mut event);
        event
    })
}

#[test]
fn the_mix_is_as_prescribed() {
    let check = |settings: Settings| {
        let count = 200_000;
        let mut counts: HashMap<EventType, u32> = HashMap::new();
        for event in events(&settings, count) {
            *counts.entry(event.event_type).or_default() += 1;
        }
        let share = |event_type| f64::from(counts.get(&event_type).copied().unwrap_or(0)) / count as f64;
        let Settings { mix, search_share, .. } = settings;
        for (name, actual, expected) in [
            ("views", share(EventType::View) + share(EventType::Search), mix.views),
            ("searches", share(EventType::Search), mix.views * search_share),
            ("clicks", share(EventType::Click), mix.clicks),
            ("add to cart", share(EventType::AddToCart), mix.add_to_cart),
            ("purchases", share(EventType::Purchase), mix.purchases),
        ] {
            // Within 1 % of all events is asked for; a third of that is kept.
            assert!((actual - expected).abs() < 0.003, "{name}: {actual}, not {expected}, of {settings:?}");
        }
    };
    let default = Settings::default;
    check(default());
    check(Settings { seed: 7, ..default() });
    check(Settings { search_share: 0.0, ..default() });
    check(Settings { search_share: 0.3, ..default() });
    // Few events to a session, so that landings weigh most.
    check(Settings { events_per_second: 1.0, ..default() });
    check(Settings { mix: Mix { views: 0.4, clicks: 0.4, add_to_cart: 0.1, purchases: 0.1 }, ..default() });
    check(Settings { mix: Mix { views: 1.0, clicks: 0.0, add_to_cart: 0.0, purchases: 0.0 }, ..default() });
}

#[test]
fn sessions_last_as_long_as_prescribed() {
    let check = |events_per_second: f64, hours: f64, tolerance_minutes: f64| {
        let settings = Settings { events_per_second, ..Settings::default() };
        let count = (hours * 3_600.0 * events_per_second) as usize;
        let mut spans: HashMap<String, (i64, i64)> = HashMap::new();
        for event in events(&settings, count) {
            spans.entry(event.session_id).or_insert((event.timestamp, 0)).1 = event.timestamp;
        }
        // Those that may still have been going on at the end are left out.
        let end_ms = START_MS + (hours * 3_600_000.0) as i64;
        spans.retain(|_, (first_ms, _)| *first_ms < end_ms - 50 * MINUTE_MS);
        for (session_id, (first_ms, last_ms)) in &spans {
            let length_ms = last_ms - first_ms;
            assert!((15 * MINUTE_MS..=45 * MINUTE_MS).contains(&length_ms), "{session_id}: {length_ms} ms");
        }
        let sum_ms: i64 = spans.values().map(|(first_ms, last_ms)| last_ms - first_ms).sum();
        let mean_minutes = sum_ms as f64 / MINUTE_MS as f64 / spans.len() as f64;
        assert!(spans.len() > 400, "{} sessions", spans.len());
        // A session ends with one of its own events, so one of few events ends some minutes late.
        assert!((28.0..33.0).contains(&mean_minutes), "{mean_minutes} minutes");
        // All lengths between the shortest and the longest are alike.
        let mut lengths: Vec<i64> = spans.values().map(|(first_ms, last_ms)| last_ms - first_ms).collect();
        lengths.sort_unstable();
        for (quantile, expected) in [(0.1, 18.0), (0.25, 22.5), (0.5, 30.0), (0.75, 37.5), (0.9, 42.0)] {
            let minutes = lengths[(lengths.len() as f64 * quantile) as usize] as f64 / MINUTE_MS as f64;
            assert!((minutes - expected).abs() < tolerance_minutes, "{quantile}: {minutes} minutes, not {expected}");
        }
    };
    check(50.0, 3.0, 2.5);
    check(10.0, 9.0, 2.0);
    check(1.0, 8.0, 4.0);
}

#[test]
fn page_popularity_is_zipf() {
    let check = |zipf_exponent: f64| {
        let settings = Settings { zipf_exponent, ..Settings::default() };
        let ranks: HashMap<String, usize> =
            catalogue::pages(&settings).into_iter().enumerate().map(|(i, page)| (page.page_url, i + 1)).collect();
        let mut counts = vec![0.0; ranks.len() + 1];
        for event in events(&settings, 300_000) {
            counts[ranks[&event.page_url]] += 1.0;
        }
        // Least squares on the logarithms, over the ranks that have many visits.
        let points: Vec<(f64, f64)> = (1..=30).map(|rank| ((rank as f64).ln(), f64::ln(counts[rank]))).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
        let (x, y, xx, xy) = (mean(|p| p.0), mean(|p| p.1), mean(|p| p.0 * p.0), mean(|p| p.0 * p.1));
        let exponent = -(xy - x * y) / (xx - x * x);
        assert!((exponent - zipf_exponent).abs() < 0.05, "{exponent}, not {zipf_exponent}");
    };
    check(0.0);
    check(0.8);
    check(1.0);
    check(1.5);
}

#[test]
fn a_balanced_pool_balances_partitions() {
    let check = |partitions: u32, count: usize| {
        let settings = Settings { balanced_partitions: Some(partitions), ..Settings::default() };
        let mut traffic = vec![0.0; partitions as usize];
        for event in events(&settings, count) {
            traffic[murmur2::partition(event.user_id.as_bytes(), partitions) as usize] += 1.0;
        }
        let mean = count as f64 / f64::from(partitions);
        for (partition, events) in traffic.iter().enumerate() {
            assert!((events / mean - 1.0).abs() < 0.1, "partition {partition}: {events}, in the mean {mean}");
        }
    };
    // A second is balanced already, not the long run alone.
    check(6, 1_000);
    check(6, 300_000);
    check(3, 10_000);
    check(12, 60_000);
}

#[test]
fn the_hash_of_the_keys_gives_what_is_said() {
    let check = |settings: Settings, tolerance: f64| {
        let partitions = 6;
        let shares = Model::shares_by_hash(&settings, partitions);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
        let count = 200_000;
        let mut traffic = vec![0.0; partitions as usize];
        for event in events(&settings, count) {
            traffic[murmur2::partition(settings.key.of(&event).as_bytes(), partitions) as usize] += 1.0 / count as f64;
        }
        for (share, actual) in shares.iter().zip(&traffic) {
            assert!((share - actual).abs() < tolerance, "{shares:?} by the hash, {traffic:?} of {settings:?}");
        }
    };
    let default = Settings::default;
    check(Settings { balanced_partitions: Some(6), ..default() }, 0.001);
    // Every user is in a session, or those who are would differ from all.
    check(Settings { active_share: 1.0, ..default() }, 0.01);
    check(Settings { key: EventKey::PageUrl, ..default() }, 0.01);
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let of_seed = |seed| events(&Settings { seed, ..Settings::default() }, 5_000).collect::<Vec<_>>();
    assert_eq!(of_seed(1), of_seed(1));
    assert_ne!(of_seed(1), of_seed(2));
}

#[test]
fn sessions_go_down_the_funnel() {
    let settings = Settings { events_per_second: 20.0, ..Settings::default() };
    let mut latest: HashMap<String, ClickEvent> = HashMap::new();
    let mut open_session_of_user: HashMap<String, String> = HashMap::new();
    let mut closed = HashSet::new();
    for event in events(&settings, 100_000) {
        // A user is in one session at a time, which never comes back once another has begun.
        let previous = open_session_of_user.insert(event.user_id.clone(), event.session_id.clone());
        closed.extend(previous.filter(|session_id| *session_id != event.session_id));
        assert!(!closed.contains(&event.session_id), "{event:?}");
        let before = latest.insert(event.session_id.clone(), event.clone());
        let Some(before) = before else {
            assert_eq!(event.event_type, EventType::View, "a session begins with a landing");
            assert!(event.session_duration.is_none_or(|seconds| seconds == 0));
            assert!(event.referrer.is_none_or(|referrer| !referrer.starts_with("https://shop.example.com/")));
            continue;
        };
        assert_eq!((&before.user_id, &before.ip_address), (&event.user_id, &event.ip_address));
        let funnel: &[EventType] = match event.event_type {
            EventType::View => {
                assert_eq!(event.referrer.as_ref(), Some(&before.page_url));
                continue;
            }
            EventType::Search => continue,
            EventType::Click => &[EventType::View, EventType::Search],
            EventType::AddToCart => &[EventType::Click],
            EventType::Purchase => &[EventType::AddToCart],
        };
        assert!(funnel.contains(&before.event_type), "{:?} after {:?}", event.event_type, before.event_type);
        assert_eq!(before.page_url, event.page_url);
        assert!(event.product_id.is_some());
        if event.event_type != EventType::Click {
            assert_eq!(before.product_id, event.product_id);
        }
    }
}

#[test]
fn session_durations_are_those_elapsed() {
    let mut started_ms: HashMap<String, i64> = HashMap::new();
    let mut reported = 0;
    let count = 50_000;
    for event in events(&Settings { events_per_second: 20.0, ..Settings::default() }, count) {
        let first_ms = *started_ms.entry(event.session_id).or_insert(event.timestamp);
        if let Some(seconds) = event.session_duration {
            reported += 1;
            assert_eq!(i64::from(seconds), (event.timestamp - first_ms) / 1_000);
        }
    }
    let share = f64::from(reported) / count as f64;
    assert!((share - 0.5).abs() < 0.02, "{share}");
}

#[test]
fn small_settings_work_too() {
    let check = |users, pages, products, active_share, expected_users: usize| {
        let settings =
            Settings { users, pages, products, active_share, events_per_second: 20.0, ..Settings::default() };
        let (mut user_ids, mut page_urls) = (HashSet::new(), HashSet::new());
        for event in events(&settings, 200_000) {
            user_ids.insert(event.user_id);
            page_urls.insert(event.page_url);
        }
        assert_eq!((user_ids.len(), page_urls.len()), (expected_users, pages as usize));
    };
    check(1, 1, 1, 1.0, 1);
    check(2, 3, 1, 0.5, 2);
    check(10, 1, 5, 1.0, 10);
}
