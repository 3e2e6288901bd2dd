//! The fuzz targets over their seeds: those in `fuzz/seeds`, which hold what fuzzing has found, and those that today's code
//! writes. With CLICKTIDE_WRITE_EXAMPLES in the environment the latter are put there, too.

#[allow(dead_code, missing_docs)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

fn check(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(of, _)| *of == name).expect("there is such a target");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("fuzz/seeds").join(name);
    for (of_today, seed) in targets::seeds::of(name) {
        println!("{of_today}, as it is written today");
        target(&seed);
        if std::env::var_os("CLICKTIDE_WRITE_EXAMPLES").is_some() {
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(of_today), seed).expect("a file");
        }
    }
    let mut seeds = 0;
    for seed in fs::read_dir(&folder).expect("it has seeds") {
        let path = seed.expect("a seed").path();
        // A test that fails shows what it has printed: the last is the one.
        println!("{}", path.display());
        target(&fs::read(&path).expect("a file"));
        seeds += 1;
    }
    assert!(seeds >= 3, "{} has {seeds} seeds", folder.display());
}

#[test]
fn arguments() {
    check("arguments");
}

#[test]
fn checkpoint() {
    check("checkpoint");
}

#[test]
fn configuration() {
    check("configuration");
    for shipped in ["development", "production"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/{shipped}.toml"));
        targets::configuration::run(&fs::read(file).expect("a shipped configuration"));
    }
}

#[test]
fn container() {
    check("container");
}

#[test]
fn decoder() {
    check("decoder");
}

#[test]
fn handshake() {
    check("handshake");
}

#[test]
fn http() {
    check("http");
}

#[test]
fn json_lines() {
    check("json_lines");
}

#[test]
fn progress() {
    check("progress");
}

#[test]
fn resolution() {
    check("resolution");
}

#[test]
fn wire() {
    check("wire");
}
