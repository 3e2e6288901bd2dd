//! What real traffic has beside its volume, each with a section of its own: none of it by default.

use serde::{Deserialize, Serialize};

use super::{OFFSET_MAX, SettingsError, between, between_millis, count, refuse};
use crate::millis::{Millis, or_off};

/// Events that take their time: they are sent later than they happened, most of them a little and a few very much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delays {
    /// Whether there are any.
    pub enabled: bool,
    /// Share of events that are delayed, in [0, 1].
    pub share: f64,
    /// How the delays are distributed.
    pub distribution: DelayDistribution,
    /// Half of the delays are longer.
    pub median: Millis,
    /// Pareto: the tail's exponent, smaller is heavier. Lognormal: sigma, greater is heavier.
    pub shape: f64,
    /// Longer delays are cut to this.
    pub max: Millis,
}

/// How delays are distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DelayDistribution {
    /// The share of those longer than t falls as `t^-shape`.
    #[default]
    Pareto,
    /// The logarithm is normal with the standard deviation `shape`.
    Lognormal,
}

/// Clients that collect the events of a session and send them together, minutes later.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mobile {
    /// Whether there are any.
    pub enabled: bool,
    /// Share of users with such a client, in [0, 1].
    pub share: f64,
    /// How long the first event of a batch waits at least.
    pub upload_min: Millis,
    /// How long it waits at most.
    pub upload_max: Millis,
}

/// Records that are sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Duplicates {
    /// Whether there are any.
    pub enabled: bool,
    /// Share of events that are sent twice, in [0, 1].
    pub share: f64,
    /// Share of the copies that come later, in [0, 1]; the others follow at once.
    pub delayed_share: f64,
    /// How much later those come at most; all times up to it are alike.
    pub delay_max: Millis,
}

/// Records whose bytes are no event, in place of events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Malformed {
    /// Whether there are any.
    pub enabled: bool,
    /// Share of events that are cut off, in [0, 1].
    pub truncated: f64,
    /// Share of events that are replaced by arbitrary bytes, in [0, 1].
    pub garbage: f64,
    /// Share of events that are replaced by nothing, in [0, 1].
    pub empty: f64,
    /// Share of events that are replaced by a record of another schema, in [0, 1].
    pub other_schema: f64,
}

/// Events that can be decoded and break a rule: every rule that validation has, equally often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Invalid {
    /// Whether there are any.
    pub enabled: bool,
    /// Share of events, in [0, 1].
    pub share: f64,
}

/// Users whose clocks are wrong, each by an amount of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockSkew {
    /// Whether there are any.
    pub enabled: bool,
    /// Share of users, in [0, 1].
    pub share: f64,
    /// How far a clock is ahead or behind at most; all amounts up to it are alike.
    pub max: Millis,
}

/// A few users with very many events, each in one session without end, who view and do nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bots {
    /// Whether there are any.
    pub enabled: bool,
    /// How many.
    pub count: u32,
    /// Share of events that are theirs, in [0, 0.99].
    pub share: f64,
}

/// A hot page: for a while many of the views go to one page, the next time to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlashCrowd {
    /// Whether there is one.
    pub enabled: bool,
    /// Share of the views that go to the hot page, in [0, 1]; the others may find it too.
    pub share: f64,
    /// When the first page becomes hot, after the start of the run.
    pub start: Millis,
    /// How long a page is hot.
    pub duration: Millis,
    /// From one hot page to the next; off: there is one.
    #[serde(with = "or_off")]
    pub repeat: Option<Millis>,
}

/// Partitions that get nothing for a while, one at a time: what would go there is left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Silence {
    /// Whether there are any.
    pub enabled: bool,
    /// When the first partition falls silent, after the start of the run.
    pub start: Millis,
    /// How long a partition is silent.
    pub duration: Millis,
    /// From one silence to the next, in another partition; off: there is one.
    #[serde(with = "or_off")]
    pub repeat: Option<Millis>,
}

impl Default for Delays {
    fn default() -> Self {
        Delays {
            enabled: false,
            share: 0.1,
            distribution: DelayDistribution::Pareto,
            median: Millis(2_000),
            shape: 1.2,
            max: Millis(10 * 60_000),
        }
    }
}

impl Default for Mobile {
    fn default() -> Self {
        Mobile { enabled: false, share: 0.1, upload_min: Millis(60_000), upload_max: Millis(10 * 60_000) }
    }
}

impl Default for Duplicates {
    fn default() -> Self {
        Duplicates { enabled: false, share: 0.01, delayed_share: 0.5, delay_max: Millis(60_000) }
    }
}

impl Default for Malformed {
    fn default() -> Self {
        Malformed { enabled: false, truncated: 0.001, garbage: 0.001, empty: 0.001, other_schema: 0.001 }
    }
}

impl Default for Invalid {
    fn default() -> Self {
        Invalid { enabled: false, share: 0.005 }
    }
}

impl Default for ClockSkew {
    fn default() -> Self {
        ClockSkew { enabled: false, share: 0.05, max: Millis(2 * 60_000) }
    }
}

impl Default for Bots {
    fn default() -> Self {
        Bots { enabled: false, count: 5, share: 0.3 }
    }
}

impl Default for FlashCrowd {
    fn default() -> Self {
        FlashCrowd {
            enabled: false,
            share: 0.5,
            start: Millis(60_000),
            duration: Millis(2 * 60_000),
            repeat: Some(Millis(4 * 60_000)),
        }
    }
}

impl Default for Silence {
    fn default() -> Self {
        Silence { enabled: false, start: Millis(60_000), duration: Millis(60_000), repeat: Some(Millis(3 * 60_000)) }
    }
}

/// No delay is longer: what is on its way is kept in memory.
const DELAY_MAX: Millis = Millis(7 * 86_400_000);

type Verdict = Result<(), SettingsError>;

impl Delays {
    pub(super) fn validate(&self) -> Verdict {
        between("delays.share", self.share, 0.0, 1.0)?;
        between_millis("delays.median", self.median, Millis(1), DELAY_MAX)?;
        between("delays.shape", self.shape, 0.1, 10.0)?;
        between_millis("delays.max", self.max, self.median, DELAY_MAX)
    }
}

impl Mobile {
    pub(super) fn validate(&self) -> Verdict {
        between("mobile.share", self.share, 0.0, 1.0)?;
        between_millis("mobile.upload_min", self.upload_min, Millis(0), DELAY_MAX)?;
        between_millis("mobile.upload_max", self.upload_max, self.upload_min, DELAY_MAX)
    }
}

impl Duplicates {
    pub(super) fn validate(&self) -> Verdict {
        between("duplicates.share", self.share, 0.0, 1.0)?;
        between("duplicates.delayed_share", self.delayed_share, 0.0, 1.0)?;
        between_millis("duplicates.delay_max", self.delay_max, Millis(0), DELAY_MAX)
    }
}

impl Malformed {
    pub(super) fn validate(&self) -> Verdict {
        between("malformed.truncated", self.truncated, 0.0, 1.0)?;
        between("malformed.garbage", self.garbage, 0.0, 1.0)?;
        between("malformed.empty", self.empty, 0.0, 1.0)?;
        between("malformed.other_schema", self.other_schema, 0.0, 1.0)?;
        if self.share() > 1.0 {
            let Malformed { truncated, garbage, empty, other_schema, .. } = self;
            let value = format!("{truncated} + {garbage} + {empty} + {other_schema}");
            return refuse("malformed", value, "shares that add up to 1 at most");
        }
        Ok(())
    }

    /// Share of events that are malformed in any way.
    pub fn share(&self) -> f64 {
        self.truncated + self.garbage + self.empty + self.other_schema
    }
}

impl Invalid {
    pub(super) fn validate(&self) -> Verdict {
        between("invalid.share", self.share, 0.0, 1.0)
    }
}

impl ClockSkew {
    pub(super) fn validate(&self) -> Verdict {
        between("clock_skew.share", self.share, 0.0, 1.0)?;
        between_millis("clock_skew.max", self.max, Millis(0), DELAY_MAX)
    }
}

impl Bots {
    pub(super) fn validate(&self) -> Verdict {
        count("bots.count", self.count, 10_000)?;
        between("bots.share", self.share, 0.0, 0.99)
    }
}

impl FlashCrowd {
    pub(super) fn validate(&self) -> Verdict {
        between("flash_crowd.share", self.share, 0.0, 1.0)?;
        between_millis("flash_crowd.start", self.start, Millis(0), OFFSET_MAX)?;
        between_millis("flash_crowd.duration", self.duration, Millis(1), OFFSET_MAX)?;
        repeats("flash_crowd.repeat", self.repeat, self.duration)
    }
}

impl Silence {
    pub(super) fn validate(&self) -> Verdict {
        between_millis("silence.start", self.start, Millis(0), OFFSET_MAX)?;
        between_millis("silence.duration", self.duration, Millis(1), OFFSET_MAX)?;
        repeats("silence.repeat", self.repeat, self.duration)
    }
}

/// A spell ends before the next one begins.
pub(super) fn repeats(key: &'static str, repeat: Option<Millis>, duration: Millis) -> Verdict {
    repeat.map_or(Ok(()), |repeat| between_millis(key, repeat, duration, OFFSET_MAX))
}
