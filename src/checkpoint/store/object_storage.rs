//! A store in a directory, or in S3 and its like.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::runtime::{Builder, Runtime};

use super::{Store, StoreError};
use crate::checkpoint::names::is_plain;
use crate::kafka::properties::Properties;

/// How long one call may take, with everything that is tried again.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// A directory, which is made if it is not there. Processes on several hosts need a file system that all of them share.
    Directory(PathBuf),
    /// S3 or its like.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all names begin with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl FromStr for StoreLocation {
    type Err = String;

    /// A path, `file:///path`, or `s3://bucket/prefix`.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "a path, file:///path, or s3://bucket/prefix";
        let expected = || EXPECTED.to_owned();
        match text.split_once("://") {
            None if text.is_empty() => Err(expected()),
            None => Ok(StoreLocation::Directory(text.into())),
            Some(("file", path)) if path.starts_with('/') => Ok(StoreLocation::Directory(path.into())),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let prefix = prefix.trim_matches('/');
                if !is_plain(bucket) || !(prefix.is_empty() || prefix.split('/').all(is_plain)) {
                    return Err(format!("{EXPECTED}, of letters, digits, dots, underscores and hyphens"));
                }
                Ok(StoreLocation::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
            }
            Some(_) => Err(expected()),
        }
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreLocation::Directory(path) => write!(f, "{}", path.display()),
            StoreLocation::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreLocation::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// The store of a job: what is below `location/job`. `options` are those of the crate `object_store` for S3, above the
/// variables AWS_… of the environment; a directory has none.
///
/// # Errors
/// When the directory can't be made or is none, an option is unknown, or this program was built without S3.
pub fn open_store(location: &StoreLocation, options: &Properties, job: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(ObjectStorage::open(location, options, job)?))
}

/// A store by way of the crate `object_store`. Calls block, each for 30 s at most, and may come from several threads, but not
/// from within an asynchronous runtime.
///
/// What [`Store::list`] gives are the plain names (letters, digits, dots, underscores, hyphens) directly below the prefix:
/// files of others in the same directory are never seen. In a directory an object is written under a name with `#`, synced,
/// and linked to its own name, so that it is there as a whole or not at all.
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// Ahead of all names in `store`.
    prefix: String,
    /// What messages put ahead of names.
    shown: String,
    /// Whether a call may be sent twice, so that the second finds what the first has written.
    sends_again: bool,
    /// There until the end.
    runtime: Option<Runtime>,
}

impl ObjectStorage {
    /// As [`open_store`].
    ///
    /// # Errors
    /// As [`open_store`].
    pub fn open(location: &StoreLocation, options: &Properties, job: &str) -> Result<Self, StoreError> {
        let shown = format!("{location}/{job}");
        let failed = |reason: String| StoreError::Failed { name: shown.clone(), reason };
        let (store, prefix, sends_again): (Arc<dyn ObjectStore>, _, _) = match location {
            StoreLocation::Directory(directory) => {
                let directory = directory.join(job);
                std::fs::create_dir_all(&directory).map_err(|error| failed(explain_io(&error)))?;
                let store = LocalFileSystem::new_with_prefix(&directory).map_err(|error| failed(explain(&error)))?;
                (Arc::new(store.with_fsync(true)), String::new(), false)
            }
            StoreLocation::S3 { bucket, prefix } => {
                let slash = if prefix.is_empty() { "" } else { "/" };
                (s3(bucket, options).map_err(failed)?, format!("{prefix}{slash}{job}/"), true)
            }
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        Ok(ObjectStorage { store, prefix, shown, sends_again, runtime: Some(runtime) })
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
        Path::parse(format!("{}{name}", self.prefix)).map_err(|error| self.failed(name, error.to_string()))
    }

    fn failed(&self, name: &str, reason: String) -> StoreError {
        StoreError::Failed { name: format!("{}/{name}", self.shown), reason }
    }

    /// Waits for a call; `Missing` and `Exists` are told apart from what else can fail.
    fn wait<T>(&self, name: &str, call: impl Future<Output = Result<T, object_store::Error>>) -> Result<T, StoreError> {
        let runtime = self.runtime.as_ref().expect("the runtime is there until the store is dropped");
        let answer = runtime.block_on(async { tokio::time::timeout(CALL_TIMEOUT, call).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(object_store::Error::NotFound { .. })) => Err(StoreError::Missing(name.to_owned())),
            Ok(Err(object_store::Error::AlreadyExists { .. })) => Err(StoreError::Exists(name.to_owned())),
            Ok(Err(error)) => Err(self.failed(name, explain(&error))),
            Err(_) => Err(self.failed(name, format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
        }
    }
}

impl Store for ObjectStorage {
    fn put_new(&self, name: &str, body: Vec<u8>) -> Result<(), StoreError> {
        let path = self.path(name)?;
        let body = PutPayload::from(body);
        let put = self.store.put_opts(&path, body.clone(), PutOptions::from(PutMode::Create));
        match self.wait(name, put) {
            // The answer to the first attempt was lost, and the next one met what it had written.
            Err(StoreError::Exists(_)) if self.sends_again && self.get(name)?.iter().eq(body.iter().flatten()) => {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.path(name)?;
        self.wait(name, async { self.store.get(&path).await?.bytes().await }).map(Vec::from)
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let path = self.path(prefix.trim_end_matches('/'))?;
        let found = match self.wait(prefix, self.store.list_with_delimiter(Some(&path))) {
            Err(StoreError::Missing(_)) => return Ok(Vec::new()),
            found => found?,
        };
        let plain = found.objects.into_iter().filter_map(|object| {
            let name = object.location.filename().filter(|name| is_plain(name))?;
            Some((format!("{prefix}{name}"), object.size))
        });
        let mut objects: Vec<_> = plain.collect();
        objects.sort_unstable();
        Ok(objects)
    }

    fn written_at(&self, name: &str) -> Result<Option<SystemTime>, StoreError> {
        let path = self.path(name)?;
        self.wait(name, self.store.head(&path)).map(|found| Some(found.last_modified.into()))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name)?;
        match self.wait(name, self.store.delete(&path)) {
            Err(StoreError::Missing(_)) => Ok(()),
            answer => answer,
        }
    }
}

impl Drop for ObjectStorage {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A file system that hangs must not keep the process from ending.
            runtime.shutdown_background();
        }
    }
}

#[cfg(feature = "s3")]
fn s3(bucket: &str, options: &Properties) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::{ClientOptions, RetryConfig};

    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(CALL_TIMEOUT)
        // Between two calls nobody watches the connections, so those that the other side may have closed are not used again.
        .with_pool_idle_timeout(Duration::from_secs(5));
    let retry = RetryConfig { max_retries: 5, retry_timeout: CALL_TIMEOUT / 2, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env().with_client_options(client).with_retry(retry);
    for (name, value) in options.iter() {
        let key: AmazonS3ConfigKey =
            name.parse().map_err(|_| format!("checkpoints.options has {name:?}, which is no option of S3"))?;
        builder = builder.with_config(key, value);
    }
    let store = builder.with_bucket_name(bucket).build().map_err(|error| explain(&error))?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "s3"))]
fn s3(_: &str, _: &Properties) -> Result<Arc<dyn ObjectStore>, String> {
    Err("this program was built without S3; build it with --features s3, or name a directory that all hosts share"
        .into())
}

/// The reason at the bottom of an error, in words that help.
fn explain(error: &object_store::Error) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>().filter(|error| error.raw_os_error().is_some()) {
            return explain_io(error);
        }
        cause = error.source();
    }
    // Answers of servers may be long, and have lines.
    let text: Vec<_> = error.to_string().split_whitespace().map(str::to_owned).collect();
    text.join(" ").chars().take(500).collect()
}

fn explain_io(error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => "the user of this process must be allowed to read and write there",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "it must be a directory, or not be there yet",
        io::ErrorKind::ReadOnlyFilesystem => "the store must be on a file system that can be written",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room, or keep fewer checkpoints",
        _ => return error.to_string(),
    };
    format!("{error}: {help}")
}

#[cfg(test)]
mod tests;
