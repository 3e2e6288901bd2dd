//! Manifests as they are stored.
//!
//! # Format, version 1
//!
//! JSON, for people to read as well:
//!
//! ```text
//! {
//!   "format": "clicktide-checkpoint",
//!   "version": 1,
//!   "manifest": { … },
//!   "checksum": "0123456789abcdef"
//! }
//! ```
//!
//! The first two lines are as they stand here. `manifest` is [`Manifest`], field by field. The checksum is XXH3 (64 bits,
//! seed 0) of all bytes before the comma in front of `"checksum"`; from that comma on, the text is the one above to the
//! byte, and no line ends after the last brace. So a manifest can't be edited by hand.
//!
//! Format, version and checksum stay where they are in every later version.

use serde::Deserialize;

use super::Manifest;
use super::format::{FormatError, checksum};

const HEAD: &str = "{\n  \"format\": \"clicktide-checkpoint\",\n  \"version\": ";
const VERSION: u32 = 1;

/// What every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// What this version has beside that.
#[derive(Deserialize)]
struct Envelope {
    manifest: Manifest,
}

impl Manifest {
    /// The manifest as a text in the format above.
    pub fn encode(&self) -> Vec<u8> {
        let manifest = serde_json::to_string_pretty(self).expect("texts and numbers can be written as JSON");
        // Within texts, JSON has no line ends.
        let manifest = manifest.replace('\n', "\n  ");
        let mut text = format!("{HEAD}{VERSION},\n  \"manifest\": {manifest}");
        let tail = tail(text.as_bytes());
        text.push_str(&tail);
        text.into_bytes()
    }

    /// Reads a manifest, which must be `bytes` as a whole.
    ///
    /// # Errors
    /// When they are foreign, cut off, damaged, or of another version. None of it panics.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let begins = bytes.len().min(HEAD.len());
        if bytes[..begins] != HEAD.as_bytes()[..begins] {
            return Err(FormatError::Foreign { what: "manifest" });
        }
        let tail_bytes = tail(b"").len();
        let (summed, end) = bytes.split_at(bytes.len().saturating_sub(tail_bytes));
        if end != tail(summed).as_bytes() {
            return Err(broken(bytes));
        }
        let damaged = |error: serde_json::Error| FormatError::Damaged(error.to_string());
        let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let Envelope { manifest } = serde_json::from_slice(bytes).map_err(damaged)?;
        Ok(manifest)
    }
}

/// How a manifest ends whose other bytes are `summed`.
fn tail(summed: &[u8]) -> String {
    format!(",\n  \"checksum\": \"{}\"\n}}", checksum(summed))
}

/// What is wrong with bytes whose checksum is not there or does not fit.
fn broken(bytes: &[u8]) -> FormatError {
    match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        Err(error) if error.is_eof() => FormatError::Truncated(format!("it ends after {} bytes", bytes.len())),
        Err(error) => FormatError::Damaged(error.to_string()),
        Ok(_) => FormatError::Damaged("its checksum does not fit".to_owned()),
    }
}

#[cfg(test)]
mod tests;
