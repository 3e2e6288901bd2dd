//! The checkpoint store, which fails as the seed says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clicktide::checkpoint::store::{MemoryStore, Store, StoreError};

use super::incarnation::lock;

/// What becomes of the next object that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutFate {
    /// It is not kept.
    Fails,
    /// It is kept, and the writer is told that it failed.
    Unknown,
    /// The process is killed, before or after it is kept.
    Killed { kept: bool },
}

/// The store that all runs share.
#[derive(Default)]
pub struct Shelf {
    pub objects: MemoryStore,
    pub fate: Mutex<Option<PutFate>>,
    /// Whether it can't be reached.
    pub down: AtomicBool,
}

/// A run's way to the store.
pub struct Reach {
    shelf: Arc<Shelf>,
    /// The run has been killed.
    pub dead: AtomicBool,
}

impl Reach {
    pub fn new(shelf: &Arc<Shelf>) -> Self {
        Reach { shelf: Arc::clone(shelf), dead: AtomicBool::new(false) }
    }

    fn fail(&self, name: &str) -> StoreError {
        StoreError::Failed { name: name.to_owned(), reason: "as the seed says".to_owned() }
    }

    fn reach(&self, name: &str) -> Result<&MemoryStore, StoreError> {
        let fails = self.dead.load(Ordering::Relaxed) || self.shelf.down.load(Ordering::Relaxed);
        if fails { Err(self.fail(name)) } else { Ok(&self.shelf.objects) }
    }
}

impl Store for Reach {
    fn put_new(&self, name: &str, body: Vec<u8>) -> Result<(), StoreError> {
        let objects = self.reach(name)?;
        let fate = lock(&self.shelf.fate).take();
        if matches!(fate, None | Some(PutFate::Unknown | PutFate::Killed { kept: true })) {
            objects.put_new(name, body)?;
        }
        if matches!(fate, Some(PutFate::Killed { .. })) {
            self.dead.store(true, Ordering::Relaxed);
        }
        fate.map_or(Ok(()), |_| Err(self.fail(name)))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.reach(name)?.get(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.reach(prefix)?.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.reach(name)?.delete(name)
    }
}
