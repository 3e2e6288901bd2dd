//! Where checkpoints are kept: objects under names, written once.

mod memory;
mod object_storage;

use std::time::SystemTime;

pub use memory::MemoryStore;
pub use object_storage::{ObjectStorage, StoreLocation, open_store};

/// Keeps objects under names until they are deleted. Names are paths with `/`.
pub trait Store: Send + Sync {
    /// Keeps `body` under a name that is not taken.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when it is.
    fn put_new(&self, name: &str, body: Vec<u8>) -> Result<(), StoreError>;

    /// What is kept under a name.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when that is nothing.
    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError>;

    /// The names that begin with `prefix`, which ends with a slash, in order, and the lengths of what is kept under them.
    ///
    /// # Errors
    /// When the store can't be asked.
    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError>;

    /// When what is kept under a name was written, by the store's clock, if it knows.
    ///
    /// # Errors
    /// When nothing is kept there, or the store can't be asked.
    fn written_at(&self, _name: &str) -> Result<Option<SystemTime>, StoreError> {
        Ok(None)
    }

    /// Keeps a name's object no longer. It is no error if there is none.
    ///
    /// # Errors
    /// When the store can't be asked, or does not allow it.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// Why a store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The name is taken.
    #[error("{0} is there already")]
    Exists(String),
    /// Nothing is kept under the name.
    #[error("{0} is not there")]
    Missing(String),
    /// The store could not be reached, or refused.
    #[error("the checkpoint store failed on {name}: {reason}")]
    Failed {
        /// What was asked for.
        name: String,
        /// What happened, and what would help.
        reason: String,
    },
}
