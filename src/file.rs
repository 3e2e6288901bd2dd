//! Files as partitions of a log, and a file (or standard output) as a sink.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use crate::avro::{ContainerReader, sanitised_event_json};
use crate::committer::{CommitEpoch, CommitError, Epoch};
use crate::ingest::{Format, Record};
use crate::source::{LogEnd, ReadPartition, SourceError};
use crate::work::{Counted, Work};

/// A file as a partition: its events in order, a line or a datum per offset.
///
/// Whether it is packed with gzip, and its format, is told from its first bytes.
pub struct FilePartition {
    path: PathBuf,
    partition: i32,
    position: i64,
    exhausted: bool,
    content: Content,
}

enum Content {
    Lines { input: Box<dyn BufRead>, line: Vec<u8> },
    Container(Box<ContainerReader<Box<dyn BufRead>>>),
}

/// A longer line is read over and rejected.
const LINE_BYTES_MAX: u64 = 16 << 20;

impl FilePartition {
    /// Opens the file that is partition `partition`.
    ///
    /// # Errors
    /// When it can't be opened, or is neither text nor a container file that can be read.
    pub fn open(path: &Path, partition: i32) -> Result<Self, SourceError> {
        FilePartition::open_for(path, partition, Arc::default())
    }

    /// The same as part of `work`, which is expected to be the file's size in bytes.
    ///
    /// # Errors
    /// As [`FilePartition::open`].
    pub fn open_for(path: &Path, partition: i32, work: Arc<Work>) -> Result<Self, SourceError> {
        let error = |reason: String| SourceError { log: path.display().to_string(), partition, position: 0, reason };
        let mut input = unpacked(path, work).map_err(|e| error(e.to_string()))?;
        let content = if is_container(&mut input).map_err(|e| error(e.to_string()))? {
            Content::Container(Box::new(ContainerReader::new(input).map_err(|e| error(e.to_string()))?))
        } else {
            Content::Lines { input, line: Vec::new() }
        };
        Ok(FilePartition { path: path.to_owned(), partition, position: 0, exhausted: false, content })
    }

    /// How its events are written.
    pub fn format(&self) -> Format {
        match &self.content {
            Content::Lines { .. } => Format::JsonLines,
            Content::Container(container) => Format::Avro(container.decoder().clone()),
        }
    }

    fn error(&self, reason: impl ToString) -> SourceError {
        SourceError {
            log: self.path.display().to_string(),
            partition: self.partition,
            position: self.position,
            reason: reason.to_string(),
        }
    }
}

fn unpacked(path: &Path, work: Arc<Work>) -> io::Result<Box<dyn BufRead>> {
    let mut file = File::open(path)?;
    work.expect(file.metadata()?.len());
    let mut magic = [0; 2];
    let packed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.rewind()?;
    let file = Counted::new(file, work);
    Ok(if packed { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(BufReader::new(file)) })
}

fn is_container(input: &mut dyn BufRead) -> io::Result<bool> {
    Ok(input.fill_buf()?.starts_with(b"Obj\x01"))
}

/// Reads a line without its end into `line`; returns false at the end of the input. A line that is too long comes out
/// empty, which no event is.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if input.take(LINE_BYTES_MAX).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == LINE_BYTES_MAX {
        input.skip_until(b'\n')?;
        line.clear();
        line.push(b'\0');
    }
    Ok(true)
}

impl ReadPartition for FilePartition {
    fn read(&mut self, limit: usize, each: &mut dyn FnMut(&Record<'_>)) -> Result<(), SourceError> {
        for _ in 0..limit {
            let payload: &[u8] = match &mut self.content {
                Content::Lines { input, line } => match read_line(input, line) {
                    Ok(true) if line.trim_ascii().is_empty() => {
                        self.position += 1;
                        continue;
                    }
                    Ok(true) => line,
                    Ok(false) => {
                        self.exhausted = true;
                        return Ok(());
                    }
                    Err(e) => return Err(self.error(e)),
                },
                Content::Container(container) => match container.next_datum() {
                    Some(Ok(datum)) => datum,
                    Some(Err(e)) => return Err(self.error(e)),
                    None => {
                        self.exhausted = true;
                        return Ok(());
                    }
                },
            };
            each(&Record { offset: self.position, record_timestamp_ms: None, payload });
            self.position += 1;
        }
        Ok(())
    }

    fn position(&self) -> i64 {
        self.position
    }

    fn end(&self) -> Option<LogEnd> {
        None
    }

    fn exhausted(&self) -> bool {
        self.exhausted
    }
}

/// Writes results as JSON Lines, with the field names of the results' schema and times as integer milliseconds, ordered by
/// window end and page.
pub struct JsonLinesSink<W> {
    output: W,
    name: String,
    /// Where sanitised events go, and its name.
    sanitised: Option<(W, String)>,
}

impl<W: Write + Send> JsonLinesSink<W> {
    /// Writes to `output`, which errors call `name`.
    pub fn new(output: W, name: impl Into<String>) -> Self {
        JsonLinesSink { output, name: name.into(), sanitised: None }
    }

    /// Writes sanitised events too, to `output`, with the field names of their schema, in the order of their ticks.
    pub fn with_sanitised(self, output: W, name: impl Into<String>) -> Self {
        JsonLinesSink { sanitised: Some((output, name.into())), ..self }
    }
}

impl<W: Write + Send> CommitEpoch for JsonLinesSink<W> {
    /// Not at once: a reader may see part of an epoch while it is written.
    fn commit(&mut self, epoch: &Epoch) -> Result<(), CommitError> {
        let failed = |e: io::Error| CommitError::Failed(format!("can't write {}: {e}", self.name));
        for window in &epoch.windows {
            let mut results: Vec<_> = window.results.iter().collect();
            results.sort_by(|a, b| a.page_url.cmp(&b.page_url));
            for result in results {
                serde_json::to_writer(&mut self.output, result).map_err(|e| failed(e.into()))?;
                self.output.write_all(b"\n").map_err(failed)?;
            }
        }
        self.output.flush().map_err(failed)?;
        let Some((output, name)) = &mut self.sanitised else { return Ok(()) };
        let failed = |e: io::Error| CommitError::Failed(format!("can't write {name}: {e}"));
        for event in epoch.sanitised.iter().filter_map(|event| sanitised_event_json(&event.body)) {
            serde_json::to_writer(&mut *output, &event).map_err(|e| failed(e.into()))?;
            output.write_all(b"\n").map_err(failed)?;
        }
        output.flush().map_err(failed)
    }
}
