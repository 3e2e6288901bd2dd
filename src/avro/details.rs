//! The fields of an event that only the sanitiser reads, out of bare Avro bodies.
//!
//! They are read by a walk of their own, along steps of their own, so that reading what the analytics need costs nothing for them. A
//! field that a writer lacks, or whose type is not text or a union with text, is not there; none of that is an error.

use std::borrow::Cow;
use std::iter::once;

use apache_avro::Schema;
use apache_avro::schema::{NamespaceRef, RecordSchema, ResolvedSchema, UuidSchema};

use super::DecodeError;
use super::decoder::chosen;
use super::input::Input;
use super::plan::{Named, SchemaError, Skip, Skips, invalid};
use crate::event::EventDetails;

/// A field of the event that only the sanitiser reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    ProductId,
    UserAgent,
    IpAddress,
    Referrer,
}

impl Detail {
    const ALL: [Self; 4] = [Self::ProductId, Self::UserAgent, Self::IpAddress, Self::Referrer];

    fn name(self) -> &'static str {
        match self {
            Self::ProductId => "product_id",
            Self::UserAgent => "user_agent",
            Self::IpAddress => "ip_address",
            Self::Referrer => "referrer",
        }
    }

    fn of<'d, 'a>(self, details: &'d mut EventDetails<'a>) -> &'d mut Option<Cow<'a, str>> {
        match self {
            Self::ProductId => &mut details.product_id,
            Self::UserAgent => &mut details.user_agent,
            Self::IpAddress => &mut details.ip_address,
            Self::Referrer => &mut details.referrer,
        }
    }
}

/// What to do with the next value of a body.
#[derive(Clone, Debug)]
enum Step {
    /// Pass over it.
    Skip(Skip),
    /// A string, or bytes that are one, is this field.
    Text(Detail),
    /// A branch number, and what to do with a value of that branch.
    Union(Box<[Step]>),
}

/// How to read the details of the events of one writer schema.
#[derive(Clone, Debug)]
pub(super) struct DetailPlan {
    root: Root,
    named: Named,
}

#[derive(Clone, Debug)]
enum Root {
    Record(Box<[Step]>),
    /// None stands for branches that are no records.
    Union(Box<[Option<Box<[Step]>>]>),
}

impl DetailPlan {
    /// How to read details out of bodies written with `writer`. `reader` is the schema of events, or a later version of it.
    pub(super) fn new(writer: &Schema, reader: &'static RecordSchema) -> Result<Self, SchemaError> {
        let names = ResolvedSchema::new(writer).map_err(invalid)?;
        let mut resolution = Resolution { reader, skips: Skips::new(names.get_names()) };
        let root = match writer {
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| resolution.branch(branch));
                Root::Union(branches.collect::<Result<_, _>>()?)
            }
            // What is no record has no events.
            record => Root::Record(resolution.branch(record)?.unwrap_or_default()),
        };
        Ok(Self { root, named: Named(resolution.skips.named.into()) })
    }

    /// Reads the details of the event that `body` is.
    pub(super) fn read<'a>(&self, body: &'a [u8]) -> Result<EventDetails<'a>, DecodeError> {
        let mut input = Input::new(body);
        let mut details = EventDetails::default();
        let steps = match &self.root {
            Root::Record(steps) => steps,
            Root::Union(branches) => chosen(branches, &mut input)?,
        };
        for step in steps {
            self.step(step, &mut input, &mut details)?;
        }
        input.finish()?;
        Ok(details)
    }

    fn step<'a>(&self, step: &Step, input: &mut Input<'a>, details: &mut EventDetails<'a>) -> Result<(), DecodeError> {
        match step {
            Step::Skip(skip) => self.named.skip(skip, input, 0)?,
            Step::Text(detail) => {
                *detail.of(details) = std::str::from_utf8(input.bytes()?).ok().map(Cow::Borrowed);
            }
            Step::Union(branches) => {
                let branch = usize::try_from(input.long()?).map_err(|_| DecodeError::UnknownBranch)?;
                // It is no union itself.
                self.step(branches.get(branch).ok_or(DecodeError::UnknownBranch)?, input, details)?;
            }
        }
        Ok(())
    }
}

/// The resolution of a writer schema into the details of the reader's.
struct Resolution<'s> {
    reader: &'static RecordSchema,
    skips: Skips<'s>,
}

impl Resolution<'_> {
    /// The steps for a record; none if it is none.
    fn branch(&mut self, schema: &Schema) -> Result<Option<Box<[Step]>>, SchemaError> {
        let Schema::Record(writer) = schema else { return Ok(None) };
        let mut wanted = vec![None; writer.fields.len()];
        for detail in Detail::ALL {
            let ours = self.reader.fields.iter().find(|ours| ours.name == detail.name());
            let mut names = ours.iter().flat_map(|ours| once(&ours.name).chain(&ours.aliases));
            let place = names.find_map(|name| writer.fields.iter().position(|theirs| theirs.name == *name));
            if let Some(place) = place {
                wanted[place] = Some(detail);
            }
        }
        let namespace = writer.name.namespace();
        let steps = writer.fields.iter().zip(wanted).map(|(theirs, wanted)| match wanted {
            Some(detail) => self.step(detail, &theirs.schema, namespace),
            None => self.skips.skip(&theirs.schema, namespace).map(Step::Skip),
        });
        steps.collect::<Result<_, _>>().map(Some)
    }

    fn step(&mut self, detail: Detail, schema: &Schema, namespace: NamespaceRef) -> Result<Step, SchemaError> {
        Ok(match schema {
            // A uuid is text where it is a string.
            Schema::String | Schema::Bytes | Schema::Uuid(UuidSchema::String | UuidSchema::Bytes) => Step::Text(detail),
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.step(detail, branch, namespace));
                Step::Union(branches.collect::<Result<_, _>>()?)
            }
            other => Step::Skip(self.skips.skip(other, namespace)?),
        })
    }
}
