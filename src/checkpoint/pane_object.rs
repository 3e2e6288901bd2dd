//! Pane objects as they are stored.
//!
//! # Format, version 1
//!
//! All numbers are little-endian; times and window ends are milliseconds since the epoch, signed.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic: `CTpanes` and a zero byte |
//! | 8 | 4 | format version: 1 |
//! | 12 | 8 | length of the body, `n` |
//! | 20 | `n` | the body |
//! | 20 + `n` | 8 | XXH3 (64 bits, seed 0) of all bytes before |
//!
//! These five stay as they are in every later version, so that a damaged object can be told from a later one. The body is
//!
//! | bytes | what |
//! |---|---|
//! | 4 | number of names |
//! | 4 | number of panes |
//! | | the names: |
//! | 8 | page |
//! | 8 | `keep_until` |
//! | 4 | length of the URL, `u` |
//! | `u` | the URL, UTF-8 |
//! | | the panes: |
//! | 8 | `enter` of its events |
//! | 8 | `leave` of its events |
//! | 8 | the least time of its events |
//! | 4 | number of events, at least 1 |
//! | 1 | `w`, the bytes of a time after the least: 1, 2, 4 or 8 |
//! | | the pane's events: |
//! | 8 | page |
//! | 8 | user |
//! | 8 | session |
//! | `w` | time after the pane's least |
//! | 1 | event type (0 view, 1 click, 2 add to cart, 3 purchase, 4 search), plus 128 if a session duration follows |
//! | 4 | session duration in seconds, signed, if there is one |
//!
//! With panes of up to 65 s that is 27 bytes an event, and 4 more for a session duration.

use std::collections::HashMap;

use clicktide_dataflows::event::{Activity, EventType, PageName};
use clicktide_dataflows::time::Tick;
use xxhash_rust::xxh3::xxh3_64;

use super::PaneObject;
pub use super::format::{FormatError, checksum};

const MAGIC: [u8; 8] = *b"CTpanes\0";
const VERSION: u32 = 1;
/// Magic, version and the body's length.
const HEADER_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 8;
/// A name without its URL.
const NAME_BYTES_MIN: usize = 20;
const PANE_BYTES_MIN: usize = 29;
/// An event without its time and session duration.
const EVENT_BYTES_MIN: usize = 25;
const HAS_DURATION: u8 = 0x80;

impl PaneObject {
    /// The object in the format above. Keeps a reference to each event meanwhile; 15 to 30 ns per event.
    pub fn encode(&self) -> Vec<u8> {
        let panes = by_pane(&self.activities);
        let names_bytes: usize = self.names.iter().map(|name| NAME_BYTES_MIN + name.page_url.len()).sum();
        let bytes_expected = HEADER_BYTES
            + 8
            + names_bytes
            + panes.len() * PANE_BYTES_MIN
            + self.activities.len() * (EVENT_BYTES_MIN + 8)
            + CHECKSUM_BYTES;
        let mut bytes = Vec::with_capacity(bytes_expected);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(count(self.names.len()));
        bytes.extend(count(panes.len()));
        for PageName { page, page_url, keep_until } in &self.names {
            bytes.extend(page.to_le_bytes());
            bytes.extend(keep_until.0.to_le_bytes());
            bytes.extend(count(page_url.len()));
            bytes.extend(page_url.as_bytes());
        }
        for ((enter, leave), events) in panes {
            encode_pane(&mut bytes, enter, leave, &events);
        }
        let body_bytes = (bytes.len() - HEADER_BYTES) as u64;
        bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
        let sum = xxh3_64(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// Reads an object, which must be `bytes` as a whole. Allocates at most three times their length; about 35 ns per event.
    ///
    /// # Errors
    /// When they are foreign, cut off, damaged, or of another version. None of it panics.
    pub fn decode(bytes: &[u8]) -> Result<PaneObject, FormatError> {
        let mut body = open(bytes)?;
        let (names, panes) = (body.u32()?, body.u32()?);
        let mut object = PaneObject::default();
        object.names.reserve(body.fitting(names, NAME_BYTES_MIN)?);
        for _ in 0..names {
            let (page, keep_until, url_bytes) = (body.u64()?, body.tick()?, body.u32()? as usize);
            let page_url =
                std::str::from_utf8(body.take(url_bytes)?).map_err(|_| damaged("a page's name is no text"))?;
            object.names.push(PageName { page, page_url: page_url.to_owned(), keep_until });
        }
        body.fitting(panes, PANE_BYTES_MIN)?;
        // As many as there can be: growing by and by would move them all several times.
        object.activities.reserve(body.0.len() / (EVENT_BYTES_MIN + 1));
        for _ in 0..panes {
            decode_pane(&mut body, &mut object.activities)?;
        }
        match body.0.len() {
            0 => Ok(object),
            left => Err(damaged(format!("{left} bytes follow its last event"))),
        }
    }
}

/// The body, when header and checksum are good.
fn open(bytes: &[u8]) -> Result<Body<'_>, FormatError> {
    let begins = bytes.len().min(MAGIC.len());
    if bytes[..begins] != MAGIC[..begins] {
        return Err(FormatError::Foreign { what: "pane object" });
    }
    let cut_off = |expected: u64| FormatError::Truncated(format!("{} of {expected} bytes are there", bytes.len()));
    if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return Err(cut_off((HEADER_BYTES + CHECKSUM_BYTES) as u64));
    }
    let mut header = Body(&bytes[MAGIC.len()..HEADER_BYTES]);
    let (version, body_bytes) = (header.u32()?, header.u64()?);
    let expected = body_bytes.saturating_add((HEADER_BYTES + CHECKSUM_BYTES) as u64);
    if (bytes.len() as u64) < expected {
        return Err(cut_off(expected));
    }
    if bytes.len() as u64 > expected {
        return Err(damaged(format!("{} bytes are there, and {expected} should be", bytes.len())));
    }
    let (summed, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if xxh3_64(summed).to_le_bytes() != sum {
        return Err(damaged("its checksum does not fit"));
    }
    if version != VERSION {
        return Err(FormatError::Version { found: version, known: VERSION });
    }
    Ok(Body(&summed[HEADER_BYTES..]))
}

fn damaged(what: impl Into<String>) -> FormatError {
    FormatError::Damaged(what.into())
}

/// A length in four bytes. What is kept for a window is far below 2^32.
fn count(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("fewer than 2^32 of anything in a pane object").to_le_bytes()
}

/// The events of each pane, in the order of the panes.
fn by_pane(activities: &[Activity]) -> Vec<((Tick, Tick), Vec<&Activity>)> {
    let mut places: HashMap<(Tick, Tick), usize> = HashMap::new();
    let mut panes: Vec<((Tick, Tick), Vec<&Activity>)> = Vec::new();
    let mut last: Option<((Tick, Tick), usize)> = None;
    for activity in activities {
        let pane = (activity.enter, activity.leave);
        let place = match last {
            Some((last_pane, place)) if last_pane == pane => place,
            _ => *places.entry(pane).or_insert_with(|| {
                panes.push((pane, Vec::new()));
                panes.len() - 1
            }),
        };
        last = Some((pane, place));
        panes[place].1.push(activity);
    }
    panes.sort_unstable_by_key(|(pane, _)| *pane);
    panes
}

fn encode_pane(bytes: &mut Vec<u8>, enter: Tick, leave: Tick, events: &[&Activity]) {
    let times = || events.iter().map(|event| event.time_ms);
    let (least, greatest) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let width = match greatest.abs_diff(least) {
        0..0x100 => 1,
        0x100..0x1_0000 => 2,
        0x1_0000..0x1_0000_0000 => 4,
        _ => 8,
    };
    bytes.extend(enter.0.to_le_bytes());
    bytes.extend(leave.0.to_le_bytes());
    bytes.extend(least.to_le_bytes());
    bytes.extend(count(events.len()));
    bytes.push(width);
    for event in events {
        // On the stack first: one extension of the vector per event.
        let mut row = [0; EVENT_BYTES_MIN + 8 + 4];
        row[0..8].copy_from_slice(&event.page.to_le_bytes());
        row[8..16].copy_from_slice(&event.user.to_le_bytes());
        row[16..24].copy_from_slice(&event.session.to_le_bytes());
        row[24..32].copy_from_slice(&event.time_ms.abs_diff(least).to_le_bytes());
        let after_time = 24 + usize::from(width);
        let mut row_bytes = after_time + 1;
        row[after_time] = code(event.event_type);
        if let Some(duration) = event.session_duration_s {
            row[after_time] |= HAS_DURATION;
            row[row_bytes..row_bytes + 4].copy_from_slice(&duration.to_le_bytes());
            row_bytes += 4;
        }
        bytes.extend_from_slice(&row[..row_bytes]);
    }
}

fn decode_pane(body: &mut Body<'_>, activities: &mut Vec<Activity>) -> Result<(), FormatError> {
    let (enter, leave, least) = (body.tick()?, body.tick()?, body.i64()?);
    let (events, width) = (body.u32()?, body.take(1)?[0]);
    if events == 0 || !matches!(width, 1 | 2 | 4 | 8) {
        return Err(damaged(format!("a pane has {events} events with times of {width} bytes")));
    }
    let width = usize::from(width);
    body.fitting(events, EVENT_BYTES_MIN + width)?;
    for _ in 0..events {
        let mut row = Body(body.take(EVENT_BYTES_MIN + width)?);
        let (page, user, session) = (row.u64()?, row.u64()?, row.u64()?);
        let mut after_least = [0; 8];
        after_least[..width].copy_from_slice(row.take(width)?);
        let time_ms = least
            .checked_add_unsigned(u64::from_le_bytes(after_least))
            .ok_or_else(|| damaged("an event's time is out of range"))?;
        let type_and_flag = row.take(1)?[0];
        let event_type = event_type(type_and_flag & !HAS_DURATION)
            .ok_or_else(|| damaged(format!("there is no event type {}", type_and_flag & !HAS_DURATION)))?;
        let session_duration_s = match type_and_flag & HAS_DURATION {
            0 => None,
            _ => Some(i32::from_le_bytes(body.array()?)),
        };
        activities.push(Activity { enter, leave, page, user, session, event_type, session_duration_s, time_ms });
    }
    Ok(())
}

fn code(event_type: EventType) -> u8 {
    match event_type {
        EventType::View => 0,
        EventType::Click => 1,
        EventType::AddToCart => 2,
        EventType::Purchase => 3,
        EventType::Search => 4,
    }
}

fn event_type(code: u8) -> Option<EventType> {
    let types = [EventType::View, EventType::Click, EventType::AddToCart, EventType::Purchase, EventType::Search];
    types.get(usize::from(code)).copied()
}

/// What is left to read.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (taken, left) = self.0.split_at_checked(length).ok_or_else(|| damaged("a length in it does not fit"))?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    fn tick(&mut self) -> Result<Tick, FormatError> {
        self.i64().map(Tick)
    }

    /// `number`, if so many things of at least `bytes_min` can follow: nothing is allocated for what is not there.
    fn fitting(&self, number: u32, bytes_min: usize) -> Result<usize, FormatError> {
        let number = number as usize;
        if number > self.0.len() / bytes_min {
            return Err(damaged(format!("{number} things of {bytes_min} bytes or more don't fit")));
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests;
