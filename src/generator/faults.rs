//! What becomes of an event between its user and the log.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Pareto};

use super::bots::Bots;
use super::form::Form;
use super::injected::Marks;
use super::model::Model;
use super::murmur2;
use super::settings::{DelayDistribution, Delays, Duplicates, EventKey, Malformed, Mobile, Settings, SettingsError};
use super::spells::Spells;
use super::traffic::Outgoing;
use crate::event::ClickEvent;
use crate::validation::{Limits, Reason};

/// Everything that [`Settings`] can add to clean traffic, but for its rate.
///
/// Its randomness is its own: the users do the same with it as without. Keeps a few bytes per user.
pub(super) struct Faults {
    rng: ChaCha8Rng,
    key: EventKey,
    partitions: u32,
    bots: Option<(f64, Bots)>,
    flash_crowd: Option<FlashCrowd>,
    silence: Option<Changing<u32>>,
    /// By user: how far the clock is ahead, ms; empty where all are right.
    skew_ms: Vec<i64>,
    mobile: Option<Uploads>,
    malformed: Option<Malformed>,
    invalid: Option<f64>,
    delays: Option<(f64, Delay)>,
    duplicates: Option<Duplicates>,
}

/// When a record is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// µs after the start of the run; none: never.
    pub due_us: Option<u64>,
    /// When it is sent again, if it is.
    pub again_us: Option<u64>,
}

/// Something that is chosen anew with each spell.
struct Changing<T> {
    spells: Spells,
    /// Chosen for the spell that is on, or was last.
    latest: Option<T>,
    on: bool,
    until_us: u64,
}

struct FlashCrowd {
    share: f64,
    page: Changing<u32>,
}

/// What mobile clients keep.
struct Uploads {
    settings: Mobile,
    /// By user: when the next upload is, µs after the start; none: the user has no such client.
    upload_us: Vec<Option<u64>>,
}

/// A distribution of delays.
struct Delay {
    distribution: DelayForm,
    max_us: u64,
}

enum DelayForm {
    Pareto(Pareto<f64>),
    Lognormal(LogNormal<f64>),
}

/// The model has stream 0 of the same seed.
const STREAM: u64 = 1;
/// Further ahead than any bound on the future is useful for.
const FUTURE_MS: i64 = 366 * 86_400_000;

impl Faults {
    /// What the settings add to the traffic of a run that starts at `start_ms` and is spread over `partitions`; none if they add
    /// nothing.
    pub fn new(settings: &Settings, start_ms: i64, partitions: u32) -> Result<Option<Self>, SettingsError> {
        let Settings { delays, mobile, duplicates, malformed, invalid, .. } = settings;
        let Settings { clock_skew, bots, flash_crowd, silence, .. } = settings;
        let any = delays.enabled || mobile.enabled || duplicates.enabled || malformed.enabled || invalid.enabled;
        let any = any || clock_skew.enabled || bots.enabled || flash_crowd.enabled || silence.enabled;
        if !any {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        rng.set_stream(STREAM);
        let users = settings.users as usize;
        let max_ms = clock_skew.max.0;
        let skew_ms = |rng: &mut ChaCha8Rng| match rng.random_bool(clock_skew.share) {
            true => rng.random_range(-max_ms..=max_ms),
            false => 0,
        };
        Ok(Some(Faults {
            key: settings.key,
            partitions,
            bots: bots.enabled.then(|| (bots.share, Bots::new(bots, start_ms))),
            flash_crowd: flash_crowd.enabled.then(|| FlashCrowd {
                share: flash_crowd.share,
                page: Changing::new(Spells::new(flash_crowd.start, flash_crowd.duration, flash_crowd.repeat)),
            }),
            silence: silence
                .enabled
                .then(|| Changing::new(Spells::new(silence.start, silence.duration, silence.repeat))),
            skew_ms: if clock_skew.enabled { (0..users).map(|_| skew_ms(&mut rng)).collect() } else { Vec::new() },
            mobile: mobile.enabled.then(|| Uploads::new(*mobile, users, &mut rng)),
            malformed: malformed.enabled.then_some(*malformed),
            invalid: invalid.enabled.then_some(invalid.share),
            delays: if delays.enabled { Some((delays.share, Delay::new(delays)?)) } else { None },
            duplicates: duplicates.enabled.then_some(*duplicates),
            rng,
        }))
    }

    /// Writes an event that happens `now_us` after the start of the run, at `timestamp`, over `outgoing`, and says when it is sent.
    pub fn write_next(&mut self, model: &mut Model, now_us: u64, timestamp: i64, outgoing: &mut Outgoing) -> Fate {
        outgoing.marks = Marks::default();
        let user = self.write_event(model, now_us, timestamp, outgoing);
        let never = Fate { due_us: None, again_us: None };
        if self.silenced(now_us, &outgoing.event) {
            return never;
        }
        if let (Some(user), false) = (user, self.skew_ms.is_empty()) {
            let skew_ms = self.skew_ms[user];
            outgoing.event.timestamp += skew_ms;
            outgoing.marks.skewed = skew_ms != 0;
        }
        outgoing.form = self.form();
        if self.invalid.is_some_and(|share| self.rng.random_bool(share)) {
            outgoing.marks.invalid = Some(self.invalidate(&mut outgoing.event));
        }
        let due_us = self.due_us(user, now_us, &mut outgoing.marks);
        let again_us = self.duplicates.filter(|duplicates| self.rng.random_bool(duplicates.share)).map(|duplicates| {
            let late = self.rng.random_bool(duplicates.delayed_share);
            due_us + if late { self.rng.random_range(0..=duplicates.delay_max.as_u64() * 1_000) } else { 0 }
        });
        Fate { due_us: Some(due_us), again_us }
    }

    /// The user's number, but for bots.
    fn write_event(
        &mut self,
        model: &mut Model,
        now_us: u64,
        timestamp: i64,
        outgoing: &mut Outgoing,
    ) -> Option<usize> {
        if let Some((share, bots)) = &mut self.bots
            && self.rng.random_bool(*share)
        {
            bots.write_next(&mut self.rng, model.pages(), timestamp, &mut outgoing.event);
            outgoing.marks.bot = true;
            return None;
        }
        if let Some(FlashCrowd { share, page }) = &mut self.flash_crowd {
            let pages = model.pages().len() as u32;
            let hot = page.at(now_us, |before| another(&mut self.rng, before, pages));
            model.set_hot_page(hot.map(|page| (page, *share)));
        }
        let visit = model.write_next(timestamp, &mut outgoing.event);
        outgoing.marks.hot = visit.hot;
        Some(visit.user as usize)
    }

    fn silenced(&mut self, now_us: u64, event: &ClickEvent) -> bool {
        let Some(silence) = &mut self.silence else { return false };
        let silent = silence.at(now_us, |before| another(&mut self.rng, before, self.partitions));
        silent == Some(murmur2::partition(self.key.of(event).as_bytes(), self.partitions))
    }

    fn form(&mut self) -> Form {
        let Some(malformed) = &self.malformed else { return Form::Event };
        let mut draw: f64 = self.rng.random();
        if draw >= malformed.share() {
            return Form::Event;
        }
        let seed = self.rng.next_u64();
        let forms = [
            (malformed.truncated, Form::Truncated { left: seed as u16 }),
            (malformed.garbage, Form::Garbage { seed }),
            (malformed.empty, Form::Empty),
        ];
        for (share, form) in forms {
            if draw < share {
                return form;
            }
            draw -= share;
        }
        Form::OtherSchema { seed }
    }

    /// Has an event break a rule, any of them with the same chance, by the limits that validation has by default.
    fn invalidate(&mut self, event: &mut ClickEvent) -> Reason {
        let Limits { id_bytes_max, page_url_bytes_max, .. } = Limits::default();
        let reasons = &Reason::all()[1..];
        let reason = reasons[self.rng.random_range(0..reasons.len() as u32) as usize];
        let lengthen = |text: &mut String, bytes_max: usize| {
            text.extend(std::iter::repeat_n('x', (bytes_max + 1).saturating_sub(text.len())));
        };
        match reason {
            // Not among those that are drawn: undecodable is a matter of bytes.
            Reason::Undecodable => {}
            Reason::EmptyUserId => event.user_id.clear(),
            Reason::TooLongUserId => lengthen(&mut event.user_id, id_bytes_max),
            Reason::EmptySessionId => event.session_id.clear(),
            Reason::TooLongSessionId => lengthen(&mut event.session_id, id_bytes_max),
            Reason::EmptyPageUrl => event.page_url.clear(),
            Reason::TooLongPageUrl => lengthen(&mut event.page_url, page_url_bytes_max),
            Reason::InvalidPageUrl => event.page_url.insert_str(0, "about "),
            Reason::InvalidTimestamp => event.timestamp = -event.timestamp.max(0),
            Reason::FutureTimestamp => event.timestamp += FUTURE_MS,
            Reason::InvalidSessionDuration => event.session_duration = Some(-1),
        }
        reason
    }

    fn due_us(&mut self, user: Option<usize>, now_us: u64, marks: &mut Marks) -> u64 {
        if let (Some(uploads), Some(user)) = (&mut self.mobile, user)
            && let Some(upload_us) = uploads.next(user, now_us, &mut self.rng)
        {
            marks.uploaded = true;
            return upload_us;
        }
        match &self.delays {
            Some((share, delay)) if self.rng.random_bool(*share) => {
                marks.delayed = true;
                now_us + delay.sample_us(&mut self.rng)
            }
            _ => now_us,
        }
    }
}

impl<T: Copy> Changing<T> {
    fn new(spells: Spells) -> Self {
        Changing { spells, latest: None, on: false, until_us: 0 }
    }

    /// What was chosen for the spell that is on at an offset, which must not go back; `choose` is told the choice before.
    fn at(&mut self, offset_us: u64, choose: impl FnOnce(Option<T>) -> T) -> Option<T> {
        if offset_us >= self.until_us {
            let spell = self.spells.at(offset_us);
            self.until_us = spell.until_us;
            self.on = spell.number.is_some();
            if self.on {
                self.latest = Some(choose(self.latest));
            }
        }
        self.latest.filter(|_| self.on)
    }
}

/// Any of `count`, but the one before if there is another.
fn another(rng: &mut ChaCha8Rng, before: Option<u32>, count: u32) -> u32 {
    match before {
        Some(before) if count > 1 => (before + rng.random_range(1..count)) % count,
        _ => rng.random_range(0..count.max(1)),
    }
}

impl Uploads {
    fn new(settings: Mobile, users: usize, rng: &mut ChaCha8Rng) -> Self {
        let upload_us = (0..users).map(|_| rng.random_bool(settings.share).then_some(0)).collect();
        Uploads { settings, upload_us }
    }

    /// When an event that happens now is uploaded: with the others that have been kept, or first of a new batch.
    fn next(&mut self, user: usize, now_us: u64, rng: &mut ChaCha8Rng) -> Option<u64> {
        let upload_us = self.upload_us[user].as_mut()?;
        if *upload_us <= now_us {
            let Mobile { upload_min, upload_max, .. } = self.settings;
            *upload_us = now_us + rng.random_range(upload_min.as_u64()..=upload_max.as_u64()) * 1_000;
        }
        Some(*upload_us)
    }
}

impl Delay {
    fn new(settings: &Delays) -> Result<Self, SettingsError> {
        let median_us = settings.median.as_u64() as f64 * 1_000.0;
        let refused = |error: &dyn std::fmt::Display| SettingsError {
            key: "delays.shape",
            value: settings.shape.to_string(),
            expected: format!("such that delays can be drawn with it ({error})"),
        };
        let distribution = match settings.distribution {
            DelayDistribution::Pareto => {
                let scale = median_us / 2.0_f64.powf(1.0 / settings.shape);
                DelayForm::Pareto(Pareto::new(scale, settings.shape).map_err(|e| refused(&e))?)
            }
            DelayDistribution::Lognormal => {
                DelayForm::Lognormal(LogNormal::new(median_us.ln(), settings.shape).map_err(|e| refused(&e))?)
            }
        };
        Ok(Delay { distribution, max_us: settings.max.as_u64() * 1_000 })
    }

    fn sample_us(&self, rng: &mut ChaCha8Rng) -> u64 {
        let delay_us = match &self.distribution {
            DelayForm::Pareto(pareto) => pareto.sample(rng),
            DelayForm::Lognormal(lognormal) => lognormal.sample(rng),
        };
        // Whatever is too large for the cast becomes the greatest there is.
        (delay_us as u64).min(self.max_us)
    }
}
