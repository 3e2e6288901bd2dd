//! Stores that hold this and that, and what is chosen.

use clicktide_dataflows::event::{Activity, EventType, PageName};

use super::*;
use crate::checkpoint::store::{MemoryStore, ObjectStorage, StoreLocation};
use crate::kafka::properties::Properties;

const CONFIGURATION: &str = r#"{"windows":{"size":"5m","slide":"10s"}}"#;

/// Puts a pane object of so many events.
pub(in crate::checkpoint) fn put_pane(store: &dyn Store, name: &str, events: usize) -> ObjectRef {
    let activity = Activity {
        enter: Tick(10_000),
        leave: Tick(310_000),
        page: 1,
        user: 2,
        session: 3,
        event_type: EventType::View,
        session_duration_s: None,
        time_ms: 5_000,
    };
    let page = PageName { page: 1, page_url: "/one".into(), keep_until: Tick(310_000) };
    put_object(store, name, &PaneObject { activities: vec![activity; events], names: vec![page] })
}

fn put_object(store: &dyn Store, name: &str, object: &PaneObject) -> ObjectRef {
    let bytes = object.encode();
    let object = ObjectRef {
        name: name.to_owned(),
        bytes: bytes.len() as u64,
        checksum: checksum(&bytes),
        events: object.activities.len() as u64,
        needed_until: Tick(310_000),
        counts_through: Tick::NEVER,
    };
    store.put_new(name, bytes).unwrap();
    object
}

pub(in crate::checkpoint) fn manifest(through: i64, generation: i64, objects: Vec<ObjectRef>) -> Manifest {
    Manifest {
        job: "job".into(),
        generation,
        configuration: CONFIGURATION.into(),
        topic_id: None,
        through: Tick(through),
        input: vec![],
        resume: vec![],
        idle_advances: vec![],
        objects,
    }
}

/// Puts a checkpoint with one pane object of its own.
fn put(store: &dyn Store, through: i64, generation: i64) -> Manifest {
    let object = put_pane(store, &names::pane(generation, through), 3);
    let manifest = manifest(through, generation, vec![object]);
    store.put_new(&names::checkpoint(Tick(through), generation), manifest.encode()).unwrap();
    manifest
}

/// The same with a store in memory and with a directory.
fn in_both(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::default());
    let dir = tempfile::tempdir().unwrap();
    check(&ObjectStorage::open(&StoreLocation::Directory(dir.path().into()), &Properties::default(), "job").unwrap());
}

fn overwrite(store: &dyn Store, name: &str, body: Vec<u8>) {
    store.delete(name).unwrap();
    store.put_new(name, body).unwrap();
}

#[test]
fn a_later_run_fences_an_earlier_one() {
    in_both(|store| {
        let fenced = |own, latest| Err(RegisterError::Fenced { own, latest });
        assert_eq!(latest_generation(store), Ok(None));
        assert_eq!(register(store, 9), Ok(()));
        assert_eq!(register(store, 10), Ok(()));
        assert_eq!(latest_generation(store), Ok(Some(10)));
        // Twice the same: two runs, of which one has it from somewhere else.
        assert_eq!(register(store, 10), fenced(10, 10));
        assert_eq!(register(store, 2), fenced(2, 10));
    });
}

/// What `newest` gives after `prepare`, as `NAME` or `-`, and the reasons for the others, each in a line.
fn check(committed: Option<i64>, prepare: impl Fn(&dyn Store), expected: &str, reasons: &[&str]) {
    in_both(|store| {
        prepare(store);
        let (found, rejected) = newest(store, "job", CONFIGURATION, committed.map(Tick)).unwrap();
        let name = found.as_ref().map_or("-", |(name, _)| name);
        assert_eq!(name, expected, "{rejected:?}");
        let rejected: Vec<_> = rejected.iter().map(ToString::to_string).collect();
        assert_eq!(rejected.len(), reasons.len(), "{rejected:?}");
        for (rejected, reason) in rejected.iter().zip(reasons) {
            assert!(rejected.contains(reason), "{rejected} is not about {reason}");
        }
    });
}

#[test]
fn the_newest_is_of_the_latest_run_and_of_that_the_last() {
    let committed = Some(1_000_000);
    check(committed, |_| (), "-", &[]);
    check(committed, |store| drop(put(store, -10_000, 1)), "checkpoints/-0000000010000-1", &[]);
    let some = |store: &dyn Store| {
        for (through, generation) in [(-10_000, 1), (10_000, 1), (20_000, 2), (30_000, 2), (40_000, 1)] {
            put(store, through, generation);
        }
        store.put_new("checkpoints/what-is-this", vec![]).unwrap();
    };
    check(committed, some, "checkpoints/0000000030000-2", &[]);
    check(Some(30_000), some, "checkpoints/0000000030000-2", &[]);
    let ahead = "checkpoints/0000000030000-2: it holds what entered through 30000, and only 29999 is committed";
    check(Some(29_999), some, "checkpoints/0000000020000-2", &[ahead]);
    check(Some(i64::MIN), some, "-", &["and only -9223372036854775808 is committed"; 5]);
    check(None, some, "-", &["nothing is committed"; 5]);
}

#[test]
fn what_cannot_be_used_is_skipped_with_the_reason() {
    let older = "checkpoints/0000000010000-1";
    let name = "checkpoints/0000000020000-1";
    let check = |change: &dyn Fn(&dyn Store), reason: &str| {
        let prepare = |store: &dyn Store| {
            put(store, 10_000, 1);
            put(store, 20_000, 1);
            change(store);
        };
        check(Some(20_000), prepare, older, &[&format!("{name}: {reason}")]);
    };
    let with = |store: &dyn Store, change: &dyn Fn(&mut Manifest)| {
        let mut manifest = Manifest::decode(&store.get(name).unwrap()).unwrap();
        change(&mut manifest);
        overwrite(store, name, manifest.encode());
    };
    // The manifest.
    check(&|store| overwrite(store, name, b"{}".to_vec()), "it is no manifest of Clicktide");
    check(&|store| overwrite(store, name, store.get(name).unwrap()[..99].to_vec()), "it is cut off");
    check(
        &|store| {
            let mut bytes = store.get(name).unwrap();
            bytes[200] ^= 1;
            overwrite(store, name, bytes);
        },
        "it is damaged",
    );
    check(&|store| overwrite(store, name, store.get(older).unwrap()), "it is that of another checkpoint");
    check(&|store| with(store, &|manifest| manifest.job = "other".into()), "it is of job \"other\", not \"job\"");
    let configuration = r#"{"windows":{"size":"6m","slide":"10s"}}"#;
    check(
        &|store| with(store, &|manifest| manifest.configuration = configuration.into()),
        "it was written with another configuration",
    );
    // Its object.
    let pane = "panes/1-20000";
    check(&|store| store.delete(pane).unwrap(), "panes/1-20000 is not there");
    check(&|store| overwrite(store, pane, vec![0; 7]), "panes/1-20000: it has 7 bytes, and should have");
    check(
        &|store| {
            let mut bytes = store.get(pane).unwrap();
            bytes[70] ^= 1;
            overwrite(store, pane, bytes);
        },
        "panes/1-20000: it is damaged: its checksum does not fit",
    );
    check(
        &|store| with(store, &|manifest| manifest.objects[0].events = 4),
        "panes/1-20000: it has 3 events, and should have 4",
    );
    check(
        &|store| with(store, &|manifest| manifest.objects[0].checksum = "0".repeat(16)),
        "panes/1-20000: it is another object than the one",
    );
    // One of many.
    check(
        &|store| {
            let more: Vec<_> = (0..20).map(|n| put_pane(store, &names::pane(1, format!("more-{n}")), n)).collect();
            store.delete("panes/1-more-13").unwrap();
            with(store, &|manifest| manifest.objects.extend(more.iter().cloned()));
        },
        "panes/1-more-13 is not there",
    );
}

#[test]
fn the_order_of_keys_in_a_configuration_means_nothing() {
    let store = MemoryStore::default();
    put(&store, 10_000, 1);
    let reordered = r#"{ "windows": {"slide": "10s", "size": "5m"} }"#;
    assert!(newest(&store, "job", reordered, Some(Tick(10_000))).unwrap().0.is_some());
    assert!(newest(&store, "job", "?", Some(Tick(10_000))).unwrap().0.is_none());
}

#[test]
fn probes_tell_whether_a_store_is_shared() {
    in_both(|store| {
        let probe = put_probe(store, 7).unwrap();
        assert_eq!(find_probe(store, &probe), Ok(()));
        assert_ne!(put_probe(store, 7).unwrap().name, probe.name);
        let elsewhere = MemoryStore::default();
        let error = find_probe(&elsewhere, &probe).unwrap_err().to_string();
        assert!(error.contains("they do not share the store"), "{error}");
    });
}

/// Takes everything, as some that are called S3-like do.
struct Overwriting(MemoryStore);

impl Store for Overwriting {
    fn put_new(&self, name: &str, body: Vec<u8>) -> Result<(), StoreError> {
        self.0.overwrite(name, body);
        Ok(())
    }
    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.0.get(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.0.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}

#[test]
fn a_store_that_overwrites_is_refused() {
    let error = put_probe(&Overwriting(MemoryStore::default()), 1).unwrap_err().to_string();
    assert!(error.contains("does not honour the condition If-None-Match"), "{error}");
}

#[test]
fn an_object_that_does_not_name_its_pages_is_passed_over() {
    let check = |keep_until: Option<i64>, good: bool| {
        let store = MemoryStore::default();
        put(&store, 10_000, 1);
        let whole = put_pane(&store, "panes/2-whole", 3);
        let mut object = read_object(&store, &whole).unwrap();
        object.names.clear();
        let name = |until| PageName { page: 1, page_url: "/one".into(), keep_until: Tick(until) };
        object.names.extend(keep_until.map(name));
        let manifest = manifest(20_000, 2, vec![put_object(&store, "panes/2-0", &object)]);
        store.put_new(&names::checkpoint(Tick(20_000), 2), manifest.encode()).unwrap();
        let (found, rejected) = newest(&store, "job", CONFIGURATION, Some(Tick(30_000))).unwrap();
        assert_eq!(found.map(|(_, manifest)| manifest.through), Some(Tick(if good { 20_000 } else { 10_000 })));
        let told = rejected.iter().any(|rejected| rejected.reason.contains("does not name"));
        assert_eq!(told, !good, "{rejected:?}");
    };
    check(Some(310_000), true);
    check(Some(309_999), false);
    check(None, false);
}
