//! A search for data in whatever form they may be.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use aho_corasick::AhoCorasick;
use sha2::{Digest, Sha256};

/// What is looked for, in all the forms that it might be written in.
pub struct Search {
    pub forms: AhoCorasick,
    /// What each form is.
    pub names: Vec<String>,
}

impl Search {
    pub fn new(data: &[String]) -> Search {
        let mut forms = Vec::new();
        let mut names = Vec::new();
        for datum in data {
            for (form, bytes) in written(datum) {
                forms.push(bytes);
                names.push(format!("{datum} ({form})"));
            }
        }
        Search { forms: AhoCorasick::new(forms).expect("patterns"), names }
    }

    /// What is found in these bytes of that place.
    pub fn look(&self, place: &str, bytes: &[u8], found: &mut BTreeSet<String>) {
        let names = self.forms.find_overlapping_iter(bytes).map(|hit| &self.names[hit.pattern().as_usize()]);
        found.extend(names.map(|name| format!("{place}: {name}")));
    }
}

/// The forms in which a text might be written: as it is, encoded, and as a hash that anybody can compute.
pub fn written(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = text.as_bytes();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let percent =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let utf_16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let mut forms = vec![
        ("as it is", bytes.to_vec()),
        ("upper case", text.to_uppercase().into_bytes()),
        ("reversed", bytes.iter().rev().copied().collect()),
        ("hex", hex(bytes).into_bytes()),
        ("HEX", hex(bytes).to_uppercase().into_bytes()),
        ("UTF-16, little endian", utf_16(u16::to_le_bytes)),
        ("UTF-16, big endian", utf_16(u16::to_be_bytes)),
        ("percent", bytes.iter().map(|byte| percent(*byte)).collect::<String>().into_bytes()),
        ("percent of all", bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>().into_bytes()),
        ("numbers", format!("{bytes:?}").trim_matches(['[', ']']).into()),
        ("XXH3", xxhash_rust::xxh3::xxh3_64(bytes).to_le_bytes().to_vec()),
        ("SipHash-1-3 without a key", siphasher::sip::SipHasher13::new().hash(bytes).to_le_bytes().to_vec()),
        ("SHA-256", Sha256::digest(bytes).to_vec()),
        ("SHA-256 in hex", hex(&Sha256::digest(bytes)).into_bytes()),
    ];
    // Base64 has three forms, by where the text begins among what is before it.
    for before in 0..3 {
        forms.push(("base64", base64_within(bytes, before)));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        forms.push(("16 bytes", address.octets().to_vec()));
        forms.push(("in full", address.segments().map(|segment| format!("{segment:04x}")).join(":").into_bytes()));
    }
    forms
}

/// The letters that base64 has for `bytes` wherever they stand behind `before` other bytes, but for those at either end that depend on
/// what is beside them.
pub fn base64_within(bytes: &[u8], before: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padded = [&vec![0; before][..], bytes].concat();
    let bits = |place: usize| padded[place / 8] >> (7 - place % 8) & 1;
    let letters = before.div_ceil(3) * 4..padded.len() / 3 * 4;
    let letter = |letter: usize| (letter * 6..letter * 6 + 6).fold(0, |number, place| number << 1 | bits(place));
    letters.map(|place| LETTERS[usize::from(letter(place))]).collect()
}
