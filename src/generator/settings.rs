//! What the generator can be told: the section `[generator]` of the configuration.

mod realism;
mod schema_change;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use realism::{
    Bots, ClockSkew, DelayDistribution, Delays, Duplicates, FlashCrowd, Invalid, Malformed, Mobile, Silence,
};
pub use schema_change::SchemaChange;

use super::scenario::Scenario;
use crate::event::ClickEvent;
use crate::millis::{Millis, or_off};

/// The settings of the generator.
///
/// Read once, checked once with [`Settings::validate`], then trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which preset was asked for. What it sets is in the other keys once the configuration has been loaded; by itself it
    /// does nothing.
    pub scenario: Scenario,
    /// Seed of all randomness. The same seed, settings and start give the same events.
    pub seed: u64,
    /// Number of users in the pool.
    pub users: u32,
    /// Number of pages of the site.
    pub pages: u32,
    /// Number of products of the shop.
    pub products: u32,
    /// Mean rate outside bursts, events per second.
    pub events_per_second: f64,
    /// How long to run; off: until stopped.
    #[serde(with = "or_off")]
    pub duration: Option<Millis>,
    /// What a record's key is.
    pub key: EventKey,
    /// Exponent of the Zipf popularity of pages: the page of rank k is visited in proportion to `k^-exponent`. 0 is uniform.
    pub zipf_exponent: f64,
    /// Shares of the event types in the long run.
    pub mix: Mix,
    /// Share of the views' share that are searches, in [0, 0.9].
    pub search_share: f64,
    /// Share of users that are in a session at any time, in (0, 1]. The rate is prescribed, so fewer sessions are busier ones.
    pub active_share: f64,
    /// Shortest session, event time.
    pub session_length_min: Millis,
    /// Longest session, event time.
    pub session_length_max: Millis,
    /// Share of events that report how long their session has lasted so far, in [0, 1].
    pub session_duration_share: f64,
    /// How the rate varies over the day.
    pub daily_curve: DailyCurve,
    /// A burst on top of it all.
    pub burst: Burst,
    /// A change of the schema in mid-run.
    pub schema_change: SchemaChange,
    /// Events that are sent later than they happened.
    pub delays: Delays,
    /// Clients that send the events of a session together, minutes later.
    pub mobile: Mobile,
    /// Records that are sent twice.
    pub duplicates: Duplicates,
    /// Records whose bytes are no event.
    pub malformed: Malformed,
    /// Events that break a rule.
    pub invalid: Invalid,
    /// Users whose clocks are wrong.
    pub clock_skew: ClockSkew,
    /// A few users with very many events.
    pub bots: Bots,
    /// A hot page, which moves.
    pub flash_crowd: FlashCrowd,
    /// Partitions that get nothing for a while.
    pub silence: Silence,
    /// Choose user ids so that this many partitions, keyed by user, get equal shares of users and of traffic;
    /// or off.
    #[serde(with = "or_off")]
    pub balanced_partitions: Option<u32>,
    /// Where the generator serves its health and metrics, or off.
    #[serde(with = "or_off")]
    pub http_listen: Option<SocketAddr>,
}

/// What a record's key is, and so what decides its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKey {
    /// All events of a user are in one partition.
    #[default]
    UserId,
    /// All events of a page are in one partition.
    PageUrl,
}

/// Shares of the event types in the long run. They add up to 1.
///
/// Each step of the funnel follows from the one before, so `views >= clicks >= add_to_cart >= purchases`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    /// Share of views and searches together, in (0, 1].
    pub views: f64,
    /// Share of clicks, in [0, 1].
    pub clicks: f64,
    /// Share of additions to the cart, in [0, 1].
    pub add_to_cart: f64,
    /// Share of purchases, in [0, 1].
    pub purchases: f64,
}

/// A sinusoidal daily curve: most traffic at the peak hour, least twelve hours away, and the mean over a day unchanged.
///
/// Off by default, so that a rate that was asked for is the rate that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DailyCurve {
    /// Whether the rate follows the curve.
    pub enabled: bool,
    /// Hour of the day, UTC, with the most traffic, in [0, 24).
    pub peak_hour: f64,
    /// By what share of the mean the peak is above it and the trough below it, in [0, 1].
    pub amplitude: f64,
}

/// A burst: for a while, another rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Burst {
    /// Whether there is a burst.
    pub enabled: bool,
    /// The rate in the burst, in place of the rate outside it, events per second.
    pub events_per_second: f64,
    /// How long a burst lasts.
    pub duration: Millis,
    /// When the first burst starts, after the start of the run.
    pub start: Millis,
    /// From the start of one burst to the start of the next; off: there is one burst.
    #[serde(with = "or_off")]
    pub repeat: Option<Millis>,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("generator.{key} = {value}: must be {expected}")]
pub struct SettingsError {
    /// The key in the section of the generator.
    pub key: &'static str,
    /// The value it has.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl EventKey {
    /// The key of an event.
    pub fn of<'a>(&self, event: &'a ClickEvent) -> &'a str {
        match self {
            EventKey::UserId => &event.user_id,
            EventKey::PageUrl => &event.page_url,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            scenario: Scenario::Normal,
            seed: 1,
            users: 1_000,
            pages: 100,
            products: 500,
            events_per_second: 1_000.0,
            duration: None,
            key: EventKey::UserId,
            zipf_exponent: 1.0,
            mix: Mix::default(),
            search_share: 0.1,
            active_share: 0.25,
            session_length_min: Millis(15 * 60_000),
            session_length_max: Millis(45 * 60_000),
            session_duration_share: 0.5,
            daily_curve: DailyCurve::default(),
            burst: Burst::default(),
            schema_change: SchemaChange::default(),
            delays: Delays::default(),
            mobile: Mobile::default(),
            duplicates: Duplicates::default(),
            malformed: Malformed::default(),
            invalid: Invalid::default(),
            clock_skew: ClockSkew::default(),
            bots: Bots::default(),
            flash_crowd: FlashCrowd::default(),
            silence: Silence::default(),
            balanced_partitions: None,
            http_listen: None,
        }
    }
}

impl Default for Mix {
    fn default() -> Self {
        Mix { views: 0.70, clicks: 0.20, add_to_cart: 0.07, purchases: 0.03 }
    }
}

impl Default for DailyCurve {
    fn default() -> Self {
        DailyCurve { enabled: false, peak_hour: 20.0, amplitude: 0.6 }
    }
}

impl Default for Burst {
    fn default() -> Self {
        Burst {
            enabled: false,
            events_per_second: 5_000.0,
            duration: Millis(300_000),
            start: Millis(60_000),
            repeat: None,
        }
    }
}

/// Sessions get at least this many events in the mean, or there are fewer of them at a time.
const SESSION_EVENTS_MIN: f64 = 20.0;
/// With fewer users to a partition, counts that differ by one would differ by more than 10 %.
const USERS_PER_PARTITION_MIN: u32 = 10;
const RATE_MIN: f64 = 0.001;
const RATE_MAX: f64 = 10_000_000.0;
/// Offsets from the start are kept in microseconds; a century leaves room in every sum.
const OFFSET_MAX: Millis = Millis(100 * 366 * 86_400_000);
const SESSION_LENGTH_MIN: Millis = Millis(6_000);
const SESSION_LENGTH_MAX: Millis = Millis(7 * 86_400_000);

impl Settings {
    /// Checks every value, and the values that depend on one another.
    ///
    /// # Errors
    ///
    /// The first key whose value cannot be used, with what would be right.
    pub fn validate(&self) -> Result<(), SettingsError> {
        count("users", self.users, 10_000_000)?;
        count("pages", self.pages, 1_000_000)?;
        count("products", self.products, 10_000_000)?;
        between("events_per_second", self.events_per_second, RATE_MIN, RATE_MAX)?;
        if let Some(duration) = self.duration {
            between_millis("duration", duration, Millis(1), OFFSET_MAX)?;
        }
        between("zipf_exponent", self.zipf_exponent, 0.0, 5.0)?;
        self.mix.validate()?;
        between("search_share", self.search_share, 0.0, 0.9)?;
        between("active_share", self.active_share, 0.0001, 1.0)?;
        between_millis("session_length_min", self.session_length_min, SESSION_LENGTH_MIN, SESSION_LENGTH_MAX)?;
        between_millis("session_length_max", self.session_length_max, self.session_length_min, SESSION_LENGTH_MAX)?;
        between("session_duration_share", self.session_duration_share, 0.0, 1.0)?;
        self.daily_curve.validate()?;
        self.burst.validate()?;
        self.schema_change.validate()?;
        self.delays.validate()?;
        self.mobile.validate()?;
        self.duplicates.validate()?;
        self.malformed.validate()?;
        self.invalid.validate()?;
        self.clock_skew.validate()?;
        self.bots.validate()?;
        self.flash_crowd.validate()?;
        self.silence.validate()?;
        self.validate_balance()
    }

    /// How many sessions go on at a time: a share of the users, but few enough at a low rate for a session to see some events,
    /// and with a balanced pool as many for each partition.
    pub fn sessions(&self) -> u32 {
        let mean_session_s = (self.session_length_min.0 + self.session_length_max.0) as f64 / 2_000.0;
        let busy_enough = self.events_per_second * mean_session_s / SESSION_EVENTS_MIN;
        let wanted = (f64::from(self.users) * self.active_share).min(busy_enough) as u32;
        let partitions = self.strata();
        let each = wanted.div_ceil(partitions).clamp(1, (self.users / partitions).max(1));
        each * partitions
    }

    /// Into how many equal parts users and sessions are divided: one per partition to balance.
    pub(super) fn strata(&self) -> u32 {
        self.balanced_partitions.unwrap_or(1).max(1)
    }

    fn validate_balance(&self) -> Result<(), SettingsError> {
        let Some(partitions) = self.balanced_partitions else { return Ok(()) };
        let most = self.users / USERS_PER_PARTITION_MIN;
        if partitions == 0 || partitions > most {
            let expected = format!("between 1 and {most}, a tenth of the users");
            return refuse("balanced_partitions", partitions, expected);
        }
        if self.key != EventKey::UserId {
            let expected = "absent unless key = \"user_id\": users cannot balance partitions that are keyed by page";
            return refuse("balanced_partitions", partitions, expected);
        }
        Ok(())
    }
}

impl Mix {
    fn validate(&self) -> Result<(), SettingsError> {
        between("mix.views", self.views, f64::MIN_POSITIVE, 1.0)?;
        between("mix.clicks", self.clicks, 0.0, self.views)?;
        between("mix.add_to_cart", self.add_to_cart, 0.0, self.clicks)?;
        between("mix.purchases", self.purchases, 0.0, self.add_to_cart)?;
        let sum = self.views + self.clicks + self.add_to_cart + self.purchases;
        if (sum - 1.0).abs() > 1e-6 {
            let value = format!("{} + {} + {} + {}", self.views, self.clicks, self.add_to_cart, self.purchases);
            return refuse("mix", value, "shares that add up to 1");
        }
        Ok(())
    }
}

impl DailyCurve {
    fn validate(&self) -> Result<(), SettingsError> {
        if !(0.0..24.0).contains(&self.peak_hour) {
            return refuse("daily_curve.peak_hour", self.peak_hour, "at least 0 and below 24");
        }
        between("daily_curve.amplitude", self.amplitude, 0.0, 1.0)
    }
}

impl Burst {
    fn validate(&self) -> Result<(), SettingsError> {
        between("burst.events_per_second", self.events_per_second, RATE_MIN, RATE_MAX)?;
        between_millis("burst.duration", self.duration, Millis(1), OFFSET_MAX)?;
        between_millis("burst.start", self.start, Millis(0), OFFSET_MAX)?;
        realism::repeats("burst.repeat", self.repeat, self.duration)
    }
}

fn count(key: &'static str, value: u32, max: u32) -> Result<(), SettingsError> {
    if (1..=max).contains(&value) { Ok(()) } else { refuse(key, value, format!("between 1 and {max}")) }
}

fn between(key: &'static str, value: f64, min: f64, max: f64) -> Result<(), SettingsError> {
    // NaN is in no range, so it is refused too.
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let expected =
        if min == f64::MIN_POSITIVE { format!("above 0, at most {max}") } else { format!("between {min} and {max}") };
    refuse(key, value, expected)
}

fn between_millis(key: &'static str, value: Millis, min: Millis, max: Millis) -> Result<(), SettingsError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let max = if max == OFFSET_MAX { "a century".to_owned() } else { max.to_string() };
    refuse(key, value, format!("between {min} and {max}"))
}

fn refuse<T>(key: &'static str, value: impl ToString, expected: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { key, value: value.to_string(), expected: expected.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Settings), expected: &str) {
        let mut settings = Settings::default();
        change(&mut settings);
        let message = settings.validate().map_or_else(|error| error.to_string(), |()| "valid".to_owned());
        assert_eq!(message, expected);
    }

    #[test]
    fn says_which_value_is_wrong_and_what_is_right() {
        check(|_| (), "valid");
        check(|s| s.users = 0, "generator.users = 0: must be between 1 and 10000000");
        check(|s| s.events_per_second = 0.0, "generator.events_per_second = 0: must be between 0.001 and 10000000");
        check(
            |s| s.events_per_second = f64::NAN,
            "generator.events_per_second = NaN: must be between 0.001 and 10000000",
        );
        check(|s| s.duration = Some(Millis(0)), "generator.duration = 0s: must be between 1ms and a century");
        check(|s| s.zipf_exponent = -1.0, "generator.zipf_exponent = -1: must be between 0 and 5");
        check(|s| s.mix.views = 0.8, "generator.mix = 0.8 + 0.2 + 0.07 + 0.03: must be shares that add up to 1");
        check(|s| s.mix.purchases = 0.1, "generator.mix.purchases = 0.1: must be between 0 and 0.07");
        check(
            |s| s.session_length_max = Millis(600_000),
            "generator.session_length_max = 10m: must be between 15m and 7days",
        );
        check(
            |s| s.daily_curve.peak_hour = 24.0,
            "generator.daily_curve.peak_hour = 24: must be at least 0 and below 24",
        );
        check(|s| s.burst.repeat = Some(Millis(1)), "generator.burst.repeat = 1ms: must be between 5m and a century");
        check(|s| s.delays.share = 1.5, "generator.delays.share = 1.5: must be between 0 and 1");
        check(|s| s.delays.max = Millis(1), "generator.delays.max = 1ms: must be between 2s and 7days");
        check(|s| s.delays.shape = f64::NAN, "generator.delays.shape = NaN: must be between 0.1 and 10");
        check(|s| s.mobile.upload_max = Millis(1), "generator.mobile.upload_max = 1ms: must be between 1m and 7days");
        check(|s| s.duplicates.share = -0.1, "generator.duplicates.share = -0.1: must be between 0 and 1");
        check(
            |s| (s.malformed.garbage, s.malformed.empty) = (0.6, 0.6),
            "generator.malformed = 0.001 + 0.6 + 0.6 + 0.001: must be shares that add up to 1 at most",
        );
        check(|s| s.invalid.share = 2.0, "generator.invalid.share = 2: must be between 0 and 1");
        check(|s| s.clock_skew.max = Millis(-1), "generator.clock_skew.max = -1ms: must be between 0s and 7days");
        check(|s| s.bots.count = 0, "generator.bots.count = 0: must be between 1 and 10000");
        check(|s| s.bots.share = 1.0, "generator.bots.share = 1: must be between 0 and 0.99");
        check(
            |s| s.flash_crowd.repeat = Some(Millis(1)),
            "generator.flash_crowd.repeat = 1ms: must be between 2m and a century",
        );
        check(|s| s.silence.duration = Millis(0), "generator.silence.duration = 0s: must be between 1ms and a century");
        check(|s| s.balanced_partitions = Some(6), "valid");
        check(
            |s| s.balanced_partitions = Some(101),
            "generator.balanced_partitions = 101: must be between 1 and 100, a tenth of the users",
        );
        check(
            |s| (s.key, s.balanced_partitions) = (EventKey::PageUrl, Some(6)),
            "generator.balanced_partitions = 6: must be absent unless key = \"user_id\": users cannot balance partitions that are keyed by page",
        );
    }

    #[test]
    fn reads_what_is_given_and_refuses_what_it_does_not_know() {
        let read = |json: &str| serde_json::from_str::<Settings>(json);
        let settings = read(r#"{"users": 7, "key": "page_url", "burst": {"enabled": true}}"#).unwrap();
        assert_eq!((settings.users, settings.pages, settings.key), (7, 100, EventKey::PageUrl));
        assert_eq!(settings.burst, Burst { enabled: true, ..Burst::default() });
        assert!(read(r#"{"user": 7}"#).unwrap_err().to_string().contains("unknown field `user`"));
        assert!(read(r#"{"mix": {"view": 0.7}}"#).is_err());
    }

    #[test]
    fn sessions_follow_the_users_and_the_rate() {
        let check = |users, events_per_second, balanced_partitions, expected| {
            let settings = Settings { users, events_per_second, balanced_partitions, ..Settings::default() };
            assert_eq!(settings.sessions(), expected, "{users} users, {events_per_second} events/s");
        };
        check(1_000, 1_000.0, None, 250);
        check(1_000, 1_000.0, Some(6), 252);
        check(1_000, 0.1, None, 9);
        check(1, 0.001, None, 1);
        check(100_000, 100.0, None, 9_000);
        check(60, 1_000.0, Some(6), 18);
    }
}
