//! The records of the progress topic: bare Avro bodies of the published schema, and the keys that compaction goes by.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Deserialize, Serialize};

use crate::progress::{IdleAdvance, JobState, PartitionCut, Progress};

/// The published schema of the progress topic: a union of the two records of [`ProgressRecord`].
pub const PROGRESS_SCHEMA: &str = include_str!("../../config/schemas/progress.avsc");

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse_str(PROGRESS_SCHEMA).expect("the published schema is a schema"));

/// The schema as it was published first, without what has been added since: a body of it ends where what was added begins.
static FIRST_SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let mut schema: serde_json::Value = serde_json::from_str(PROGRESS_SCHEMA).expect("the published schema is JSON");
    let fields = schema.pointer_mut("/0/fields").and_then(serde_json::Value::as_array_mut);
    fields.expect("a progress has fields").retain(|field| field["name"] != "history");
    Schema::parse(&schema).expect("a schema without one of its fields is a schema")
});

/// A record of the progress topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgressRecord {
    /// How far the job has come.
    Progress(Progress),
    /// A floor that idleness has set in one partition.
    IdleAdvance(IdleAdvance),
}

impl ProgressRecord {
    /// The record's key. The topic is compacted: the last record of a key holds, and the earlier ones go.
    ///
    /// There is one progress, and one floor per partition and offset; a later floor for an offset is a greater one.
    ///
    /// ```
    /// use clicktide::avro::ProgressRecord;
    /// use clicktide::progress::IdleAdvance;
    ///
    /// let record = ProgressRecord::IdleAdvance(IdleAdvance { partition: 3, next_offset: 17, floor_ms: 60_000 });
    /// assert_eq!(record.key(), "idle/3/17");
    /// ```
    pub fn key(&self) -> String {
        match self {
            Self::Progress(_) => "progress".to_owned(),
            Self::IdleAdvance(IdleAdvance { partition, next_offset, .. }) => format!("idle/{partition}/{next_offset}"),
        }
    }
}

/// Why bytes are not a record of the progress topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a progress record: {0}")]
pub struct UndecodableProgress(String);

/// `record` as a bare body of [`PROGRESS_SCHEMA`].
pub fn encode_progress_record(record: &ProgressRecord) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(&SCHEMA).build();
    let body = writer.and_then(|writer| writer.write_ser_to_vec(&Body::from(record.clone())));
    // The schema has the body's own fields and types; a test writes all of them.
    body.expect("the published schema takes every progress record")
}

/// Reads a bare body of [`PROGRESS_SCHEMA`], or of its first version, which must be `body` as a whole.
///
/// # Errors
/// When `body` is anything else.
pub fn decode_progress_record(body: &[u8]) -> Result<ProgressRecord, UndecodableProgress> {
    // A body of the one is none of the other: what was added stands at the end.
    decode(&SCHEMA, body).or_else(|error| decode(&FIRST_SCHEMA, body).map_err(|_| error))
}

fn decode(schema: &Schema, mut body: &[u8]) -> Result<ProgressRecord, UndecodableProgress> {
    let reader = GenericDatumReader::builder(schema).build();
    let record = reader.and_then(|reader| reader.read_deser::<Body>(&mut body));
    let record = record.map_err(|error| UndecodableProgress(error.to_string()))?;
    match body.len() {
        0 => Ok(record.into()),
        left => Err(UndecodableProgress(format!("{left} bytes follow its last value"))),
    }
}

/// A record as the schema has it: what was added to the parts of a progress stands behind all of it.
#[derive(Serialize, Deserialize)]
enum Body {
    Progress(ProgressBody),
    IdleAdvance(IdleAdvance),
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Progress")]
struct ProgressBody {
    job: String,
    generation: i64,
    committed_through: Option<i64>,
    began_after: Option<i64>,
    state: JobState,
    configuration: String,
    topic_id: Option<String>,
    input: Vec<CutBody>,
    #[serde(default)]
    history: Vec<HistoryBody>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "PartitionCut")]
struct CutBody {
    partition: i32,
    began: i64,
    position: i64,
    replay_from: i64,
    clock: Option<i64>,
    floor: Option<i64>,
    until: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "PartitionHistory")]
struct HistoryBody {
    partition: i32,
    offset: i64,
}

impl From<ProgressRecord> for Body {
    fn from(record: ProgressRecord) -> Self {
        let progress = match record {
            ProgressRecord::IdleAdvance(advance) => return Body::IdleAdvance(advance),
            ProgressRecord::Progress(progress) => progress,
        };
        let Progress { job, generation, committed_through, began_after, state, configuration, topic_id, input } =
            progress;
        let history =
            |cut: &PartitionCut| cut.history_from.map(|offset| HistoryBody { partition: cut.partition, offset });
        let history = input.iter().filter_map(history).collect();
        let cut = |cut: PartitionCut| {
            let PartitionCut { partition, began, position, replay_from, clock_ms, floor_ms, until, .. } = cut;
            CutBody { partition, began, position, replay_from, clock: clock_ms, floor: floor_ms, until }
        };
        let input = input.into_iter().map(cut).collect();
        Body::Progress(ProgressBody {
            job,
            generation,
            committed_through,
            began_after,
            state,
            configuration,
            topic_id,
            input,
            history,
        })
    }
}

impl From<Body> for ProgressRecord {
    fn from(body: Body) -> Self {
        let body = match body {
            Body::IdleAdvance(advance) => return ProgressRecord::IdleAdvance(advance),
            Body::Progress(body) => body,
        };
        let ProgressBody { job, generation, committed_through, began_after, state, configuration, topic_id, .. } = body;
        let history: BTreeMap<i32, i64> =
            body.history.iter().map(|history| (history.partition, history.offset)).collect();
        let cut = |cut: CutBody| {
            let CutBody { partition, began, position, replay_from, clock: clock_ms, floor: floor_ms, until } = cut;
            let history_from = history.get(&partition).copied();
            PartitionCut { partition, began, position, replay_from, clock_ms, floor_ms, until, history_from }
        };
        let input = body.input.into_iter().map(cut).collect();
        ProgressRecord::Progress(Progress {
            job,
            generation,
            committed_through,
            began_after,
            state,
            configuration,
            topic_id,
            input,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = ProgressRecord> {
        let optional = || prop::option::of(any::<i64>());
        let clock = (optional(), optional());
        let cut = (any::<i64>(), any::<i64>(), any::<i64>(), clock, optional(), optional());
        let cut = cut.prop_map(|(began, position, replay_from, (clock_ms, floor_ms), until, history_from)| {
            PartitionCut { partition: 0, began, position, replay_from, clock_ms, floor_ms, until, history_from }
        });
        let state = prop::sample::select(vec![JobState::Running, JobState::Finished]);
        let text = || prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter);
        // No partition is there twice.
        let numbered = |cuts: Vec<PartitionCut>| {
            let numbered = cuts.into_iter().zip(-2..).map(|(cut, partition)| PartitionCut { partition, ..cut });
            numbered.collect::<Vec<_>>()
        };
        let input = prop::collection::vec(cut, 0..20).prop_map(numbered);
        let progress = (text(), any::<i64>(), optional(), optional(), state, text(), prop::option::of(text()), input);
        let progress = progress.prop_map(
            |(job, generation, committed_through, began_after, state, configuration, topic_id, input)| {
                ProgressRecord::Progress(Progress {
                    job,
                    generation,
                    committed_through,
                    began_after,
                    state,
                    configuration,
                    topic_id,
                    input,
                })
            },
        );
        let idle_advance = any::<(i32, i64, i64)>().prop_map(|(partition, next_offset, floor_ms)| {
            ProgressRecord::IdleAdvance(IdleAdvance { partition, next_offset, floor_ms })
        });
        prop_oneof![progress, idle_advance]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in record()) {
            let body = encode_progress_record(&record);
            let first = |record: &ProgressRecord| match record.clone() {
                ProgressRecord::Progress(mut progress) => {
                    progress.input.iter_mut().for_each(|cut| cut.history_from = None);
                    ProgressRecord::Progress(progress)
                }
                advance => advance,
            };
            // Cut off before what was added, it is a body of the first version.
            for end in 0..body.len() {
                prop_assert!(decode_progress_record(&body[..end]).map_or(true, |read| read == first(&record)));
            }
            prop_assert_eq!(decode_progress_record(&body), Ok(record));
            prop_assert!(decode_progress_record(&[&body[..], &[0]].concat()).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_read(body in prop::collection::vec(any::<u8>(), 0..60)) {
            decode_progress_record(&body).ok();
        }
    }

    /// What is on the wire does not change unnoticed.
    #[test]
    fn bytes() {
        let idle_advance = IdleAdvance { partition: 2, next_offset: -3, floor_ms: 64 };
        assert_eq!(encode_progress_record(&ProgressRecord::IdleAdvance(idle_advance)), [2, 4, 5, 128, 1]);
        let cut = PartitionCut {
            replay_from: 1,
            floor_ms: Some(5),
            history_from: Some(-1),
            ..PartitionCut::start(0, 3, Some(4))
        };
        let progress = Progress {
            job: "j".to_owned(),
            generation: 1,
            committed_through: Some(10),
            began_after: None,
            state: JobState::Finished,
            configuration: "{}".to_owned(),
            topic_id: None,
            input: vec![cut],
        };
        let expected = [
            &[0, 2, b'j', 2, 2, 20, 0, 2, 4, b'{', b'}', 0][..],
            // An array's block may come with its bytes counted; ours does not.
            &[2, 0, 6, 6, 2, 0, 2, 10, 2, 8, 0],
            // What came with the second version.
            &[2, 0, 1, 0],
        ];
        assert_eq!(encode_progress_record(&ProgressRecord::Progress(progress.clone())), expected.concat());
        let progress = Progress { input: vec![PartitionCut { history_from: None, ..cut }], ..progress };
        assert_eq!(decode_progress_record(&expected[..2].concat()), Ok(ProgressRecord::Progress(progress)));
    }

    #[test]
    fn keys() {
        let progress = Progress {
            job: "j".to_owned(),
            generation: 1,
            committed_through: None,
            began_after: None,
            state: JobState::Running,
            configuration: String::new(),
            topic_id: None,
            input: Vec::new(),
        };
        assert_eq!(ProgressRecord::Progress(progress).key(), "progress");
    }
}
