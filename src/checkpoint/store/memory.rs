//! A store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Store, StoreError};

/// A store that ends with the process: for tests and simulations. A clone is another handle to the same objects.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl MemoryStore {
    /// Puts `body` under a name, whatever was there: what a damaged disk does.
    pub fn overwrite(&self, name: &str, body: Vec<u8>) {
        self.objects().insert(name.to_owned(), body);
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<String> {
        self.objects().keys().cloned().collect()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // Whoever panicked with the lock left the map as it was.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn put_new(&self, name: &str, body: Vec<u8>) -> Result<(), StoreError> {
        let mut objects = self.objects();
        if objects.contains_key(name) {
            return Err(StoreError::Exists(name.to_owned()));
        }
        objects.insert(name.to_owned(), body);
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.objects().get(name).cloned().ok_or_else(|| StoreError::Missing(name.to_owned()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let objects = self.objects();
        let from = objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(from.map(|(name, body)| (name.clone(), body.len() as u64)).collect())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.objects().remove(name);
        Ok(())
    }
}
