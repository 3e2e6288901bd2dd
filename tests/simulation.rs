//! The whole job on a log in memory, with a clock that only the schedule moves: one seed is one schedule of arrivals, idle
//! spells, stalls, crashes at every step of a commit and restarts with other numbers of workers.
//!
//! ```text
//!  seed ─▶ plan: windows, partitions, how things go wrong
//!       └▶ run: step after step ─┬▶ a worker takes turns      (it has the baton, all others wait)
//!                                ├▶ records arrive, are fetched, the broker answers, time passes
//!                                ├▶ the committing does one thing, or breaks off at any of its steps
//!                                └▶ crash, stop, start with what is committed
//!                                          │
//!  log (in memory) ◀───────────────────────┘──▶ oracle: the audit's recomputation, at every crash and at the end
//! ```
//!
//! `CLICKTIDE_SIM_SEEDS=N` runs N seeds, from `CLICKTIDE_SIM_FROM` on, `CLICKTIDE_SIM_SEED=n` the one, and shows its steps.

#[path = "simulation/mod.rs"]
mod simulation;

use simulation::plan::Fault;
use simulation::run::{Failure, run_seed};
use simulation::script::Script;
use simulation::{env_number, first_failure};

/// How many seeds a test run tries.
const SEEDS: u64 = 3_000;

#[test]
fn every_seed_gives_the_oracles_results() {
    if let Some(seed) = env_number("CLICKTIDE_SIM_SEED") {
        let (outcome, steps) = run_seed(seed, Fault::None);
        print!("{steps}");
        return outcome.map(drop).unwrap_or_else(|Failure(reason)| panic!("seed {seed}: {reason}"));
    }
    let seeds = env_number("CLICKTIDE_SIM_SEEDS").unwrap_or(SEEDS);
    let from = env_number("CLICKTIDE_SIM_FROM").unwrap_or(0);
    if let Some((seed, Failure(reason))) = first_failure(from..from + seeds, Fault::None) {
        panic!(
            "seed {seed}: {reason}\nAgain, with its steps:\n  \
             CLICKTIDE_SIM_SEED={seed} cargo test --test simulation every_seed -- --nocapture"
        );
    }
}

#[test]
fn the_same_seed_takes_the_same_steps() {
    for seed in 0..20 {
        let (first, steps) = run_seed(seed, Fault::None);
        let (second, again) = run_seed(seed, Fault::None);
        assert_eq!(first.map_err(|f| f.0), second.map_err(|f| f.0), "seed {seed}");
        let differing = steps.lines().zip(again.lines()).find(|(step, again)| step != again);
        assert!(steps == again, "seed {seed}: {differing:?}");
    }
}

/// A job that is broken in this way is found out by one of the first few thousand seeds, most by one of the first hundred.
fn notices(fault: Fault) {
    assert!(first_failure(0..4_000, fault).is_some(), "{fault:?} went unnoticed");
}

#[test]
fn the_simulation_notices_a_commit_made_again_after_an_unknown_outcome() {
    notices(Fault::CommitsAgain);
}

#[test]
fn the_simulation_notices_an_idle_advance_that_is_not_committed() {
    notices(Fault::ForgetsIdleAdvance);
}

#[test]
fn the_simulation_notices_a_cut_that_is_too_late() {
    notices(Fault::CutsTooLate);
}

#[test]
fn the_simulation_notices_dead_letters_that_are_lost() {
    notices(Fault::LosesDeadLetters);
}

#[test]
fn the_simulation_notices_sanitised_events_that_are_lost() {
    notices(Fault::LosesSanitisedEvents);
}

#[test]
fn the_simulation_notices_results_without_their_progress() {
    notices(Fault::ForgetsProgress);
}

#[test]
fn the_simulation_notices_older_runs_that_are_not_fenced() {
    notices(Fault::FencesNobody);
}

#[test]
fn the_simulation_notices_a_checkpoint_that_is_restored_in_part() {
    notices(Fault::RestoresLess);
}

#[test]
fn the_simulation_notices_a_past_that_is_forgotten() {
    notices(Fault::ForgetsHistory);
}

#[test]
fn the_simulation_notices_a_checkpoint_without_its_past() {
    notices(Fault::RestoresWithoutHistory);
}

/// A partition whose floor is far ahead of what is committed reads a record that does not count, again and again.
#[test]
fn a_dead_letter_is_read_again_until_its_tick_is_committed() {
    let mut script = Script::new(3, 3);
    (0..3).for_each(|partition| script.event(partition, 5));
    script.settle(&[0, 1, 2]);
    script.event(1, 35);
    script.event(2, 35);
    script.answer(0);
    script.settle(&[0, 1, 2]);
    assert_eq!(script.through_ms(), Some(30), "partition 0 is idle, and follows");
    script.event(1, 75);
    script.answer(2);
    script.settle(&[2]);
    script.settle(&[0, 1]);
    assert_eq!(script.through_ms(), Some(30), "the worker of partition 2 does not know yet what to follow");
    // Nobody is idle for sure any more.
    script.pass(4_000);
    script.event(2, 45);
    script.settle(&[0, 1, 2]);
    assert_eq!(script.through_ms(), Some(40));
    script.record(0, (None, b"not an event".to_vec()));
    script.restart();
    script.settle(&[0, 1, 2]);
    script.event(2, 55);
    script.settle(&[0, 1, 2]);
    assert_eq!(script.through_ms(), Some(50));
    script.restart();
    script.event(1, 205);
    script.event(2, 205);
    script.answer(0);
    script.settle(&[0, 1, 2]);
    assert_eq!(script.through_ms(), Some(200));
    script.check();
}
