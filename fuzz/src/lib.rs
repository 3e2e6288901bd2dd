//! What comes from outside, whatever it is, read by the code that reads it in production.
//!
//! A target is a function of bytes that panics when something is wrong: the code under test panics by itself, or a property
//! does not hold, which the target's own file states. `fuzz_targets/` hands them to libFuzzer; `tests/fuzz_seeds.rs` of the
//! root package runs them over `seeds/`, which any `cargo test` does.
//!
//! Inputs of several parts are texts where they can be, with a line `==` between the parts, so that a seed can be read and
//! written by hand.

pub mod arguments;
pub mod checkpoint;
pub mod configuration;
pub mod container;
pub mod decoder;
pub mod handshake;
pub mod http;
pub mod json_lines;
pub mod progress;
mod reference;
pub mod resolution;
mod sanitised;
pub mod seeds;
pub mod wire;
pub mod writer_schema;

/// Checks what comes of an input.
pub type Target = fn(&[u8]);

/// All targets by name; the seeds of each are in the folder of that name.
pub const TARGETS: [(&str, Target); 11] = [
    ("arguments", arguments::run),
    ("checkpoint", checkpoint::run),
    ("configuration", configuration::run),
    ("container", container::run),
    ("decoder", decoder::run),
    ("handshake", handshake::run),
    ("http", http::run),
    ("json_lines", json_lines::run),
    ("progress", progress::run),
    ("resolution", resolution::run),
    ("wire", wire::run),
];

/// What is before the first line `==`, and what is after it; all and nothing, if there is none.
fn parts(data: &[u8]) -> (&[u8], &[u8]) {
    const LINE: &[u8] = b"\n==\n";
    match data.windows(LINE.len()).position(|window| window == LINE) {
        Some(at) => (&data[..at], &data[at + LINE.len()..]),
        None => (data, &[]),
    }
}
