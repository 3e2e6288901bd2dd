//! A payload in the wire format of a schema registry, or a bare one.
//!
//! What it is split into makes the payload again. A result is read from either, and then can be written and read again in both.
//! An event is read, or is undecodable, as its body alone would be.

use clicktide::avro::wire::{PREFIX_BYTES, decode_result, split};
use clicktide::avro::{Decoder, decode_page_analytics, encode_page_analytics};

thread_local! {
    static DECODER: Decoder = Decoder::default();
}

/// Checks one payload.
pub fn run(data: &[u8]) {
    let parts = split(data);
    assert_eq!(parts.is_some(), data.len() >= PREFIX_BYTES && data[0] == 0);
    if let Some((id, body)) = parts {
        assert_eq!([&id.prefix()[..], body].concat(), data);
        DECODER.with(|decoder| decoder.decode(body).ok().map(drop));
    }
    let Ok(result) = decode_result(data) else { return };
    let mut bare = Vec::new();
    encode_page_analytics(&result, &mut bare);
    // A rate need not be a number that is equal to itself, and a number may have been written longer than it has to be.
    let again = decode_page_analytics(&bare).expect("what was written can be read");
    let mut twice = Vec::new();
    encode_page_analytics(&again, &mut twice);
    assert_eq!(bare, twice);
    if bare.first() != Some(&0) {
        assert!(decode_result(&bare).is_ok());
    }
}
