//! The records of the progress topic: bare Avro bodies of the published schema, and the keys that compaction goes by.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::{Deserialize, Serialize};

use crate::progress::{IdleAdvance, Progress};

/// The published schema of the progress topic: a union of the two records of [`ProgressRecord`].
pub const PROGRESS_SCHEMA: &str = include_str!("../../config/schemas/progress.avsc");

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse_str(PROGRESS_SCHEMA).expect("the published schema is a schema"));

/// A record of the progress topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    let body = writer.and_then(|writer| writer.write_ser_to_vec(record));
    // The schema has the records' own fields and types; a test writes all of them.
    body.expect("the published schema takes every progress record")
}

/// Reads a bare body of [`PROGRESS_SCHEMA`], which must be `body` as a whole.
///
/// # Errors
/// When `body` is anything else.
pub fn decode_progress_record(mut body: &[u8]) -> Result<ProgressRecord, UndecodableProgress> {
    let reader = GenericDatumReader::builder(&SCHEMA).build();
    let record = reader.and_then(|reader| reader.read_deser(&mut body));
    let record = record.map_err(|error| UndecodableProgress(error.to_string()))?;
    match body.len() {
        0 => Ok(record),
        left => Err(UndecodableProgress(format!("{left} bytes follow its last value"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::progress::{JobState, PartitionCut};

    fn record() -> impl Strategy<Value = ProgressRecord> {
        let optional = || prop::option::of(any::<i64>());
        let cut = (any::<i32>(), any::<i64>(), any::<i64>(), any::<i64>(), optional(), optional(), optional());
        let cut = cut.prop_map(|(partition, began, position, replay_from, clock_ms, floor_ms, until)| PartitionCut {
            partition,
            began,
            position,
            replay_from,
            clock_ms,
            floor_ms,
            until,
        });
        let state = prop::sample::select(vec![JobState::Running, JobState::Finished]);
        let text = || prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter);
        let input = prop::collection::vec(cut, 0..20);
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
            prop_assert_eq!(decode_progress_record(&body), Ok(record));
            for end in 0..body.len() {
                prop_assert!(decode_progress_record(&body[..end]).is_err());
            }
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
        let cut = PartitionCut { replay_from: 1, floor_ms: Some(5), ..PartitionCut::start(0, 3, Some(4)) };
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
        ];
        assert_eq!(encode_progress_record(&ProgressRecord::Progress(progress)), expected.concat());
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
