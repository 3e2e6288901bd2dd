//! The writer schemas of the records, each fetched once and resolved into ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::known::Known;
use super::{Publication, Registry, RegistryError, Subject};
use crate::avro::wire::{SchemaId, split};
use crate::event::{DecodedEvent, EventDetails};

/// Called when a schema has become known, or it has become known that there is none.
type Wake = Box<dyn Fn() + Send + Sync>;

/// The schemas of a registry, as far as they are needed: shared by all sources of a process.
pub struct Schemas {
    registry: Registry,
    known: Known,
    asked: Mutex<Asked>,
    /// Told whenever something of `asked` has changed.
    changed: Condvar,
    wakes: Mutex<Vec<Wake>>,
}

#[derive(Default)]
struct Asked {
    /// The schemas that are not known.
    unknown: BTreeMap<SchemaId, Unknown>,
    /// Whether there is a thread that asks.
    asking: bool,
    /// How many are known.
    known: usize,
    /// What a start waits for, and why.
    starting: Option<(String, Option<String>)>,
}

enum Unknown {
    /// It is waited for.
    Wanted {
        /// When it is asked for (again).
        due: Instant,
        /// How often it could not be had.
        failures: u32,
        /// Why not, the last time.
        reason: Option<String>,
    },
    /// The registry has said that there is none, which is believed until then.
    Missing { until: Instant },
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas").field("registry", self.registry.settings()).finish_non_exhaustive()
    }
}

impl Schemas {
    /// The schemas of a registry, of which none is known yet.
    pub fn new(registry: Registry) -> Schemas {
        metrics::gauge!(crate::metrics::SCHEMAS).set(0.0);
        Schemas {
            registry,
            known: Known::default(),
            asked: Mutex::default(),
            changed: Condvar::new(),
            wakes: Mutex::default(),
        }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The event of a payload in the wire format. None if it is not in that format, its schema is not known or does not resolve into
    /// ours, or its body can't be read by it.
    ///
    /// Costs a look-up by the id, without a lock, beside the decoding.
    #[inline]
    pub fn decode<'a>(&self, payload: &'a [u8]) -> Option<DecodedEvent<'a>> {
        let (id, body) = split(payload)?;
        self.known.get(id)??.decode(body).ok()
    }

    /// What only the sanitiser needs of the event that [`Schemas::decode`] reads in a payload.
    pub fn details<'a>(&self, payload: &'a [u8]) -> Option<EventDetails<'a>> {
        let (id, body) = split(payload)?;
        self.known.get(id)??.details(body).ok()
    }

    /// The id of the schema that has to be known before anything can be said of a payload; it is asked for. None if all that is
    /// needed is known: [`Schemas::decode`] then has the last word.
    #[inline]
    pub fn awaited(self: &Arc<Self>, payload: &[u8]) -> Option<SchemaId> {
        let (id, _) = split(payload)?;
        if self.known.get(id).is_some() { None } else { self.want(id).then_some(id) }
    }

    /// Waits until everything is known that is needed for a payload. For commands, which have nothing else to do meanwhile.
    pub fn wait_for(self: &Arc<Self>, payload: &[u8]) {
        while let Some(id) = self.awaited(payload) {
            let wanted = |asked: &mut Asked| matches!(asked.unknown.get(&id), Some(Unknown::Wanted { .. }));
            drop(self.changed.wait_while(self.lock(), wanted).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Has `wake` called, from any thread, when something that was waited for has been decided.
    pub fn on_news(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake));
    }

    /// What is waited for, in a line each.
    pub fn waits(&self) -> Vec<String> {
        let urls = &self.registry.settings().urls;
        let line = |what: &str, reason: Option<&String>| {
            format!("waits for {what} from the schema registry at {urls}: {}", reason.map_or("asked", String::as_str))
        };
        let asked = self.lock();
        let starting = asked.starting.iter().map(|(what, reason)| line(what, reason.as_ref()));
        let wanted = asked.unknown.iter().filter_map(|(id, unknown)| match unknown {
            Unknown::Wanted { reason, .. } => Some(line(&format!("schema {id}"), reason.as_ref())),
            Unknown::Missing { .. } => None,
        });
        starting.chain(wanted).collect()
    }

    /// The id of one of our own schemas, for a start: asks until the registry answers, and says why it waits.
    ///
    /// # Errors
    /// When the registry refuses, or can't be asked at all.
    pub fn id_of(&self, publication: Publication, subject: &Subject) -> Result<SchemaId, RegistryError> {
        let what = format!("the id of the schema of subject {:?}", subject.name);
        self.lock().starting = Some((what.clone(), None));
        let mut failures = 0;
        let id = loop {
            match publication.id(&self.registry, subject) {
                Err(RegistryError::Unavailable(reason)) => {
                    tracing::warn!(subject = subject.name, error = reason, "the start waits for the schema registry");
                    self.lock().starting = Some((what.clone(), Some(reason)));
                    std::thread::sleep(self.pause(failures));
                    failures += 1;
                }
                answered => break answered,
            }
        };
        self.lock().starting = None;
        id.inspect(|id| tracing::info!(subject = subject.name, schema = id.0, "the schema has its id"))
    }

    /// Has a schema asked for; returns whether it is waited for.
    #[cold]
    fn want(self: &Arc<Self>, id: SchemaId) -> bool {
        let now = Instant::now();
        let mut asked = self.lock();
        match asked.unknown.get(&id) {
            Some(Unknown::Wanted { .. }) if asked.asking => return true,
            Some(Unknown::Missing { until }) if now < *until => return false,
            // It may have become known since it was looked at.
            None if self.known.get(id).is_some() => return false,
            _ => {}
        }
        asked.unknown.retain(|_, unknown| !matches!(unknown, Unknown::Missing { until } if *until <= now));
        asked.unknown.entry(id).or_insert(Unknown::Wanted { due: now, failures: 0, reason: None });
        if !asked.asking {
            let schemas = Arc::clone(self);
            let started = std::thread::Builder::new().name("schema-registry".into()).spawn(move || schemas.ask());
            match started {
                Ok(_) => asked.asking = true,
                Err(error) => tracing::error!(%error, "no thread can be started to ask the schema registry"),
            }
        }
        drop(asked);
        self.changed.notify_all();
        true
    }

    /// Asks for what is wanted until nothing is.
    fn ask(&self) {
        loop {
            let mut asked = self.lock();
            let due = |(id, unknown): (&SchemaId, &Unknown)| match unknown {
                Unknown::Wanted { due, .. } => Some((*due, *id)),
                Unknown::Missing { .. } => None,
            };
            let Some((due, id)) = asked.unknown.iter().filter_map(due).min() else {
                asked.asking = false;
                return;
            };
            let pause = due.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                drop(self.changed.wait_timeout(asked, pause).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            drop(asked);
            self.fetch(id);
            self.changed.notify_all();
        }
    }

    /// Asks for a schema once.
    fn fetch(&self, id: SchemaId) {
        let urls = self.registry.settings().urls.to_string();
        let schema = match self.registry.schema(id) {
            Ok(schema) => schema,
            Err(RegistryError::Missing { url, reason }) => {
                tracing::warn!(schema = id.0, url, reason, "no such schema: records that name it are undecodable");
                let until = Instant::now() + self.registry.settings().negative_answers_kept;
                self.lock().unknown.insert(id, Unknown::Missing { until });
                return self.wake();
            }
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(schema = id.0, registry = urls, error, "partitions wait for a schema");
                if let Some(Unknown::Wanted { due, failures, reason }) = self.lock().unknown.get_mut(&id) {
                    *due = Instant::now() + self.pause(*failures);
                    *failures += 1;
                    *reason = Some(error);
                }
                return;
            }
        };
        let decoder = schema.decoder();
        match &decoder {
            Ok(_) => tracing::info!(schema = id.0, "a schema is known"),
            Err(error) => tracing::warn!(schema = id.0, error, "records of this schema are undecodable"),
        }
        self.known.add(id, decoder.ok());
        let mut asked = self.lock();
        asked.unknown.remove(&id);
        asked.known += 1;
        metrics::gauge!(crate::metrics::SCHEMAS).set(asked.known as f64);
        drop(asked);
        self.wake();
    }

    /// How long to wait after so many failures: twice as long each time up to the limit, less up to a half at random, so that
    /// processes that failed together do not all come back together.
    fn pause(&self, failures: u32) -> Duration {
        let (first, most) = self.registry.settings().retry;
        let pause = first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(most);
        pause.mul_f64(1.0 - rand::random::<f64>() / 2.0)
    }

    fn wake(&self) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|wake| wake());
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        // What is behind this lock is right whatever happened to another holder.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
