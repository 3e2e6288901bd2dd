//! `clicktide topics` and `clicktide check`: what a job needs, made and looked at.

use std::time::Duration;

use crate::check::{self, CheckLine};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::kafka::admin::{TopicOutcome, create_topics, describe_topics};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Makes the topics that are not there, and says how the others differ from what the configuration says.
///
/// # Errors
/// When the brokers can't be reached, or a topic is there and not as it should be.
pub fn create(config: &Config) -> Result<(), Failure> {
    let outcomes =
        create_topics(&config.connection(), &config.topic_specs(), TIMEOUT).map_err(|e| Failure::new(e.exit(), e))?;
    let mut differs = false;
    for (name, outcome) in outcomes {
        match outcome {
            TopicOutcome::Created => println!("{name}: created"),
            TopicOutcome::Existing { differences } if differences.is_empty() => println!("{name}: is there"),
            TopicOutcome::Existing { differences } => {
                differs = true;
                println!("{name}: is there, and differs (left as it is):");
                differences.iter().for_each(|difference| println!("  {difference}"));
            }
        }
    }
    if differs {
        let why = "a topic is not as the configuration says; change the topic, or the section [topics]";
        return Err(Failure::new(Exit::Bad, why));
    }
    Ok(())
}

/// Prints the topics as they are.
///
/// # Errors
/// When the brokers can't be reached, or a topic does not exist.
pub fn describe(config: &Config) -> Result<(), Failure> {
    let specs = config.topic_specs();
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let found = describe_topics(&config.connection(), &names, TIMEOUT).map_err(|e| Failure::new(e.exit(), e))?;
    let mut missing = Vec::new();
    for (name, topic) in names.iter().zip(found) {
        match topic {
            Some(topic) => println!("{topic}"),
            None => missing.push(*name),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!("no such topic: {}; `clicktide topics create` makes them", missing.join(", "));
    Err(Failure::new(Exit::Bad, why))
}

/// Prints what is good and what is not.
///
/// # Errors
/// When anything has to be put right.
pub fn check(config: &Config) -> Result<(), Failure> {
    let lines = check::check(config);
    lines.iter().for_each(|line| println!("{line}"));
    match lines.iter().filter(|line| CheckLine::bad(line)).count() {
        0 => Ok(()),
        bad => Err(Failure::new(Exit::Bad, format!("{bad} of {} checks are bad", lines.len()))),
    }
}
