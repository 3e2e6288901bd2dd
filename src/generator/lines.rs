//! Files of JSON Lines in place of a topic: each is a partition, for `clicktide replay`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::clock::Clock;
use super::form::Form;
use super::murmur2;
use super::send::{Admission, Deliveries, SendEvent};
use super::settings::EventKey;
use crate::event::ClickEvent;

/// Writes events to files, each to that of its key, with the clock's time as `record_timestamp`.
pub struct LinesSink<'a, C> {
    files: Vec<(PathBuf, BufWriter<File>)>,
    key: EventKey,
    clock: &'a C,
    line: Vec<u8>,
    deliveries: Deliveries,
}

/// A file can't be written.
#[derive(Debug, thiserror::Error)]
#[error("can't write {file}: {source}")]
pub struct LinesError {
    /// The file.
    pub file: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl<'a, C: Clock> LinesSink<'a, C> {
    /// Makes the files, of which there is at least one; what was in them is gone.
    ///
    /// # Errors
    /// When one can't be made.
    pub fn create(files: &[PathBuf], key: EventKey, clock: &'a C) -> Result<Self, LinesError> {
        let create = |file: &PathBuf| match File::create(file) {
            Ok(output) => Ok((file.clone(), BufWriter::new(output))),
            Err(source) => Err(LinesError { file: file.clone(), source }),
        };
        Ok(LinesSink {
            files: files.iter().map(create).collect::<Result<_, _>>()?,
            key,
            clock,
            line: Vec::new(),
            deliveries: Deliveries::default(),
        })
    }
}

impl<C: Clock> SendEvent for LinesSink<'_, C> {
    type Error = LinesError;

    fn send(&mut self, event: &ClickEvent, form: Form) -> Result<Admission, LinesError> {
        let key = self.key.of(event);
        let partition = murmur2::partition(key.as_bytes(), self.files.len() as u32) as usize;
        let now_ms = self.clock.origin_ms() + self.clock.now().as_millis() as i64;
        self.line.clear();
        form.write_json_line(event, now_ms, &mut self.line);
        let (file, output) = &mut self.files[partition];
        output.write_all(&self.line).map_err(|source| LinesError { file: file.clone(), source })?;
        self.deliveries.acknowledge(partition, Duration::ZERO);
        Ok(Admission::Accepted { bytes: self.line.len() })
    }

    fn partitions(&self) -> usize {
        self.files.len()
    }

    fn take_deliveries(&mut self) -> Deliveries {
        // Files that got nothing count too.
        let next = Deliveries { by_partition: vec![0; self.files.len()], ..Deliveries::default() };
        std::mem::replace(&mut self.deliveries, next)
    }

    fn flush(&mut self, _timeout: Duration) -> Result<(), LinesError> {
        for (file, output) in &mut self.files {
            output.flush().map_err(|source| LinesError { file: file.clone(), source })?;
        }
        Ok(())
    }
}
