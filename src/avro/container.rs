//! Avro container files, as the bare bodies that Kafka would carry, so that files and topics share one path.
//!
//! The framing is read here, so that damage is named by its place, an empty block does not end the file, and one bad datum
//! costs one datum. Schema, codec and resolution are `apache_avro`'s.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::str::FromStr;
use std::sync::LazyLock;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Codec, Schema};

use super::CLICK_EVENT_SCHEMA;
use super::input::Input;
use super::plan::{Plan, Skip, Step};

/// The most bytes of a block as it stands in the file, and of the header's metadata.
const BLOCK_BYTES_MAX: u64 = 256 << 20;

static OURS: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse_str(CLICK_EVENT_SCHEMA).expect("the published schema is a schema"));

/// Why a container file, or a datum in it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The file does not begin as a container of a known codec and a readable schema.
    #[error("not an Avro container file: {problem}, at byte {byte}")]
    Header {
        /// What is wrong.
        problem: String,
        /// How far the header was read.
        byte: u64,
    },
    /// The file is damaged; what follows is not read.
    #[error("the Avro container file is damaged in the block at byte {byte}: {problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
        /// Where the block begins.
        byte: u64,
    },
    /// One datum cannot be read as an event; those after it can.
    #[error("event {index} of the Avro container file, in the block at byte {byte}: {problem}")]
    Datum {
        /// What is wrong. It does not quote the datum, which may be personal.
        problem: &'static str,
        /// Which datum of the file, from 0.
        index: u64,
        /// Where its block begins.
        byte: u64,
    },
    /// Reading failed.
    #[error("reading the Avro container file at byte {byte}")]
    Io {
        /// What failed.
        source: io::Error,
        /// How far the file was read.
        byte: u64,
    },
}

impl ContainerError {
    /// That reading goes on with the next datum: a rejected event, not a failure.
    pub fn concerns_one_datum(&self) -> bool {
        matches!(self, Self::Datum { .. })
    }
}

/// The data of an Avro container file, each resolved into [`CLICK_EVENT_SCHEMA`] and given as its bare body.
///
/// Holds one block. After [`ContainerError::Datum`] it goes on with the next datum; any other error is its last item.
pub struct ContainerReader<R> {
    file: Counted<R>,
    writer_schema: Schema,
    /// How to find where a datum of the writer schema ends.
    extent: Plan,
    codec: Codec,
    sync_marker: [u8; 16],
    /// What is left of the current block.
    bodies: VecDeque<Result<Vec<u8>, ContainerError>>,
    data_read: u64,
    finished: bool,
}

impl<R: Read> ContainerReader<R> {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// When `file` does not begin as a container file, or its codec is none of null, deflate, snappy and zstandard.
    pub fn new(file: R) -> Result<Self, ContainerError> {
        let mut file = Counted { file: BufReader::new(file), byte: 0 };
        Self::read_header(&mut file)
            .map_err(|failure| match failure {
                Failure::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
                    ContainerError::Io { source, byte: file.byte }
                }
                Failure::Io(_) => ContainerError::Header { problem: "it ends too early".into(), byte: file.byte },
                Failure::Damage(problem) => ContainerError::Header { problem, byte: file.byte },
            })
            .map(|(writer_schema, extent, codec, sync_marker)| Self {
                file,
                writer_schema,
                extent,
                codec,
                sync_marker,
                bodies: VecDeque::new(),
                data_read: 0,
                finished: false,
            })
    }

    /// How many bytes of the file were read: the header and whole blocks.
    pub fn bytes_read(&self) -> u64 {
        self.file.byte
    }

    fn read_header(file: &mut Counted<R>) -> Result<(Schema, Plan, Codec, [u8; 16]), Failure> {
        if file.array()? != *b"Obj\x01" {
            return Err(damage("it does not begin with \"Obj\" and 1"));
        }
        let (mut schema, mut codec) = (None, Codec::Null);
        loop {
            let mut count = file.long()?;
            if count == 0 {
                break;
            }
            if count < 0 {
                file.long()?;
                count = count.checked_neg().ok_or_else(|| damage("a metadata count overflows"))?;
            }
            for _ in 0..count {
                let (key, value) = (file.bytes()?, file.bytes()?);
                match key.as_slice() {
                    b"avro.schema" => schema = Some(value),
                    b"avro.codec" => {
                        let name = String::from_utf8_lossy(&value);
                        codec = Codec::from_str(&name).map_err(|_| damage(format!("codec {name:?} is unknown")))?;
                    }
                    _ => {}
                }
            }
        }
        let schema = schema.ok_or_else(|| damage("it has no schema"))?;
        let schema = Schema::parse_str(&String::from_utf8_lossy(&schema)).map_err(damage)?;
        let extent = Plan::skip_all(&schema).map_err(damage)?;
        Ok((schema, extent, codec, file.array()?))
    }

    /// Reads the next block into `bodies`; false at the end of the file.
    fn read_block(&mut self) -> Result<bool, Failure> {
        let block_byte = self.file.byte;
        if self.file.file.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let count = self.file.long()?;
        let mut block = self.file.bytes()?;
        if self.file.array()? != self.sync_marker {
            return Err(damage("its sync marker is not the file's"));
        }
        self.codec.decompress(&mut block).map_err(|_| damage("it cannot be decompressed"))?;

        let reader = GenericDatumReader::builder(&self.writer_schema).build().map_err(damage)?;
        let writer = GenericDatumWriter::builder(&OURS).build().map_err(damage)?;
        let mut rest = block.as_slice();
        for _ in 0..count {
            let length = self.extent(rest).map_err(|problem| damage(format!("event {}: {problem}", self.data_read)))?;
            let (datum, after) = rest.split_at(length);
            rest = after;
            let body = body(&reader, &writer, datum);
            let (index, byte) = (self.data_read, block_byte);
            self.bodies.push_back(body.map_err(|problem| ContainerError::Datum { problem, index, byte }));
            self.data_read += 1;
        }
        match rest.len() {
            0 => Ok(true),
            left => Err(damage(format!("{left} bytes follow its last event"))),
        }
    }

    /// How many bytes the datum at the front of `bytes` takes, at least one.
    fn extent(&self, bytes: &[u8]) -> Result<usize, String> {
        let mut input = Input::new(bytes);
        for step in &self.extent.steps {
            let skip = if let Step::Skip(skip) = step { skip } else { &Skip::Nothing };
            self.extent.skip(skip, &mut input, 0).map_err(|error| error.to_string())?;
        }
        match bytes.len() - input.remaining() {
            0 => Err("it takes no bytes, so it is no event".to_owned()),
            length => Ok(length),
        }
    }
}

/// The bare body of our schema for one datum of the writer's.
fn body(
    reader: &GenericDatumReader<'_>,
    writer: &GenericDatumWriter<'_>,
    mut datum: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let value = reader.read_value(&mut datum).map_err(|_| "it does not decode with the file's schema")?;
    if !datum.is_empty() {
        return Err("it does not decode with the file's schema");
    }
    let value = value.resolve(&OURS).map_err(|_| "the file's schema does not resolve into the event's")?;
    writer.write_value_to_vec(value).map_err(|_| "it does not encode with the event's schema")
}

impl<R: Read> Iterator for ContainerReader<R> {
    type Item = Result<Vec<u8>, ContainerError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.bodies.is_empty() && !self.finished {
            let block_byte = self.file.byte;
            match self.read_block() {
                Ok(more) => self.finished = !more,
                Err(failure) => {
                    self.finished = true;
                    self.bodies.push_back(Err(failure.in_block(block_byte, self.file.byte)));
                }
            }
        }
        self.bodies.pop_front()
    }
}

/// What can go wrong before it is known where.
enum Failure {
    Io(io::Error),
    Damage(String),
}

impl Failure {
    fn in_block(self, block_byte: u64, byte: u64) -> ContainerError {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                ContainerError::Damaged { problem: "the file ends inside it".into(), byte: block_byte }
            }
            Self::Io(source) => ContainerError::Io { source, byte },
            Self::Damage(problem) => ContainerError::Damaged { problem, byte: block_byte },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn damage(problem: impl ToString) -> Failure {
    Failure::Damage(problem.to_string())
}

/// A file, and how far it was read.
struct Counted<R> {
    file: BufReader<R>,
    byte: u64,
}

impl<R: Read> Counted<R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.byte += N as u64;
        Ok(bytes)
    }

    fn long(&mut self) -> Result<i64, Failure> {
        let mut bytes = [0; 10];
        for length in 1..=bytes.len() {
            [bytes[length - 1]] = self.array()?;
            if bytes[length - 1] < 0x80 {
                return Input::new(&bytes[..length]).long().map_err(damage);
            }
        }
        Err(damage("a variable-length integer is longer than 64 bits"))
    }

    /// A length and as many bytes. Memory grows with what is read, not with what the length claims.
    fn bytes(&mut self) -> Result<Vec<u8>, Failure> {
        let length = self.long()?;
        let length = u64::try_from(length).ok().filter(|length| *length <= BLOCK_BYTES_MAX);
        let length = length.ok_or_else(|| damage(format!("a length is negative or above {BLOCK_BYTES_MAX}")))?;
        let mut bytes = Vec::new();
        self.file.by_ref().take(length).read_to_end(&mut bytes)?;
        self.byte += bytes.len() as u64;
        if bytes.len() as u64 != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(bytes)
    }
}
