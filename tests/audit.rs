//! The audit's own recomputation against the expected results in `tests/oracle`.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clicktide::audit::{Click, Comparison, Definition, Partition, Report, Totals, expect};
use clicktide::history::HistoryLimits;
use clicktide::ingest::{Format, Ingest, Record};
use clicktide::privacy::{HashKey, PageKey};
use clicktide::validation::Limits;
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;
use flate2::read::GzDecoder;

fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    BufReader::new(GzDecoder::new(file)).lines().map(Result::unwrap)
}

fn audit(folder: &Path, name: &str) -> (Totals, Report) {
    let windows = Windows::new(300_000, 10_000, 0).unwrap();
    let ingest = Ingest {
        format: Format::JsonLines,
        limits: Limits::default(),
        hash_key: HashKey::new("not used").unwrap(),
        page_key: PageKey::Full,
        windows,
        bound_ms: 30_000,
    };
    let mut comparison = Comparison::new(i64::MIN..=i64::MAX, 3);
    for line in lines(&folder.join(format!("{name}.expected.jsonl.gz"))) {
        comparison.actual(serde_json::from_str::<PageAnalytics>(&line).unwrap());
    }
    let events = lines(&folder.join(format!("{name}.events.jsonl.gz")));
    let records = events.zip(0..).map(|(line, offset)| {
        let record = Record { offset, record_timestamp_ms: None, payload: line.as_bytes() };
        Ok::<_, Infallible>((offset, ingest.read(&record).map(|valid| Click::new(valid, record.payload))))
    });
    let definition = Definition { windows, bound_ms: 30_000, through_ms: None, history: HistoryLimits::default() };
    let partition = Partition { records, idle_advances: Vec::new() };
    let Ok(totals) = expect(&definition, vec![partition], |result| comparison.expected(&result), |_| {});
    (totals, comparison.finish())
}

fn check(name: &str, events: u64, results: u64, late: u64) {
    let (totals, report) = audit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle"), name);
    assert!(report.agrees(), "{report:#?}");
    assert_eq!(totals, Totals { counted: events - late, late, results, ..Totals::default() });
    assert_eq!((report.expected, report.actual), (results, results));
}

#[test]
fn boundary() {
    check("boundary", 2_682, 597, 585);
}

#[test]
fn idle() {
    check("idle", 1_908, 880, 1);
}

#[test]
fn steady() {
    check("steady", 20_000, 2_993, 13);
}

/// Any other inputs: `CLICKTIDE_ORACLE=FOLDER/NAME` for `FOLDER/NAME.events.jsonl.gz` and `FOLDER/NAME.expected.jsonl.gz`;
/// without it, one of the project's own.
#[test]
fn from_the_environment() {
    let own = || concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/steady").into();
    let path = PathBuf::from(std::env::var_os("CLICKTIDE_ORACLE").unwrap_or_else(own));
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let (totals, report) = audit(folder, name.to_str().unwrap());
    println!("{totals:?}");
    assert!(report.agrees(), "{report:#?}");
}
