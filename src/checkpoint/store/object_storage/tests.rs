//! A directory as a store, beside the one in memory.

use std::fs;

use super::*;
use crate::checkpoint::store::MemoryStore;

fn directory(path: &std::path::Path) -> ObjectStorage {
    ObjectStorage::open(&StoreLocation::Directory(path.into()), &Properties::default(), "job").unwrap()
}

#[test]
fn what_a_store_promises() {
    let dir = tempfile::tempdir().unwrap();
    let stores: [&dyn Store; 2] = [&MemoryStore::default(), &directory(dir.path())];
    for store in stores {
        assert_eq!(store.list("panes/"), Ok(vec![]));
        assert_eq!(store.get("panes/1-a"), Err(StoreError::Missing("panes/1-a".into())));
        assert_eq!(store.put_new("panes/1-b", vec![1, 2]), Ok(()));
        assert_eq!(store.put_new("panes/1-a", vec![]), Ok(()));
        assert_eq!(store.put_new("panes/1-a", vec![3]), Err(StoreError::Exists("panes/1-a".into())));
        assert_eq!(store.put_new("panes2/1-a", vec![]), Ok(()));
        assert_eq!(store.get("panes/1-a"), Ok(vec![]));
        assert_eq!(store.get("panes/1-b"), Ok(vec![1, 2]));
        assert_eq!(store.list("panes/"), Ok(vec![("panes/1-a".into(), 0), ("panes/1-b".into(), 2)]));
        assert_eq!(store.delete("panes/1-b"), Ok(()));
        assert_eq!(store.delete("panes/1-b"), Ok(()));
        assert_eq!(store.list("panes/"), Ok(vec![("panes/1-a".into(), 0)]));
        assert_eq!(store.put_new("panes/1-b", vec![4]), Ok(()));
    }
}

#[test]
fn of_two_at_once_one_puts() {
    let dir = tempfile::tempdir().unwrap();
    let store = directory(dir.path());
    for round in 0..20 {
        let name = format!("panes/{round}-x");
        let puts = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4u8)
                    .map(|n| {
                        scope.spawn({
                            let (store, name) = (&store, &name);
                            move || store.put_new(name, vec![n; 1_000])
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let answers = puts();
        let winners: Vec<_> = (0..4u8).filter(|n| answers[usize::from(*n)].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert_eq!(store.get(&name), Ok(vec![winners[0]; 1_000]));
    }
}

#[test]
fn jobs_do_not_see_each_other_nor_the_files_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = directory(dir.path());
    let other = ObjectStorage::open(&StoreLocation::Directory(dir.path().into()), &Properties::default(), "other");
    other.unwrap().put_new("panes/1-a", vec![]).unwrap();
    store.put_new("panes/1-b", vec![]).unwrap();
    let panes = dir.path().join("job/panes");
    fs::create_dir(panes.join("directory")).unwrap();
    for name in ["what is this", "1-c#1", "~", "ü"] {
        fs::write(panes.join(name), "x").unwrap();
    }
    assert_eq!(store.list("panes/"), Ok(vec![("panes/1-b".into(), 0)]));
}

#[test]
fn what_is_wrong_with_a_directory_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let open = |path: &str| {
        let location = StoreLocation::Directory(dir.path().join(path));
        ObjectStorage::open(&location, &Properties::default(), "job")
            .map_or_else(|error| error.to_string(), |_| "good".into())
    };
    assert_eq!(open("new/directory"), "good");
    let error = open("file");
    assert!(error.contains("/file/job: ") && error.contains("it must be a directory"), "{error}");
    let store = directory(dir.path());
    fs::write(dir.path().join("job/panes"), "").unwrap();
    let error = store.put_new("panes/1-a", vec![]).unwrap_err().to_string();
    assert!(error.contains("/job/panes/1-a: ") && error.contains("it must be a directory"), "{error}");
}

#[test]
fn reasons() {
    let check = |kind: i32, expected: &str| {
        let shown = explain_io(&io::Error::from_raw_os_error(kind));
        assert!(shown.contains(expected), "{shown}");
    };
    check(13, "Permission denied (os error 13): the user of this process");
    check(30, "Read-only file system (os error 30): the store must be on a file system that can be written");
    check(28, "No space left on device (os error 28): make room");
    check(20, "Not a directory (os error 20): it must be a directory");
    check(5, "error (os error 5)");
}

#[test]
fn locations() {
    let check = |text: &str, expected: &str| {
        let shown = text.parse().map_or_else(|error: String| error, |location: StoreLocation| format!("{location:?}"));
        assert!(shown.starts_with(expected), "{text}: {shown}");
    };
    check("checkpoints", "Directory(\"checkpoints\")");
    check("file:///var/lib/x", "Directory(\"/var/lib/x\")");
    check("s3://bucket", "S3 { bucket: \"bucket\", prefix: \"\" }");
    check("s3://bucket/a/b/", "S3 { bucket: \"bucket\", prefix: \"a/b\" }");
    for bad in ["", "file://host/x", "s3://", "s3:///x", "s3://b/a//b", "s3://b/a b", "gs://bucket", "http://x"] {
        check(bad, "a path, file:///path, or s3://bucket/prefix");
    }
}

#[test]
fn s3_that_is_not_built_in_is_said() {
    if cfg!(feature = "s3") {
        return;
    }
    let location = "s3://bucket/prefix".parse().unwrap();
    let error = open_store(&location, &Properties::default(), "job").err().unwrap().to_string();
    assert!(error.contains("s3://bucket/prefix/job") && error.contains("--features s3"), "{error}");
}
