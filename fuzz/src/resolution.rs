//! A writer schema, a body and its damages, drawn by the input's bytes.
//!
//! The plan and `apache_avro` come to the same verdict and the same values: for the whole body, and for one with some of its
//! bytes changed, cut or added. See `writer_schema` for what is drawn.

use std::convert::Infallible;

use apache_avro::Schema;
use clicktide::avro::Decoder;
use rand::seq::IndexedMutRandom;
use rand::{RngExt, TryRng};

use super::decoder::owned;
use super::reference;
use super::writer_schema::{Writer, needed_schema};

/// Checks what is drawn.
pub fn run(data: &[u8]) {
    let rng = &mut Drawn { bytes: data, beyond: data.len() as u64 };
    let reader = needed_schema();
    let writer = Writer::draw(rng, &reader);
    let parse = |schema: &serde_json::Value| Schema::parse_str(&schema.to_string()).expect("a schema was drawn");
    let (lenient, reader) = (parse(&writer.lenient), parse(&reader));
    let decoder = Decoder::new(&writer.schema.to_string());
    let check = |body: &[u8]| {
        let ours = decoder.as_ref().ok().map(|decoder| decoder.decode(body).map(|event| owned(&event)));
        let expected = reference::read(&lenient, &reader, body);
        let agrees = expected == ours.clone().and_then(Result::ok) || reference::has_long_varint(body);
        assert!(agrees, "{} {body:x?}: {ours:?}, not {expected:?}", writer.schema);
    };
    let mut body = writer.body(rng);
    check(&body);
    if writer.blocks {
        return;
    }
    for _ in 0..8 {
        match rng.random_range(0..4) {
            0 => body.truncate(rng.random_range(0..=body.len())),
            1 => body.push(rng.random()),
            2 => body.iter_mut().for_each(|byte| *byte ^= u8::from(rng.random_ratio(1, 16))),
            _ => {
                if let Some(byte) = body.choose_mut(rng) {
                    *byte = rng.random();
                }
            }
        }
        check(&body);
    }
}

/// Draws what bytes say, and a fixed sequence after their end.
struct Drawn<'a> {
    bytes: &'a [u8],
    beyond: u64,
}

impl TryRng for Drawn<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| word as u32)
    }

    /// One byte of the input makes a word: it says in which part of its range a number lies.
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let Some((byte, rest)) = self.bytes.split_first() else {
            // SplitMix64, by Vigna.
            self.beyond = self.beyond.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.beyond ^ (self.beyond >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            return Ok(mixed ^ (mixed >> 31));
        };
        self.bytes = rest;
        Ok(u64::from(*byte).wrapping_mul(0x0101_0101_0101_0101))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        for byte in target {
            *byte = self.try_next_u32()? as u8;
        }
        Ok(())
    }
}
