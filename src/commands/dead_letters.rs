//! `clicktide dead-letters`: look at the records that did not count, and send them back after a fix.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::avro::wire::split;
use crate::avro::{Decoder, sanitised_event_json};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::kafka::dead_letters::{Letter, ReplaySettings, read_letters, replay_letters};
use crate::kafka::probe::reach;
use crate::source::{DeadLetterPayload, LATE};
use crate::validation::Reason;

/// What is done with the dead letters.
#[derive(Clone, Debug)]
pub enum DeadLetters {
    /// The last ones are listed, and all are counted by reason.
    List {
        /// Only those of this reason.
        reason: Option<String>,
        /// At most so many are listed, the last ones.
        limit: usize,
        /// As JSON, one a line.
        json: bool,
    },
    /// One is shown.
    Show {
        /// Where it stands.
        place: Place,
        /// Only its bytes, as they are.
        raw: bool,
    },
    /// Those of a reason that have not been sent back before are.
    Replay {
        /// The reason.
        reason: String,
        /// Only says what would be sent back.
        dry_run: bool,
        /// As JSON.
        json: bool,
    },
}

/// Where a dead letter stands in its topic: `PARTITION/OFFSET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl std::str::FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/');
        let place = numbers.and_then(|(partition, offset)| {
            Some(Place { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        let place = place.filter(|place| place.partition >= 0 && place.offset >= 0);
        place.ok_or("it must be PARTITION/OFFSET, as in 0/17, which `dead-letters list` shows")
    }
}

/// Does it, with the topics that the configuration names.
///
/// # Errors
/// When the topics can't be read or written, or there is no such letter.
pub fn dead_letters(what: DeadLetters, config: &Config) -> Result<(), Failure> {
    if let DeadLetters::List { reason: Some(reason), .. } | DeadLetters::Replay { reason, .. } = &what {
        let known: Vec<&str> = Reason::all().iter().map(Reason::label).chain([LATE]).collect();
        if !known.contains(&reason.as_str()) {
            let why = format!("--reason {reason}: there is no such reason; one of {} is", known.join(", "));
            return Err(Failure::new(Exit::Configuration, why));
        }
    }
    // First, as it can say best why nobody answers.
    reach(&config.connection(), Duration::from_secs(10)).map_err(|e| Failure::new(e.exit(), e))?;
    match what {
        DeadLetters::List { reason, limit, json } => list(reason.as_deref(), limit, json, config),
        DeadLetters::Show { place, raw } => show(place, raw, config),
        DeadLetters::Replay { reason, dry_run, json } => replay(reason, dry_run, json, config),
    }
}

fn list(reason: Option<&str>, limit: usize, json: bool, config: &Config) -> Result<(), Failure> {
    let topic = config.job_topics().dead_letters;
    let mut last: VecDeque<Letter> = VecDeque::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut each = |mut letter: Letter| {
        if reason.is_none_or(|reason| letter.reason == reason) {
            *counts.entry(letter.reason.clone()).or_default() += 1;
            letter.payload = Vec::new();
            last.push_back(letter);
            if last.len() > limit {
                last.pop_front();
            }
        }
        ControlFlow::Continue(())
    };
    let strange = read_letters(&config.connection(), &topic, &BTreeMap::new(), &mut each)
        .map_err(|e| Failure::new(e.exit(), e))?;
    for letter in &last {
        if json {
            println!("{}", serde_json::to_string(letter).map_err(|e| Failure::new(Exit::Failure, e))?);
        } else {
            println!("{}", line(letter));
        }
    }
    if !json {
        let listed = last.len();
        let counted: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let counted = if counted.is_empty() { "no dead letters".to_owned() } else { counted.join(", ") };
        println!("{counted}; the last {listed} are listed");
        if strange > 0 {
            println!("{strange} records of {topic} are no dead letters: their headers do not say where they came from");
        }
    }
    Ok(())
}

fn line(letter: &Letter) -> String {
    let Letter {
        partition,
        offset,
        timestamp_ms,
        reason,
        source_topic,
        source_partition,
        source_offset,
        kept,
        bytes,
        ..
    } = letter;
    let written = timestamp_ms.and_then(|ms| u64::try_from(ms).ok()).map_or_else(
        || "-".to_owned(),
        |ms| humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
    );
    let cut = letter.cut_from_bytes.map(|from| format!(" of {from}")).unwrap_or_default();
    let kept = match kept {
        DeadLetterPayload::Original => format!("{bytes}{cut} bytes"),
        DeadLetterPayload::Sanitised => format!("sanitised, {bytes} bytes"),
        DeadLetterPayload::Nothing => "nothing kept".to_owned(),
    };
    format!("{partition}/{offset}  {written}  {reason}  {source_topic}/{source_partition}/{source_offset}  {kept}")
}

fn show(place: Place, raw: bool, config: &Config) -> Result<(), Failure> {
    let topic = config.job_topics().dead_letters;
    let Place { partition, offset } = place;
    let mut found = None;
    let mut each = |letter: Letter| {
        found = Some(letter).filter(|letter| (letter.partition, letter.offset) == (partition, offset));
        ControlFlow::Break(())
    };
    let from = BTreeMap::from([(partition, offset)]);
    read_letters_of(config, &topic, partition, &from, &mut each)?;
    let Some(letter) = found else {
        return Err(Failure::new(Exit::Failure, format!("there is no dead letter at {partition}/{offset} of {topic}")));
    };
    if raw {
        return std::io::stdout().write_all(&letter.payload).map_err(|e| Failure::new(Exit::Failure, e));
    }
    println!("{}", line(&letter));
    match letter.kept {
        DeadLetterPayload::Nothing => println!("none of the record's bytes were kept"),
        DeadLetterPayload::Sanitised => match sanitised_event_json(&letter.payload) {
            Some(event) => println!("the sanitised event: {event:#}"),
            None => println!("no sanitised event of the published schema"),
        },
        DeadLetterPayload::Original => println!("{}", decoded(&letter.payload, config)),
    }
    println!("bytes: {}", letter.payload.escape_ascii());
    Ok(())
}

/// What a payload is as an event, or why it is none.
fn decoded(payload: &[u8], config: &Config) -> String {
    let (which, decoder, body) = match config.schema_registry.registry() {
        None => ("the published schema".to_owned(), Ok(Decoder::default()), payload),
        Some(registry) => {
            let Some((id, body)) = split(payload) else {
                return "not in the registry's wire format: it does not begin with 0 and the id of a schema".to_owned();
            };
            let schema = registry.schema(id).map_err(|error| error.to_string());
            let decoder = schema.and_then(|schema| schema.decoder());
            (format!("schema {id} of the registry"), decoder, body)
        }
    };
    match decoder.map(|decoder| decoder.decode(body).map(|event| format!("{event:#?}")).map_err(|e| e.to_string())) {
        Ok(Ok(event)) => format!("decoded by {which}: {event}"),
        Ok(Err(error)) | Err(error) => format!("by {which}: {error}"),
    }
}

/// The same as [`read_letters`] of one partition, the others being passed over.
fn read_letters_of(
    config: &Config,
    topic: &str,
    partition: i32,
    from: &BTreeMap<i32, i64>,
    each: &mut dyn FnMut(Letter) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let mut of_partition = |letter: Letter| {
        if letter.partition == partition { each(letter) } else { ControlFlow::Continue(()) }
    };
    let read = read_letters(&config.connection(), topic, from, &mut of_partition);
    read.map(drop).map_err(|e| Failure::new(e.exit(), e))
}

fn replay(reason: String, dry_run: bool, json: bool, config: &Config) -> Result<(), Failure> {
    let topics = config.job_topics();
    let settings = ReplaySettings {
        connection: config.connection(),
        job: config.job.name.clone(),
        letters: topics.dead_letters,
        events: topics.events,
        reason,
        dry_run,
    };
    let replayed = replay_letters(&settings).map_err(|e| Failure::new(e.exit(), e))?;
    if json {
        println!("{}", serde_json::to_string(&replayed).map_err(|e| Failure::new(Exit::Failure, e))?);
        return Ok(());
    }
    let ReplaySettings { reason, events, .. } = &settings;
    let sent = if dry_run { "would be sent back" } else { "sent back" };
    println!("{} {sent} to {events}: those of {reason:?} that were not before", replayed.sent);
    if replayed.not_whole > 0 {
        println!("{} stay where they are: not all of their bytes were kept as they came", replayed.not_whole);
    }
    if replayed.elsewhere > 0 {
        println!(
            "{} stay where they are: they came from another topic, or a partition that there is not",
            replayed.elsewhere
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |text: &str, expected: Option<(i32, i64)>| {
            let place = text.parse::<Place>().ok().map(|place| (place.partition, place.offset));
            assert_eq!(place, expected, "{text:?}");
        };
        check("0/17", Some((0, 17)));
        for wrong in ["", "17", "0/", "/1", "-1/3", "0/-3", "0/1/2", "a/b", "99999999999/1"] {
            check(wrong, None);
        }
    }

    #[test]
    fn lines() {
        let letter = Letter {
            partition: 0,
            offset: 17,
            timestamp_ms: Some(1_795_636_500_250),
            reason: "undecodable".into(),
            source_topic: "events".into(),
            source_partition: 3,
            source_offset: 99,
            cut_from_bytes: Some(2_000_000),
            kept: DeadLetterPayload::Original,
            bytes: 900_000,
            payload: Vec::new(),
        };
        assert_eq!(line(&letter), "0/17  2026-11-25T19:55:00.250Z  undecodable  events/3/99  900000 of 2000000 bytes");
        let sanitised = Letter { kept: DeadLetterPayload::Sanitised, bytes: 99, ..letter.clone() };
        assert!(line(&sanitised).ends_with("events/3/99  sanitised, 99 bytes"));
        let nothing = Letter { kept: DeadLetterPayload::Nothing, bytes: 0, ..letter.clone() };
        assert!(line(&nothing).ends_with("events/3/99  nothing kept"));
        assert!(line(&Letter { timestamp_ms: None, ..letter }).starts_with("0/17  -  undecodable"));
    }
}
