//! Stores that hold this and that, and what goes.

use clicktide_dataflows::time::Tick;

use super::*;
use crate::checkpoint::choose::register;
use crate::checkpoint::choose::tests::{manifest, put_pane};
use crate::checkpoint::store::{MemoryStore, ObjectStorage, StoreLocation};
use crate::kafka::properties::Properties;

/// Puts a checkpoint that refers to these pane objects, and those of them that are not there.
fn put(store: &dyn Store, through: i64, generation: i64, panes: &[&str]) {
    put_as(store, &names::checkpoint(Tick(through), generation), &manifest(through, generation, vec![]), panes);
}

fn put_as(store: &dyn Store, name: &str, manifest: &Manifest, panes: &[&str]) {
    let scratch = MemoryStore::default();
    let objects = panes.iter().map(|pane| put_pane(&scratch, pane, 1)).collect();
    for pane in panes {
        store.put_new(pane, scratch.get(pane).unwrap()).ok();
    }
    store.put_new(name, Manifest { objects, ..manifest.clone() }.encode()).unwrap();
}

/// The same with a store in memory and with a directory.
fn in_both(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::default());
    let dir = tempfile::tempdir().unwrap();
    check(&ObjectStorage::open(&StoreLocation::Directory(dir.path().into()), &Properties::default(), "job").unwrap());
}

/// What run 5 condemns that keeps 2 and has written `panes/5-written`.
fn check(prepare: impl Fn(&dyn Store), expected: &[&str]) {
    in_both(|store| {
        prepare(store);
        let written = BTreeSet::from(["panes/5-written".to_owned()]);
        assert_eq!(condemned(store, 5, 2, &written).unwrap(), expected);
    });
}

/// Three checkpoints of a sliding window: each refers to the newer half of the panes of the one before.
fn three(store: &dyn Store) {
    put(store, 10_000, 5, &["panes/5-a", "panes/5-b"]);
    put(store, 20_000, 5, &["panes/5-b", "panes/5-c"]);
    put(store, 30_000, 5, &["panes/5-c", "panes/5-d"]);
}

#[test]
fn what_is_condemned() {
    check(|_| (), &[]);
    check(three, &["checkpoints/0000000010000-5", "panes/5-a"]);
    // What is a run's own is newer than what an earlier one wrote beyond.
    check(
        |store| {
            put(store, 90_000, 4, &["panes/4-a"]);
            put(store, 80_000, 4, &["panes/4-b"]);
            put(store, 10_000, 5, &["panes/5-a"]);
        },
        &["checkpoints/0000000080000-4", "panes/4-b"],
    );
    // Objects: only those that nobody refers to, of no later run, not just written.
    check(
        |store| {
            for pane in ["panes/5-written", "panes/5-a", "panes/4-a", "panes/6-a", "panes/what", "panes/x-1"] {
                put_pane(store, pane, 1);
            }
        },
        &["panes/4-a", "panes/5-a"],
    );
    // Savepoints stay, and so does what they refer to.
    check(
        |store| {
            three(store);
            put_as(store, "savepoints/mine", &manifest(10_000, 5, vec![]), &["panes/5-a"]);
        },
        &["checkpoints/0000000010000-5"],
    );
    // Markers and probes.
    check(
        |store| {
            for name in ["generations/3", "generations/5", "generations/x", "probes/4-a", "probes/5-a", "probes/6-a"] {
                store.put_new(name, vec![]).unwrap();
            }
        },
        &["generations/3", "probes/4-a", "probes/5-a"],
    );
}

#[test]
fn a_superseded_run_condemns_nothing() {
    check(
        |store| {
            three(store);
            register(store, 6).unwrap();
        },
        &[],
    );
}

#[test]
fn damaged_manifests() {
    let damaged = |store: &dyn Store, through| {
        store.put_new(&names::checkpoint(Tick(through), 5), b"{".to_vec()).unwrap();
    };
    // The newest two are damaged: as many good ones stay as if they were not there.
    check(
        |store| {
            three(store);
            damaged(store, 40_000);
            damaged(store, 50_000);
        },
        &["checkpoints/0000000010000-5", "panes/5-a"],
    );
    // Older than the good ones that stay.
    check(
        |store| {
            three(store);
            damaged(store, 15_000);
        },
        &["checkpoints/0000000015000-5", "checkpoints/0000000010000-5", "panes/5-a"],
    );
    // A damaged savepoint stays, though nothing is known of its objects.
    check(
        |store| {
            three(store);
            store.put_new("savepoints/mine", b"{".to_vec()).unwrap();
        },
        &["checkpoints/0000000010000-5", "panes/5-a"],
    );
}

#[test]
fn while_a_later_format_is_there_no_object_goes() {
    let later = |text: &str| {
        let head = "{\n  \"format\": \"clicktide-checkpoint\",\n  \"version\": 2";
        format!("{head},\n  \"checksum\": \"{text}\"\n}}")
    };
    let sum = crate::checkpoint::format::checksum(b"{\n  \"format\": \"clicktide-checkpoint\",\n  \"version\": 2");
    check(
        |store| {
            three(store);
            store.put_new("savepoints/newer", later(&sum).into_bytes()).unwrap();
        },
        &["checkpoints/0000000010000-5"],
    );
}

#[test]
fn what_is_condemned_twice_goes() {
    in_both(|store| {
        let mut pruning = Pruning::new(5, 1);
        let mut check = |expected: &[&str]| {
            assert_eq!(pruning.after_checkpoint(store, &BTreeSet::new()).unwrap(), expected);
        };
        put(store, 10_000, 5, &["panes/5-a"]);
        put_pane(store, "panes/5-b", 1);
        check(&[]);
        // What was under way has come: it is no longer condemned.
        put(store, 20_000, 5, &["panes/5-b"]);
        check(&[]);
        put(store, 30_000, 5, &["panes/5-b", "panes/5-c"]);
        check(&["checkpoints/0000000010000-5", "panes/5-a"]);
        check(&["checkpoints/0000000020000-5"]);
        check(&[]);
        assert_eq!(store.list("panes/").unwrap().len(), 2);
        // A later run is there.
        put_pane(store, "panes/5-d", 1);
        check(&[]);
        register(store, 6).unwrap();
        check(&[]);
        assert_eq!(store.list("panes/").unwrap().len(), 3);
    });
}
