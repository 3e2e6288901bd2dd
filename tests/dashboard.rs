//! The dashboard in a real browser, by `tests/dashboard.py`.

mod support;

use std::path::Path;
use std::process::Command;

use support::{chromium, python};

#[test]
fn in_chromium() {
    let Some((python, chromium)) = python().zip(chromium()) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Built with the tests, into the folder beside theirs.
    let tests = std::env::current_exe().expect("the test's own path");
    let example = tests.with_file_name("../examples/dashboard");
    assert!(example.exists(), "{} is not there: cargo build --example dashboard", example.display());
    let screenshots = root.join("target/dashboard");
    let mut run = Command::new(python);
    run.arg(root.join("tests/dashboard.py")).arg(chromium).arg(env!("CARGO_BIN_EXE_clicktide")).arg(example);
    let output = run.arg(screenshots).output().expect("Python runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{told}");
    assert!(output.status.success(), "{told}{errors}");
}
