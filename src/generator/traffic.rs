//! What is sent and when: the schedule's events as the model makes them, and what becomes of them on their way.
//!
//! ```text
//!  schedule ─▶ model ─▶ faults ──now──────────────────────▶ next
//!                         └──later, again──▶ on the way ──────┘
//! ```
//!
//! Without faults an event is sent when it happens, and nothing is copied.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::faults::{Fate, Faults};
use super::form::Form;
use super::injected::Marks;
use super::model::{Model, overwrite, overwrite_option};
use super::schedule::Schedule;
use super::settings::{Settings, SettingsError};
use crate::event::ClickEvent;

/// A record to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// When it is due, µs after the start of the run.
    pub due_us: u64,
    /// The event.
    pub event: ClickEvent,
    /// In what form it reaches the log.
    pub form: Form,
    /// What is unusual about it.
    pub marks: Marks,
}

/// The records of a run, in the order in which they are due.
///
/// A function of the settings, the start and the number of partitions. Keeps what is on its way, some 500 bytes each.
pub struct Traffic {
    schedule: Schedule,
    model: Model,
    start_ms: i64,
    /// When the next event happens, if that is known already.
    happens_us: Option<u64>,
    current: Outgoing,
    faults: Option<Faults>,
    on_the_way: OnTheWay,
    silenced: u64,
}

impl Traffic {
    /// The traffic of a run that starts at `start_ms`, ms since the epoch, and is spread over `partitions`.
    ///
    /// # Errors
    ///
    /// Where the settings are not valid.
    pub fn new(settings: &Settings, start_ms: i64, partitions: u32) -> Result<Self, SettingsError> {
        Ok(Traffic {
            model: Model::new(settings)?,
            schedule: Schedule::new(settings, start_ms),
            start_ms,
            happens_us: None,
            current: Outgoing::blank(),
            faults: Faults::new(settings, start_ms, partitions)?,
            on_the_way: OnTheWay::default(),
            silenced: 0,
        })
    }

    /// The next record, until the run is over. Costs what an event of the model costs, and with faults a few draws more.
    #[expect(clippy::should_implement_trait, reason = "it lends what it keeps, which an iterator cannot")]
    pub fn next(&mut self) -> Option<&Outgoing> {
        match self.faults {
            None => {
                self.current.due_us = self.schedule.next()?;
                let timestamp = self.timestamp(self.current.due_us);
                self.model.write_next(timestamp, &mut self.current.event);
            }
            Some(_) => self.advance()?,
        }
        Some(&self.current)
    }

    /// Records that were due before `offset_us`, and have not been asked for.
    pub fn unsent(&self, offset_us: u64) -> u64 {
        // The event that happens next has been taken from the schedule.
        let next = u64::from(self.happens_us.is_some_and(|happens_us| happens_us < offset_us));
        let to_happen = self.schedule.remaining_before(offset_us);
        next + to_happen + self.on_the_way.due_before(offset_us)
    }

    /// Records that have happened and were not due before `offset_us`.
    pub fn on_the_way(&self, offset_us: u64) -> u64 {
        self.on_the_way.queue.len() as u64 - self.on_the_way.due_before(offset_us)
    }

    /// Events that were left out so far, since their partition was silent.
    pub fn silenced(&self) -> u64 {
        self.silenced
    }

    /// The rate prescribed at `offset_us` µs after the start, events per second.
    pub fn rate_at(&self, offset_us: u64) -> f64 {
        self.schedule.rate_at(offset_us)
    }

    fn timestamp(&self, offset_us: u64) -> i64 {
        self.start_ms + (offset_us / 1_000) as i64
    }

    /// Puts the next record into `current`: one that is on its way and due, or what happens next, if it is sent at once.
    fn advance(&mut self) -> Option<()> {
        loop {
            if self.happens_us.is_none() {
                self.happens_us = self.schedule.next();
            }
            let until_us = self.happens_us.map_or(self.schedule.end_us(), |happens_us| happens_us + 1);
            if self.on_the_way.take_before(until_us, &mut self.current) {
                return Some(());
            }
            let now_us = self.happens_us.take()?;
            let timestamp = self.timestamp(now_us);
            let Fate { due_us, again_us } =
                self.faults.as_mut()?.write_next(&mut self.model, now_us, timestamp, &mut self.current);
            let Some(due_us) = due_us else {
                self.silenced += 1;
                continue;
            };
            self.current.due_us = due_us;
            if due_us > now_us {
                self.on_the_way.put(&self.current);
            }
            if let Some(again_us) = again_us {
                let first = self.current.marks;
                self.current.due_us = again_us;
                self.current.marks.duplicate = true;
                self.on_the_way.put(&self.current);
                (self.current.due_us, self.current.marks) = (due_us, first);
            }
            if due_us == now_us {
                return Some(());
            }
        }
    }
}

impl Outgoing {
    fn blank() -> Self {
        Outgoing { due_us: 0, event: Model::blank_event(), form: Form::Event, marks: Marks::default() }
    }

    /// The memory of the texts is used again.
    fn copy_from(&mut self, other: &Outgoing) {
        let (to, from) = (&mut self.event, &other.event);
        overwrite(&mut to.user_id, &from.user_id);
        overwrite(&mut to.session_id, &from.session_id);
        overwrite(&mut to.page_url, &from.page_url);
        overwrite(&mut to.user_agent, &from.user_agent);
        overwrite(&mut to.ip_address, &from.ip_address);
        overwrite_option(&mut to.product_id, from.product_id.as_deref());
        overwrite_option(&mut to.referrer, from.referrer.as_deref());
        (to.event_type, to.timestamp, to.session_duration) = (from.event_type, from.timestamp, from.session_duration);
        (self.due_us, self.form, self.marks) = (other.due_us, other.form, other.marks);
    }
}

/// Records that have happened and are not due yet.
#[derive(Default)]
struct OnTheWay {
    /// When each is due, its number in the order of putting, so that batches stay in order, and its place.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    places: Vec<Outgoing>,
    free: Vec<usize>,
    put: u64,
}

impl OnTheWay {
    fn put(&mut self, outgoing: &Outgoing) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Outgoing::blank());
            self.places.len() - 1
        });
        self.places[place].copy_from(outgoing);
        self.queue.push(Reverse((outgoing.due_us, self.put, place)));
        self.put += 1;
    }

    /// Takes the first one out, if it is due before `offset_us`.
    fn take_before(&mut self, offset_us: u64, into: &mut Outgoing) -> bool {
        let Some(Reverse((_, _, place))) = self.queue.peek().copied().filter(|Reverse((due, ..))| *due < offset_us)
        else {
            return false;
        };
        self.queue.pop();
        std::mem::swap(&mut self.places[place], into);
        self.free.push(place);
        true
    }

    fn due_before(&self, offset_us: u64) -> u64 {
        self.queue.iter().filter(|Reverse((due_us, ..))| *due_us < offset_us).count() as u64
    }
}

#[cfg(test)]
mod tests;
