//! A complaint that is made again and again is told a few times, and then how often it was made.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt::{Debug, Write};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::metrics;

/// How often the same complaint is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepeatSettings {
    /// At most so many times…
    pub lines_max: u32,
    /// …in as long.
    pub interval: Duration,
}

/// Counts warnings and errors by the place in the code that they come from and their message, numbers left out.
pub(super) struct Repeats {
    settings: RepeatSettings,
    seen: Mutex<HashMap<u64, Seen>>,
}

/// What has been seen of one complaint since its interval began.
struct Seen {
    began: Instant,
    told: u32,
    suppressed: u64,
    target: &'static str,
    message: String,
}

/// So many different complaints are kept in mind at once; further ones are all told.
const SEEN_MAX: usize = 1_024;

impl Repeats {
    pub fn new(settings: RepeatSettings) -> Self {
        Repeats { settings, seen: Mutex::default() }
    }

    /// Whether a line is told. One that is not is counted.
    fn admit(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // What is asked for line by line is not repeated by accident; nor are the lines about others that were suppressed.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let Message(message) = message;
        let mut hasher = DefaultHasher::new();
        metadata.callsite().hash(&mut hasher);
        message.chars().filter(|c| !c.is_ascii_digit()).for_each(|c| c.hash(&mut hasher));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let room = seen.len() < SEEN_MAX;
        let seen = match seen.entry(hasher.finish()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if !room => return true,
            Entry::Vacant(entry) => {
                let (began, target) = (Instant::now(), metadata.target());
                entry.insert(Seen { began, told: 0, suppressed: 0, target, message })
            }
        };
        if seen.told < self.settings.lines_max {
            seen.told += 1;
            return true;
        }
        seen.suppressed += 1;
        ::metrics::counter!(metrics::LOG_LINES_SUPPRESSED).increment(1);
        false
    }

    /// Says what was suppressed in intervals that are over.
    pub fn sweep(&self) {
        self.sweep_at(Instant::now());
    }

    fn sweep_at(&self, now: Instant) {
        let interval = self.settings.interval;
        let mut over = Vec::new();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |seen: &Seen| now.saturating_duration_since(seen.began) >= interval;
        over.extend(seen.extract_if(|_, seen| is_over(seen)).map(|(_, seen)| seen));
        // Not while it is locked: the lines about it come here as well.
        drop(seen);
        for Seen { suppressed, target, message, .. } in over.into_iter().filter(|seen| seen.suppressed > 0) {
            let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(suppressed, interval_ms, of = target, "not repeated: {message}");
        }
    }
}

/// The message of an event alone.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // A String takes everything.
            write!(self.0, "{value:?}").ok();
        }
    }
}

/// Keeps events that are not told from all layers.
pub(super) struct Suppress(pub Arc<Repeats>);

impl<S: Subscriber> Layer<S> for Suppress {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admit(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    /// Keeps the messages of events, with the number that was suppressed.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    struct Number(Option<u64>);

    impl Visit for Number {
        fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "suppressed" {
                self.0 = Some(value);
            }
        }
    }

    impl<S: Subscriber> Layer<S> for Told {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let (mut message, mut number) = (Message(String::new()), Number(None));
            event.record(&mut message);
            event.record(&mut number);
            let number = number.0.map(|number| format!("{number} ")).unwrap_or_default();
            self.0.lock().unwrap().push(format!("{number}{}", message.0));
        }
    }

    #[test]
    fn a_complaint_is_repeated_a_few_times_and_then_counted() {
        let interval = Duration::from_secs(3_600);
        let repeats = Arc::new(Repeats::new(RepeatSettings { lines_max: 2, interval }));
        let told = Told::default();
        let subscriber = tracing_subscriber::registry().with(Suppress(Arc::clone(&repeats))).with(told.clone());
        let recorder = crate::metrics::recorder().unwrap();
        ::metrics::with_local_recorder(&recorder, || {
            tracing::subscriber::with_default(subscriber, || {
                for attempt in 0..5 {
                    tracing::warn!(attempt, "no answer after {attempt} ms");
                    tracing::info!("not a complaint");
                }
                for broker in ["a", "b"] {
                    tracing::error!("{broker} is down");
                }
                let told = || std::mem::take(&mut *told.0.lock().unwrap());
                let mut expected = vec!["no answer after 0 ms", "no answer after 1 ms", "a is down", "b is down"];
                expected.extend(["not a complaint"; 5]);
                let mut found = told();
                found.sort_unstable();
                expected.sort_unstable();
                assert_eq!(found, expected);

                repeats.sweep_at(Instant::now());
                assert!(told().is_empty());
                repeats.sweep_at(Instant::now() + interval);
                assert_eq!(told(), ["3 not repeated: no answer after 0 ms"]);
                repeats.sweep_at(Instant::now() + interval * 2);
                assert!(told().is_empty());
                assert!(repeats.seen.lock().unwrap().is_empty());
            });
        });
        let text = recorder.handle().render();
        assert!(text.contains("clicktide_log_lines_suppressed_total 3"), "{text}");
    }
}
