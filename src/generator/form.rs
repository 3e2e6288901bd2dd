//! In what form an event reaches the log: as it is, or damaged.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::json;

use crate::event::ClickEvent;

/// What becomes of an event's bytes. All but [`Form::Event`] are undecodable, whatever the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// They are the event's.
    #[default]
    Event,
    /// They are cut off.
    Truncated {
        /// How much is left, in parts of 65,536.
        left: u16,
    },
    /// They are arbitrary.
    Garbage {
        /// Decides which.
        seed: u64,
    },
    /// There are none.
    Empty,
    /// They are a record of another schema: an order's.
    OtherSchema {
        /// Decides which.
        seed: u64,
    },
}

/// No Avro body begins so, neither bare nor behind a registry's header, and no JSON: a varint that never ends.
const NO_BEGINNING: [u8; 11] = [0xff; 11];
const GARBAGE_BYTES_MAX: usize = 200;

impl Form {
    /// Appends an Avro payload to `out`; `encode` appends that of an event.
    pub fn write_avro(self, event: &ClickEvent, encode: impl FnOnce(&ClickEvent, &mut Vec<u8>), out: &mut Vec<u8>) {
        match self {
            Form::Event => encode(event, out),
            Form::Truncated { left } => truncated(left, out, |out| encode(event, out)),
            Form::Garbage { seed } => garbage(seed, out),
            Form::Empty => {}
            Form::OtherSchema { seed } => other_record(seed, out),
        }
    }

    /// Appends a JSON line to `out`, with its end. Nothing is written as `null`, since an empty line is no record.
    pub fn write_json_line(self, event: &ClickEvent, record_timestamp_ms: i64, out: &mut Vec<u8>) {
        match self {
            Form::Event => json_event(event, record_timestamp_ms, out),
            Form::Truncated { left } => truncated(left, out, |out| json_event(event, record_timestamp_ms, out)),
            Form::Garbage { seed } => garbage(seed, out),
            Form::Empty => out.extend_from_slice(b"null"),
            Form::OtherSchema { seed } => {
                let order = json!({"order_id": order_id(seed), "amount": 9.5, "currency": "EUR"});
                out.extend_from_slice(order.to_string().as_bytes());
            }
        }
        out.push(b'\n');
    }
}

/// Keeps at least one byte of what `write` appends, and not all.
fn truncated(left: u16, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let length = out.len() - start;
    let kept = (length * usize::from(left)) >> 16;
    out.truncate(start + kept.clamp(1, length.saturating_sub(1).max(1)));
}

fn garbage(seed: u64, out: &mut Vec<u8>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    out.extend_from_slice(&NO_BEGINNING);
    let start = out.len();
    out.resize(start + rng.random_range(0..GARBAGE_BYTES_MAX), 0);
    rng.fill_bytes(&mut out[start..]);
    // It is one line in a file.
    out[start..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
}

fn order_id(seed: u64) -> u32 {
    // Read as the length of a text, it is longer than any record.
    1_000_000_000 + (seed % 1_000_000_000) as u32
}

/// The bare Avro body of a record `{order_id: long, amount: double, currency: string}`.
fn other_record(seed: u64, out: &mut Vec<u8>) {
    let mut rest = u64::from(order_id(seed)) << 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(&9.5_f64.to_le_bytes());
    out.extend_from_slice(b"\x06EUR");
}

/// The event with `record_timestamp` as one more field.
fn json_event(event: &ClickEvent, record_timestamp_ms: i64, out: &mut Vec<u8>) {
    // Texts, numbers and nulls: there is nothing that could not be written.
    if serde_json::to_writer(&mut *out, event).is_ok() && out.pop() == Some(b'}') {
        out.extend_from_slice(format!(r#","record_timestamp":{record_timestamp_ms}}}"#).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::avro::{Decoder, encode_event};
    use crate::generator::{Model, Settings};
    use crate::json::decode_line;

    fn event() -> ClickEvent {
        let mut event = Model::blank_event();
        Model::new(&Settings::default()).unwrap().write_next(1_700_000_000_000, &mut event);
        event
    }

    #[test]
    fn an_event_stays_as_it_is() {
        let (event, mut payload, mut line) = (event(), Vec::new(), Vec::new());
        Form::Event.write_avro(&event, encode_event, &mut payload);
        assert_eq!(Decoder::default().decode(&payload).unwrap().session_id, event.session_id);
        Form::Event.write_json_line(&event, 17, &mut line);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read = decode_line(&line).unwrap();
        assert_eq!((read.event.timestamp, read.record_timestamp_ms), (event.timestamp, Some(17)));
        assert_eq!(serde_json::from_slice::<ClickEvent>(&line).unwrap(), event);
    }

    proptest! {
        #[test]
        fn all_others_are_undecodable(left: u16, seed: u64) {
            let event = event();
            for form in [Form::Truncated { left }, Form::Garbage { seed }, Form::Empty, Form::OtherSchema { seed }] {
                let (mut payload, mut line) = (Vec::new(), Vec::new());
                form.write_avro(&event, encode_event, &mut payload);
                prop_assert!(Decoder::default().decode(&payload).is_err(), "{form:?}");
                form.write_json_line(&event, 17, &mut line);
                prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "{:?}", form);
                prop_assert!(!line.trim_ascii().is_empty() && decode_line(&line).is_err(), "{form:?}");
            }
        }
    }
}
