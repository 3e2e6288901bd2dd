//! Avro container files, as the bare bodies that Kafka would carry, so that files and topics share one path.
//!
//! The framing is read here, so that damage is named by its place, an empty block does not end the file, and one bad datum
//! costs one datum. Schema and codec are `apache_avro`'s; data are read by the [`Decoder`] of the file's schema.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::str::FromStr;

use apache_avro::{Codec, Schema};

use super::decoder::Decoder;
use super::input::Input;
use super::plan::{Extent, SchemaError};

/// The most bytes of a block as it stands in the file, and of the header's metadata.
const BLOCK_BYTES_MAX: u64 = 256 << 20;

/// Why a container file cannot be read.
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
    /// The file's schema is not one of events.
    #[error("the Avro container file holds no events that can be read: {0}")]
    Schema(#[from] SchemaError),
    /// The file is damaged; what follows is not read.
    #[error("the Avro container file is damaged in the block at byte {byte}: {problem}")]
    Damaged {
        /// What is wrong. It does not quote a datum, which may be personal.
        problem: String,
        /// Where the block begins.
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

/// The data of an Avro container file, as bare bodies of the file's own schema.
///
/// Holds one block.
pub struct ContainerReader<R> {
    file: Counted<R>,
    decoder: Decoder,
    /// How to find where a datum ends.
    extent: Extent,
    codec: Codec,
    sync_marker: [u8; 16],
    /// The current block, unpacked.
    block: Vec<u8>,
    /// Where in the file it begins.
    block_byte: u64,
    /// How far it was read.
    position: usize,
    /// How many data are left in it.
    data_left: i64,
    data_read: u64,
    finished: bool,
}

impl<R: Read> ContainerReader<R> {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// When `file` does not begin as a container file, its codec is none of null, deflate, snappy and zstandard, or its schema
    /// does not resolve into that of events.
    pub fn new(file: R) -> Result<Self, ContainerError> {
        let mut file = Counted { file: BufReader::new(file), byte: 0 };
        let header = Self::read_header(&mut file).map_err(|failure| match failure {
            Failure::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
                ContainerError::Io { source, byte: file.byte }
            }
            Failure::Io(_) => ContainerError::Header { problem: "it ends too early".into(), byte: file.byte },
            Failure::Damage(problem) => ContainerError::Header { problem, byte: file.byte },
        });
        let (writer_schema, codec, sync_marker) = header?;
        Ok(Self {
            decoder: Decoder::of(&writer_schema)?,
            extent: Extent::new(&writer_schema)?,
            codec,
            sync_marker,
            block: Vec::new(),
            block_byte: file.byte,
            file,
            position: 0,
            data_left: 0,
            data_read: 0,
            finished: false,
        })
    }

    /// What reads the file's data.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// How many bytes of the file were read: the header and whole blocks.
    pub fn bytes_read(&self) -> u64 {
        self.file.byte
    }

    /// The body of the next datum, which need not be an event that can be read; none at the end of the file.
    ///
    /// # Errors
    /// When the file is damaged or can't be read. Nothing follows.
    pub fn next_datum(&mut self) -> Option<Result<&[u8], ContainerError>> {
        if self.finished {
            return None;
        }
        match self.advance() {
            Ok(Some(place)) => Some(Ok(&self.block[place])),
            Ok(None) => {
                self.finished = true;
                None
            }
            Err(failure) => {
                self.finished = true;
                Some(Err(failure.in_block(self.block_byte, self.file.byte)))
            }
        }
    }

    /// Finds the next datum in its block.
    fn advance(&mut self) -> Result<Option<Range<usize>>, Failure> {
        while self.data_left == 0 {
            match self.block.len() - self.position {
                0 => {}
                left => return Err(damage(format!("{left} bytes follow its last event"))),
            }
            if !self.read_block()? {
                return Ok(None);
            }
        }
        let mut input = Input::new(&self.block[self.position..]);
        let ends = self.extent.skip(&mut input);
        ends.map_err(|problem| damage(format!("event {}: {problem}", self.data_read)))?;
        let datum = self.position..self.block.len() - input.remaining();
        self.position = datum.end;
        self.data_left -= 1;
        self.data_read += 1;
        Ok(Some(datum))
    }

    fn read_header(file: &mut Counted<R>) -> Result<(Schema, Codec, [u8; 16]), Failure> {
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
        Ok((schema, codec, file.array()?))
    }

    /// Reads the next block; false at the end of the file.
    fn read_block(&mut self) -> Result<bool, Failure> {
        self.block_byte = self.file.byte;
        if self.file.file.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let count = self.file.long()?;
        let mut block = self.file.bytes()?;
        if self.file.array()? != self.sync_marker {
            return Err(damage("its sync marker is not the file's"));
        }
        self.codec.decompress(&mut block).map_err(|_| damage("it cannot be decompressed"))?;
        (self.block, self.position) = (block, 0);
        self.data_left = count.max(0);
        Ok(true)
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
