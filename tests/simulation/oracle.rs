//! What has to be committed, recomputed from the log.

use std::collections::BTreeMap;
use std::convert::Infallible;

use clicktide::audit::{Click, Comparison, Definition, Fate, IdleAdvance, Judged, Partition, expect_judged};
use clicktide::progress::{JobState, PartitionCut};
use clicktide::source::LATE;
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::testing::{TestEvent, TestJob};

use super::log::{Entry, World};
use super::plan::Plan;

/// Compares all that is committed with what has to be, no more and no less; returns the next tick to come, as far as is
/// known.
pub fn check(world: &World, plan: &Plan) -> Result<Option<i64>, String> {
    let output = &world.output;
    if let Some(violation) = &output.violation {
        return Err(violation.clone());
    }
    let Some(progress) = &output.progress else {
        let nothing = output.results.is_empty() && output.letters.is_empty() && output.sanitised.is_empty();
        return if nothing {
            Ok(Some(i64::MIN))
        } else {
            Err("something is committed without any progress".to_owned())
        };
    };
    let finished = progress.state == JobState::Finished;
    let through_ms = progress.committed_through.unwrap_or(i64::MIN);
    let is_final = |tick_ms: i64| finished || tick_ms <= through_ms;

    let mut comparison = Comparison::new(i64::MIN..=i64::MAX, 3);
    output.results.iter().for_each(|result| comparison.actual(result.clone()));
    let mut letters: BTreeMap<(i32, i64), Vec<&str>> = BTreeMap::new();
    for letter in &output.letters {
        letters.entry((letter.partition, letter.offset)).or_default().push(&letter.reason);
    }

    let inputs = inputs(world);
    let (results, judged) = recompute(world, plan, &inputs);
    let mut next: Option<i64> = None;
    let mut later = |tick_ms: i64| next = Some(next.map_or(tick_ms, |next: i64| next.min(tick_ms)));
    for result in &results {
        if is_final(result.window_end) {
            comparison.expected(result);
        } else {
            later(result.window_end);
        }
    }
    let begun = progress.committed_through.is_some() || finished;
    check_sanitised(world, &inputs, &judged, |tick| begun && is_final(tick.unwrap_or(i64::MIN)))?;
    for Judged { partition, offset, tick, fate } in judged {
        let reason = match fate {
            Fate::Rejected(reason) => reason.label(),
            Fate::Late if plan.late_to_dead_letters => LATE,
            Fate::Late | Fate::Counted | Fate::Copy => continue,
        };
        // One without a tick comes with the first windows.
        if !is_final(tick.unwrap_or(i64::MIN)) || !begun {
            later(tick.unwrap_or(i64::MIN));
            continue;
        }
        let key = (inputs[partition].0, offset);
        match letters.remove(&key).as_deref() {
            Some([published]) if *published == reason => {}
            other => return Err(format!("dead letter {key:?}, {reason} at {tick:?}: {other:?} published")),
        }
    }
    if let Some(letter) = letters.first_key_value() {
        return Err(format!("dead letter {letter:?} is not expected"));
    }
    let report = comparison.finish();
    if !report.agrees() {
        return Err(format!("through {:?}: {report:?}", progress.committed_through));
    }
    Ok(next)
}

/// Every valid event whose tick is final has gone out sanitised, once, and no other has.
fn check_sanitised(
    world: &World,
    inputs: &[(i32, Vec<&Entry>)],
    judged: &[Judged],
    is_final: impl Fn(Option<i64>) -> bool,
) -> Result<(), String> {
    let sanitised: BTreeMap<(i32, i64), &[u8]> = inputs
        .iter()
        .flat_map(|(partition, entries)| entries.iter().map(move |entry| (*partition, entry)))
        .filter_map(|(partition, entry)| Some(((partition, entry.offset), entry.sanitised.as_deref()?)))
        .collect();
    let valid = judged.iter().filter(|record| matches!(record.fate, Fate::Counted | Fate::Late));
    let due = valid.filter(|record| is_final(record.tick));
    let mut expected: Vec<&[u8]> = due.map(|record| sanitised[&(inputs[record.partition].0, record.offset)]).collect();
    let mut published: Vec<&[u8]> = world.output.sanitised.iter().map(|event| &*event.body).collect();
    expected.sort_unstable();
    published.sort_unstable();
    if expected == published {
        return Ok(());
    }
    Err(format!("{} sanitised events are published, not those {} that have to be", published.len(), expected.len()))
}

/// The partitions that the job knows, and what of them it reads.
fn inputs(world: &World) -> Vec<(i32, Vec<&Entry>)> {
    let cuts = world.output.progress.iter().flat_map(|progress| &progress.input);
    let entries = |cut: &PartitionCut| {
        let until = cut.until.unwrap_or(i64::MAX);
        let readable = world.input[cut.partition as usize].readable(cut.began);
        (cut.partition, readable.take_while(|entry| entry.offset < until).collect())
    };
    cuts.map(entries).collect()
}

/// All results, and what becomes of every record, by the audit's own arithmetic.
fn recompute(world: &World, plan: &Plan, inputs: &[(i32, Vec<&Entry>)]) -> (Vec<PageAnalytics>, Vec<Judged>) {
    let partitions = inputs.iter().map(|(partition, entries)| Partition {
        records: entries.iter().map(|entry| Ok::<_, Infallible>((entry.offset, entry.click.clone()))),
        idle_advances: world
            .output
            .idle_advances_ever
            .iter()
            .filter(|((of, _), _)| of == partition)
            .map(|((_, next_offset), floor_ms)| IdleAdvance { next_offset: *next_offset, floor_ms: *floor_ms })
            .collect(),
    });
    let definition =
        Definition { windows: plan.windows, bound_ms: plan.bound_ms, through_ms: None, history: plan.history };
    let (mut results, mut judged) = (Vec::new(), Vec::new());
    let Ok(_) =
        expect_judged(&definition, partitions.collect(), |result| results.push(result), |record| judged.push(record));
    (results, judged)
}

/// The dataflows' own oracle has to give the same as the audit, where it fits: without floors, and without clocks ahead.
pub fn check_by_definition(world: &World, plan: &Plan) -> Result<(), String> {
    if !plan.plain || !world.output.idle_advances_ever.is_empty() {
        return Ok(());
    }
    let inputs = inputs(world);
    let (results, _) = recompute(world, plan, &inputs);
    let event = |click: &Click| TestEvent {
        page: click.page_url.trim_start_matches("/page/").parse().expect("pages have numbers"),
        user: click.user_id.parse().expect("users have numbers"),
        session: click.session_id.parse().expect("sessions have numbers"),
        event_type: click.event_type,
        session_duration_s: click.session_duration_s,
        time_ms: click.time_ms,
    };
    let events =
        |entries: &Vec<&Entry>| entries.iter().filter_map(|entry| entry.click.as_ref().ok()).map(event).collect();
    let partitions: Vec<Vec<TestEvent>> = inputs.iter().map(|(_, entries)| events(entries)).collect();
    let expected = TestJob { windows: plan.windows, bound_ms: plan.bound_ms }.expected(&partitions);
    let differing = expected.iter().zip(&results).find(|(expected, actual)| expected != actual);
    if expected.len() != results.len() || differing.is_some() {
        return Err(format!("the oracles differ: {} and {} results, {differing:?}", expected.len(), results.len()));
    }
    Ok(())
}
