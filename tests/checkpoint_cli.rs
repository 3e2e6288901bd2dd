//! `clicktide checkpoint` on directories that the library has made.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use clicktide::checkpoint::choose::register;
use clicktide::checkpoint::format::checksum;
use clicktide::checkpoint::store::{Store, StoreLocation, open_store};
use clicktide::checkpoint::{Manifest, ObjectRef, PaneObject, ResumePoint, names};
use clicktide::config::Config;
use clicktide::kafka::properties::Properties;
use clicktide::progress::{IdleAdvance, PartitionCut};
use clicktide_dataflows::event::{Activity, EventType, PageName};
use clicktide_dataflows::time::{PartitionClock, Tick};

const MIDNIGHT: i64 = 1_795_737_600_000;

/// Puts a manifest with one pane object of two events.
fn put(store: &dyn Store, name: &str, through: i64, generation: i64, configuration: &str) {
    let through = Tick(through);
    let activity = Activity {
        enter: through,
        leave: Tick(through.0 + 300_000),
        page: 1,
        user: 2,
        session: 3,
        event_type: EventType::Click,
        session_duration_s: Some(60),
        time_ms: through.0 - 1,
    };
    let page = PageName { page: 1, page_url: "/one".into(), keep_until: activity.leave };
    let body = PaneObject { activities: vec![activity; 2], names: vec![page] }.encode();
    let object = ObjectRef {
        name: names::pane(generation, name.replace('/', ".")),
        bytes: body.len() as u64,
        checksum: checksum(&body),
        events: 2,
        needed_until: activity.leave,
        counts_through: Tick::NEVER,
    };
    store.put_new(&object.name, body).unwrap();
    let manifest = Manifest {
        job: "clicktide".into(),
        generation,
        configuration: configuration.into(),
        topic_id: None,
        through,
        input: vec![PartitionCut { position: 30, replay_from: 20, ..PartitionCut::start(0, 10, None) }],
        resume: vec![ResumePoint {
            partition: 0,
            after: through,
            offset: 25,
            clock: PartitionClock::default(),
            history_from: None,
        }],
        idle_advances: vec![IdleAdvance { partition: 0, next_offset: 22, floor_ms: MIDNIGHT }],
        objects: vec![object],
    };
    store.put_new(name, manifest.encode()).unwrap();
}

/// Run 7 has written three checkpoints after one of run 6 and a savepoint.
fn example(directory: &Path) -> std::sync::Arc<dyn Store> {
    let location = StoreLocation::Directory(directory.to_owned());
    let store = open_store(&location, &Properties::default(), "clicktide").unwrap();
    let meaning = Config::default().meaning().to_json();
    register(&*store, 6).unwrap();
    register(&*store, 7).unwrap();
    for (through, generation) in [(MIDNIGHT, 6), (MIDNIGHT + 10_000, 7), (MIDNIGHT + 20_000, 7), (MIDNIGHT + 30_000, 7)]
    {
        put(&*store, &names::checkpoint(Tick(through), generation), through, generation, &meaning);
    }
    put(&*store, "savepoints/mine", MIDNIGHT, 6, "{}");
    store
}

/// Runs `clicktide checkpoint …` on the store below `directory`; gives the exit code and what it prints.
fn run(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_clicktide"))
        .arg("checkpoint")
        .args(arguments)
        .arg(format!("--set=checkpoints.store={}", directory.display()))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[track_caller]
fn check(directory: &Path, arguments: &[&str], code: i32, expected: &[&str]) -> String {
    let (actual, text) = run(directory, arguments);
    assert_eq!(actual, code, "{text}");
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    text
}

#[test]
fn they_are_listed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let store = example(dir.path());
    let text = check(dir.path(), &["list"], 0, &["savepoints/mine"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(lines[1].starts_with("checkpoints/1795737630000-7  2026-11-27T00:00:30.000Z  7    1        2"), "{text}");
    assert!(lines[4].starts_with("checkpoints/1795737600000-6"), "{text}");
    assert!(lines[5].ends_with("good, but it was written with another configuration"), "{text}");
    store.delete("panes/7-checkpoints.1795737630000-7").unwrap();
    let json = check(dir.path(), &["list", "--json"], 0, &[]);
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows[0]["verdict"], "bad");
    assert_eq!(rows[0]["reason"], "panes/7-checkpoints.1795737630000-7 is not there");
    assert_eq!(
        (&rows[1]["verdict"], &rows[1]["through_ms"], &rows[1]["events"]),
        (&"good".into(), &(MIDNIGHT + 20_000).into(), &2.into())
    );

    let expected = ["run            7", "committed to", "0          10     30", "panes/7-checkpoints.1795737620000-7"];
    check(dir.path(), &["show", "1795737620000-7"], 0, &expected);
    check(dir.path(), &["show", "checkpoints/1795737620000-7"], 0, &expected);
    check(dir.path(), &["show", "mine"], 0, &["savepoints/mine", "run            6"]);
    check(dir.path(), &["show", "yours"], 21, &["savepoints/yours: it is not there"]);
    check(dir.path(), &["show", "a/b"], 2, &["\"a/b\" is the name of no checkpoint"]);
}

#[test]
fn what_is_damaged_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let _store = example(dir.path());
    check(dir.path(), &["verify"], 0, &["good  checkpoints/1795737630000-7\n", "good  savepoints/mine, but"]);
    let job = dir.path().join("clicktide");
    let pane = job.join("panes/7-checkpoints.1795737620000-7");
    let mut body = fs::read(&pane).unwrap();
    body[60] ^= 1;
    fs::write(&pane, body).unwrap();
    let manifest = job.join("checkpoints/1795737630000-7");
    fs::write(&manifest, &fs::read(&manifest).unwrap()[..100]).unwrap();
    check(
        dir.path(),
        &["verify"],
        21,
        &[
            "BAD   checkpoints/1795737630000-7: it is cut off: it ends after 100 bytes\n",
            "BAD   checkpoints/1795737620000-7: panes/7-checkpoints.1795737620000-7: it is damaged: its checksum does not fit\n",
            "good  checkpoints/1795737610000-7\n",
            "2 of 5 can't be used",
        ],
    );
    check(dir.path(), &["verify", "1795737620000-7"], 21, &["1 of 1 can't be used"]);
    check(dir.path(), &["verify", "1795737610000-7"], 0, &["good"]);
}

#[test]
fn what_is_not_needed_is_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let store = example(dir.path());
    let manifest = "deleted checkpoints/1795737600000-6";
    let old = "deleted panes/6-checkpoints.1795737600000-6";
    let marker = "deleted generations/6";
    let text = check(dir.path(), &["prune", "--dry-run"], 0, &["would delete panes/6-", "3 would be deleted"]);
    assert!(!text.contains("\ndeleted"), "{text}");
    check(dir.path(), &["prune"], 0, &[manifest, old, marker, "3 deleted", "latest run (7) stay"]);
    // Of the latest run the manifests go, and the pane objects only when it is stopped.
    let text = check(dir.path(), &["prune", "--keep", "1"], 0, &["2 deleted"]);
    assert!(!text.contains("deleted panes/"), "{text}");
    check(
        dir.path(),
        &["prune", "--keep", "1", "--stopped"],
        0,
        &["deleted panes/7-checkpoints.1795737610000-7", "2 deleted"],
    );
    check(dir.path(), &["verify"], 0, &["good  checkpoints/1795737630000-7", "good  savepoints/mine"]);
    check(dir.path(), &["prune", "--keep", "0"], 2, &["--keep"]);

    // A run that has only just begun may be restoring anything.
    register(&*store, 8).unwrap();
    check(dir.path(), &["prune"], 0, &["nothing deleted: the latest run (8) has not written a checkpoint yet"]);

    check(dir.path(), &["delete", "mine"], 0, &["deleted savepoints/mine"]);
    check(dir.path(), &["delete", "mine"], 19, &["savepoints/mine is not there"]);
    check(dir.path(), &["prune", "--stopped"], 0, &["deleted panes/6-savepoints.mine", "deleted generations/7"]);
}

#[test]
fn where_there_is_nothing_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    check(&nowhere, &["list"], 2, &["has no directory \"clicktide\": the job has kept nothing there"]);
    assert!(!nowhere.exists());
    check(Path::new("off"), &["list"], 2, &["checkpoints.store is off"]);
    example(dir.path());
    check(dir.path(), &["list", "--name", "other"], 2, &["has no directory \"other\""]);
    check(dir.path(), &["savepoint", "x", "--http", "http://127.0.0.1:1"], 1, &["Connection refused"]);
}
