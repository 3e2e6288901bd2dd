//! Codecs for the exchange of panes between processes.
//!
//! What it isolates: rows in memory → bytes → rows that are iterated. No sockets, no dataflow, warm caches, one thread. The
//! panes are of the row types that are exchanged, one pane a message. Encoding writes into a buffer that is there already,
//! after asking how long the message will be, as timely does; decoding ends when every field of every row has been added up,
//! for which columns need not be put together to rows again. A reader that keeps the rows pays for writing them on top.
//!
//! - bincode in timely: what is done today, through timely's own code. It measures the message by a pass over all rows before
//!   it writes them, where the compiler does not see that all are equally long, and reads them into a new `Vec`.
//! - bincode alone: the same bytes, without the pass that measures.
//! - columnar from rows: rows are copied into columns, which are sent. Columnar in columns: the columns were filled before
//!   (filing would push rows into columns in place of a `Vec`, which is not measured for either), so that encoding copies
//!   columns. Decoding is the same for both: a view of the bytes, checked in its structure, is iterated.
//! - abomonation: memory as it is, decoded in place.
//!
//! **abomonation is unsound (RUSTSEC-2021-0120).** It is here for comparison alone and must not be used for anything else:
//! it trusts every byte it is sent, and makes references that Rust's aliasing rules do not allow, which no caller can mend.
//! Rows with padding are left out, since it would read what was never initialised.
//!
//! The row types are mirrored by tuples, because neither columnar's nor abomonation's traits can be implemented for them from
//! here. A mirror must give the same bytes in bincode as its original, or nothing is measured.
//!
//! The codecs take turns within every repetition; what each decodes must equal what it encoded. Reported are medians of CPU
//! time, and ratios of them.

#[path = "harness.rs"]
mod harness;

use std::error::Error;
use std::fmt::Debug;
use std::hint::black_box;
use std::ops::{Deref, DerefMut};

use abomonation::Abomonation;
use clap::Parser;
use clicktide_dataflows::event::{Activity, EventType};
use clicktide_dataflows::pane::Pane;
use clicktide_dataflows::sessions::SessionEvent;
use clicktide_dataflows::time::Tick;
use clicktide_dataflows::visitors::PageEvent;
use columnar::bytes::{indexed, stash::Stash};
use columnar::{Borrow, Clear, Columnar, ContainerOf, Push, bytemuck};
use harness::{Report, ReportFiles, Spent, Table, median};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::bytes::arc::{Bytes, BytesMut};
use timely::dataflow::channels::ContainerBytes;

/// Codecs for the exchange of panes: rows in memory → bytes → rows that are iterated.
#[derive(Parser)]
struct Args {
    /// Rows per pane.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 16_384])]
    batches: Vec<usize>,
    /// Rows to encode and to decode, per codec and repetition.
    #[arg(long, default_value_t = 2_000_000)]
    rows: usize,
    /// Repetitions.
    #[arg(long, default_value_t = 9)]
    repetitions: usize,
    /// Seed of the generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    files: ReportFiles,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut report = Report::new("codec");
    report.setting("repetitions", args.repetitions);
    let mut table = Table::new(
        "CPU time; ratios to bincode in timely (times as fast; bytes per byte)",
        &["rows", "batch", "codec"],
        &[
            ("B/row", 1),
            ("encode, ns/row", 2),
            ("decode, ns/row", 2),
            ("encode", 2),
            ("decode", 2),
            ("both", 2),
            ("bytes", 2),
        ],
    );
    for batch in &args.batches {
        let mut random = ChaCha8Rng::seed_from_u64(args.seed);
        let enter = Tick(1_700_000_000_000);
        let activities: Vec<Activity> = (0..*batch).map(|_| activity(&mut random, enter)).collect();

        let page_events = activities.iter().map(PageEvent::of);
        compare::<PageEventRow>(&args, "page events", &pane(enter, page_events), &mut table)?;
        let session_events = activities.iter().map(SessionEvent::of);
        compare::<SessionEventRow>(&args, "session events", &pane(enter, session_events), &mut table)?;
    }
    report.table(table);
    report.finish(&args.files)
}

// --- Rows ---

/// An event. How its values are distributed matters to no codec here: all have fields of fixed width.
fn activity(random: &mut ChaCha8Rng, enter: Tick) -> Activity {
    let types = [EventType::View, EventType::Click, EventType::AddToCart, EventType::Purchase, EventType::Search];
    Activity {
        enter,
        leave: Tick(enter.0 + 300_000),
        page: random.random(),
        user: random.random(),
        session: random.random(),
        event_type: types[random.random_range(0..types.len())],
        session_duration_s: random.random_bool(0.5).then(|| random.random_range(0..2_700)),
        time_ms: enter.0 - random.random_range(0..10_000),
    }
}

fn pane<D>(enter: Tick, rows: impl Iterator<Item = D>) -> Pane<D> {
    Pane { enter, leave: Tick(enter.0 + 300_000), worker: 1, rows: rows.collect() }
}

/// A [`Pane`]: enter, leave, worker, rows.
type Mirror<T> = (i64, i64, u64, Vec<T>);

/// Page, user, event type.
type PageEventRow = (u64, u64, u32);
/// Session, page, time, duration, views, others.
type SessionEventRow = (u64, u64, i64, i32, u16, u16);

/// A row of a pane.
trait Row: Copy + Debug + PartialEq + Send + Columnar + Serialize + DeserializeOwned + Abomonation {
    /// Reads all that the row consists of.
    fn sum(&self) -> u64;
}

impl Row for PageEventRow {
    #[inline(always)]
    fn sum(&self) -> u64 {
        let (page, user, event_type) = *self;
        page.wrapping_add(user).wrapping_add(u64::from(event_type))
    }
}

impl Row for SessionEventRow {
    #[inline(always)]
    fn sum(&self) -> u64 {
        let (session, page, time_ms, duration_s, views, others) = *self;
        let rest = (duration_s as u64).wrapping_add(u64::from(views)).wrapping_add(u64::from(others));
        session.wrapping_add(page).wrapping_add(time_ms as u64).wrapping_add(rest)
    }
}

// --- Codecs ---

/// Bytes at an address that is a multiple of 8.
#[derive(Clone, Default)]
struct Words(Vec<u64>);

impl Words {
    /// Makes room for so many bytes, rounded up to words.
    fn resize(&mut self, bytes: usize) {
        self.0.resize(bytes.div_ceil(8), 0);
    }
}

impl Deref for Words {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// What is compared. A message is a `Vec` of panes.
trait Codec<T: Row> {
    const NAME: &'static str;
    /// What is sent.
    type Sent;
    /// What has arrived.
    type Received;
    /// What the rows are held in before they are sent; not measured.
    fn hold(panes: &[Mirror<T>]) -> Self::Sent;
    /// How bytes arrive; not measured.
    fn receive(bytes: Words) -> Self::Received;
    /// Writes a message.
    fn encode(sent: &mut Self::Sent, bytes: &mut Words);
    /// Reads a message: for every pane what it is filed under, then its rows.
    fn decode(received: &mut Self::Received, pane: impl FnMut(i64, i64, u64), row: impl FnMut(usize, T));
}

/// Hands out decoded panes.
fn each<'a, T: Row>(
    panes: impl IntoIterator<Item = &'a Mirror<T>>,
    mut pane: impl FnMut(i64, i64, u64),
    mut row: impl FnMut(usize, T),
) {
    for (index, (enter, leave, worker, rows)) in panes.into_iter().enumerate() {
        pane(*enter, *leave, *worker);
        rows.iter().for_each(|decoded| row(index, *decoded));
    }
}

struct BincodeInTimely;

impl<T: Row> Codec<T> for BincodeInTimely {
    const NAME: &'static str = "bincode in timely";
    type Sent = Vec<Mirror<T>>;
    type Received = Bytes;

    fn hold(panes: &[Mirror<T>]) -> Self::Sent {
        panes.to_vec()
    }

    fn receive(bytes: Words) -> Bytes {
        BytesMut::from(bytes).freeze()
    }

    fn encode(sent: &mut Self::Sent, bytes: &mut Words) {
        bytes.resize(sent.length_in_bytes());
        sent.into_bytes(&mut &mut bytes[..]);
    }

    fn decode(received: &mut Bytes, pane: impl FnMut(i64, i64, u64), row: impl FnMut(usize, T)) {
        let panes: Vec<Mirror<T>> = ContainerBytes::from_bytes(received.clone());
        each(&panes, pane, row);
    }
}

struct BincodeAlone;

impl<T: Row> Codec<T> for BincodeAlone {
    const NAME: &'static str = "bincode alone";
    /// Panes, and how long they will be.
    type Sent = (Vec<Mirror<T>>, usize);
    type Received = Words;

    fn hold(panes: &[Mirror<T>]) -> Self::Sent {
        let panes = panes.to_vec();
        let bytes = panes.length_in_bytes();
        (panes, bytes)
    }

    fn receive(bytes: Words) -> Words {
        bytes
    }

    fn encode((panes, length): &mut Self::Sent, bytes: &mut Words) {
        bytes.resize(*length);
        bincode::serialize_into(&mut bytes[..], panes).expect("there is room");
    }

    fn decode(received: &mut Words, pane: impl FnMut(i64, i64, u64), row: impl FnMut(usize, T)) {
        let panes: Vec<Mirror<T>> = bincode::deserialize(received).expect("it was encoded here");
        each(&panes, pane, row);
    }
}

struct ColumnarFromRows;

impl<T: Row> Codec<T> for ColumnarFromRows {
    const NAME: &'static str = "columnar from rows";
    /// Panes, and columns to fill again and again.
    type Sent = (Vec<Mirror<T>>, ContainerOf<Mirror<T>>);
    type Received = Words;

    fn hold(panes: &[Mirror<T>]) -> Self::Sent {
        (panes.to_vec(), Default::default())
    }

    fn receive(bytes: Words) -> Words {
        bytes
    }

    fn encode((panes, columns): &mut Self::Sent, bytes: &mut Words) {
        columns.clear();
        for pane in panes.iter() {
            columns.push(pane);
        }
        <ColumnarInColumns as Codec<T>>::encode(columns, bytes);
    }

    fn decode(received: &mut Words, pane: impl FnMut(i64, i64, u64), row: impl FnMut(usize, T)) {
        ColumnarInColumns::decode(received, pane, row);
    }
}

struct ColumnarInColumns;

impl<T: Row> Codec<T> for ColumnarInColumns {
    const NAME: &'static str = "columnar in columns";
    type Sent = ContainerOf<Mirror<T>>;
    type Received = Words;

    fn hold(panes: &[Mirror<T>]) -> Self::Sent {
        Mirror::as_columns(panes)
    }

    fn receive(bytes: Words) -> Words {
        bytes
    }

    fn encode(sent: &mut Self::Sent, bytes: &mut Words) {
        let columns = sent.borrow();
        bytes.resize(indexed::length_in_bytes(&columns));
        indexed::write(&mut &mut bytes[..], &columns).expect("there is room");
    }

    fn decode(received: &mut Words, mut pane: impl FnMut(i64, i64, u64), mut row: impl FnMut(usize, T)) {
        use columnar::{Index, Len};
        let stash: Stash<ContainerOf<Mirror<T>>, &[u8]> =
            Stash::try_from_bytes(&received[..]).expect("it was encoded here");
        let columns = stash.borrow();
        for index in 0..columns.len() {
            let (enter, leave, worker, rows) = columns.get(index);
            pane(*enter, *leave, *worker);
            rows.into_index_iter().for_each(|decoded| row(index, T::into_owned(decoded)));
        }
    }
}

struct InPlace;

impl InPlace {
    /// Whether memory holds nothing but fields: neither uninitialised bytes nor rows that need more than 8-byte alignment.
    fn suits<T: Row>(pane: &Mirror<T>) -> bool {
        let fields = pane.3.first().and_then(|row| bincode::serialized_size(row).ok());
        fields == Some(size_of::<T>() as u64) && align_of::<T>() <= 8 && size_of::<Mirror<T>>() == 6 * 8
    }
}

impl<T: Row> Codec<T> for InPlace {
    const NAME: &'static str = "abomonation";
    type Sent = Vec<Mirror<T>>;
    type Received = Words;

    fn hold(panes: &[Mirror<T>]) -> Self::Sent {
        assert!(panes.iter().all(InPlace::suits));
        panes.to_vec()
    }

    fn receive(bytes: Words) -> Words {
        bytes
    }

    fn encode(sent: &mut Self::Sent, bytes: &mut Words) {
        bytes.resize(abomonation::measure(sent));
        // SAFETY: what is read as bytes is the `Vec`, the panes and the rows. None has padding: `hold` has made sure that a
        // row is as large as its fields (bincode writes each at its width) and a pane as large as three words and a `Vec`,
        // and a `Vec` is three words.
        unsafe { abomonation::encode(sent, &mut &mut bytes[..]) }.expect("there is room");
    }

    fn decode(received: &mut Words, pane: impl FnMut(i64, i64, u64), row: impl FnMut(usize, T)) {
        // SAFETY: the bytes were written by `encode` in this process, for the same type. They start at a multiple of 8, as do
        // the panes and the rows in them, since all that precedes consists of words; nothing has a greater alignment. They
        // are borrowed exclusively while the panes are in use, which are never moved out nor dropped. What remains is not
        // for a caller to mend (RUSTSEC-2021-0120): abomonation makes a reference to a whole value from one to its first
        // byte, and for a while the value is a `Vec` that points nowhere.
        let decoded = unsafe { abomonation::decode::<Vec<Mirror<T>>>(received) };
        let (panes, rest) = decoded.expect("it was encoded here");
        assert!(rest.is_empty());
        each(panes, pane, row);
    }
}

// --- Measurement ---

/// What a codec took for every repetition, and made of the panes.
struct Taken {
    codec: &'static str,
    bytes: usize,
    encode_ns: Vec<f64>,
    decode_ns: Vec<f64>,
}

impl Taken {
    fn by<T: Row, C: Codec<T>>() -> Self {
        Taken { codec: C::NAME, bytes: 0, encode_ns: Vec::new(), decode_ns: Vec::new() }
    }

    /// Encodes and decodes the message so many times.
    fn repeat<T: Row, C: Codec<T>>(&mut self, panes: &[Mirror<T>], times: usize) -> Result<(), String> {
        let rows = panes.iter().map(|pane| pane.3.len()).sum::<usize>() * times;
        let mut sent = C::hold(panes);
        let mut bytes = Words::default();
        // The first is to make room.
        C::encode(&mut sent, &mut bytes);

        let (_, encoding) = Spent::by(|| {
            for _ in 0..times {
                C::encode(black_box(&mut sent), black_box(&mut bytes));
            }
        });
        self.encode_ns.push(encoding.cpu.as_nanos() as f64 / rows as f64);
        self.bytes = bytes.len();

        let mut received = C::receive(bytes);
        let mut decoded: Vec<Mirror<T>> = Vec::new();
        let mut decoded_rows = Vec::new();
        C::decode(
            &mut received,
            |enter, leave, worker| decoded.push((enter, leave, worker, Vec::new())),
            |index, row| decoded_rows.push((index, row)),
        );
        for (index, row) in decoded_rows {
            decoded[index].3.push(row);
        }
        if decoded != panes {
            return Err(format!("{}: what comes out is not what went in", C::NAME));
        }

        let (_, decoding) = Spent::by(|| {
            for _ in 0..times {
                let mut sum = 0u64;
                C::decode(
                    black_box(&mut received),
                    |enter, leave, worker| _ = black_box((enter, leave, worker)),
                    |_, row| sum = sum.wrapping_add(row.sum()),
                );
                black_box(sum);
            }
        });
        self.decode_ns.push(decoding.cpu.as_nanos() as f64 / rows as f64);
        Ok(())
    }
}

/// Measures all codecs on a pane, whose rows `T` mirrors.
fn compare<T: Row>(
    args: &Args,
    rows: &'static str,
    pane: &impl Serialize,
    table: &mut Table,
) -> Result<(), Box<dyn Error>> {
    let original = bincode::serialize(pane)?;
    let mirror: Mirror<T> = bincode::deserialize(&original)?;
    if bincode::serialize(&mirror)? != original {
        return Err(format!("{rows}: the mirror is not like its original").into());
    }
    let batch = mirror.3.len();
    let times = (args.rows / batch.max(1)).max(1);
    let suits = InPlace::suits(&mirror);
    let panes = [mirror];

    let mut timely = Taken::by::<T, BincodeInTimely>();
    let mut alone = Taken::by::<T, BincodeAlone>();
    let mut from_rows = Taken::by::<T, ColumnarFromRows>();
    let mut in_columns = Taken::by::<T, ColumnarInColumns>();
    let mut in_place = Taken::by::<T, InPlace>();
    for _ in 0..args.repetitions {
        timely.repeat::<T, BincodeInTimely>(&panes, times)?;
        alone.repeat::<T, BincodeAlone>(&panes, times)?;
        from_rows.repeat::<T, ColumnarFromRows>(&panes, times)?;
        in_columns.repeat::<T, ColumnarInColumns>(&panes, times)?;
        if suits {
            in_place.repeat::<T, InPlace>(&panes, times)?;
        }
    }

    let of = |ns: &[f64]| median(ns.iter().copied());
    let (encode_ns, decode_ns, bytes) = (of(&timely.encode_ns), of(&timely.decode_ns), timely.bytes as f64);
    for taken in [timely, alone, from_rows, in_columns, in_place].iter().filter(|taken| !taken.encode_ns.is_empty()) {
        let (encode, decode) = (of(&taken.encode_ns), of(&taken.decode_ns));
        table.row(
            [rows, &batch.to_string(), taken.codec],
            [
                taken.bytes as f64 / batch as f64,
                encode,
                decode,
                encode_ns / encode,
                decode_ns / decode,
                (encode_ns + decode_ns) / (encode + decode),
                taken.bytes as f64 / bytes,
            ],
        );
    }
    Ok(())
}
