#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clicktide_fuzz::handshake::run(data));
