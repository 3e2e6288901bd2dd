//! From a writer schema to the steps that read its bodies.
//!
//! Schema resolution is done here, once per writer schema, so that reading a body is a walk along the steps: each reads the
//! next value of the body into a field of the event, promoted if need be, or passes over it. A field of ours that the
//! writer lacks is left at its default.
//!
//! What resolves is what the Avro specification says ("Schema Resolution", "Aliases"), for the six fields that the analytics
//! need:
//!
//! - A writer's field is found by the name of our field or else by one of its aliases, the first that the writer has. A field
//!   that the writer lacks has our default, or the schema is refused. Any other field of the writer's is passed over,
//!   whatever its type, and not looked into. Our fields that the analytics do not need may be missing, default or not.
//! - `bytes` are read as a `string`, and must be UTF-8 then; an `int` is read as a `long`.
//! - An enum's symbols are matched one by one. One that we do not know is our enum's default; if it has none (as in the published
//!   schema), an event with the symbol is undecodable. A writer's enum of which nothing is known is refused.
//! - Of a union each branch is resolved by itself. An event with a branch that does not resolve is undecodable; a union without
//!   any that does is refused. A writer's type resolves into our nullable field as into what it is when it is not null. The
//!   writer schema itself may be a union of records, too.
//! - Types resolve as what underlies their logical types, but for values that would then mean something else: times of
//!   another unit or without a zone, dates, and decimals, are refused.
//!
//! Names of records and enums need not be ours. The specification asks for it, and it matters where one of several
//! types must be chosen, as in a union of the reader's; here none is, and what a type consists of says enough. Readers in Java
//! (for records) and in Rust (`apache_avro`) do the same.

use std::collections::HashMap;
use std::iter::once;

use apache_avro::Schema;
use apache_avro::schema::{
    EnumSchema, InnerDecimalSchema, Name, NamesRef, NamespaceRef, RecordField, RecordSchema, ResolvedSchema,
    UnionSchema, UuidSchema,
};
use clicktide_dataflows::event::EventType;

use super::EVENT_TYPES;

/// Why bodies of a writer schema cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It is not an Avro schema.
    #[error("not an Avro schema: {0}")]
    Invalid(String),
    /// It is not a record.
    #[error("the writer schema is {found}, but an event is a record")]
    NotARecord {
        /// What it is.
        found: String,
    },
    /// It lacks a field that has no default.
    #[error("the writer schema has no field {field:?}; it must have one, which is {expected}")]
    MissingField {
        /// The field of ours.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// A field has a type that does not resolve into ours.
    #[error("the writer schema's field {name:?}, read as {field:?}, is {found}; it must be {expected}")]
    FieldType {
        /// The writer's field.
        name: String,
        /// The field of ours.
        field: &'static str,
        /// The writer's type.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// A field of the event that the analytics need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    UserId,
    SessionId,
    EventType,
    PageUrl,
    Timestamp,
    SessionDuration,
}

impl Field {
    const ALL: [Self; 6] =
        [Self::UserId, Self::SessionId, Self::EventType, Self::PageUrl, Self::Timestamp, Self::SessionDuration];

    fn name(self) -> &'static str {
        match self {
            Self::UserId => "user_id",
            Self::SessionId => "session_id",
            Self::EventType => "event_type",
            Self::PageUrl => "page_url",
            Self::Timestamp => "timestamp",
            Self::SessionDuration => "session_duration",
        }
    }

    /// The types that resolve into the field's, in words.
    fn expected(self) -> &'static str {
        match self {
            Self::UserId | Self::SessionId | Self::PageUrl => "a string, bytes, or a union with one of them",
            Self::EventType => "an enum with a symbol of the event types, or a union with one",
            Self::Timestamp => "a long or an int of milliseconds since the epoch, or a union with one",
            Self::SessionDuration => "an int, null, or a union with one of them",
        }
    }
}

/// What is read of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots<'a> {
    pub(super) user_id: &'a str,
    pub(super) session_id: &'a str,
    pub(super) page_url: &'a str,
    pub(super) event_type: EventType,
    pub(super) timestamp: i64,
    pub(super) session_duration: Option<i32>,
}

/// What to do with the next value of a body.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Pass over a value nobody needs.
    Skip(Skip),
    /// A string, or bytes that are one, is the user id.
    UserId,
    /// A string, or bytes that are one, is the session id.
    SessionId,
    /// A string, or bytes that are one, is the page's URL.
    PageUrl,
    /// An index into the writer's symbols is the event type; none stands for symbols that do not resolve.
    EventType(Box<[Option<EventType>]>),
    /// A long is the event time, ms.
    Timestamp,
    /// An int is the event time, ms.
    TimestampFromInt,
    /// An int is the session's duration, seconds.
    SessionDuration,
    /// A null says that the session's duration is not reported.
    NoSessionDuration,
    /// A branch number, and what to do with a value of that branch; none stands for branches that do not resolve.
    Union(Box<[Option<Step>]>),
}

/// How to find the end of a value.
#[derive(Clone, Debug)]
pub(super) enum Skip {
    /// It takes no bytes: null, and what is made of nothing but nulls.
    Nothing,
    /// An int, a long, an enum.
    Varint,
    /// A string, bytes: a length and as many bytes.
    Bytes,
    /// So many bytes, at least one.
    Fixed(usize),
    /// A branch number, and a value of that branch.
    Union(Box<[Skip]>),
    /// One value after the other; none of them is [`Skip::Nothing`].
    Record(Box<[Skip]>),
    /// Blocks of items.
    Array(Box<Skip>),
    /// Blocks of a string and a value each.
    Map(Box<Skip>),
    /// The named type at this place of [`Named`], which may contain itself.
    Named(usize),
}

/// The named types that are passed over and were referred to.
#[derive(Clone, Debug)]
pub(super) struct Named(pub(super) Box<[Skip]>);

/// How to find the end of a whole body.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) skip: Skip,
    pub(super) named: Named,
}

/// How to read the events of one writer schema.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) root: Root,
    /// What is left of these has not been read: the fields that the writer lacks.
    pub(super) defaults: Slots<'static>,
    pub(super) named: Named,
}

/// What a body is.
#[derive(Clone, Debug)]
pub(super) enum Root {
    /// A record: a value for each of the steps.
    Record(Box<[Step]>),
    /// A branch number, and a record; none stands for branches that do not resolve.
    Union(Branches),
}

impl Extent {
    /// That of a value of `schema`.
    pub(super) fn new(schema: &Schema) -> Result<Self, SchemaError> {
        let names = ResolvedSchema::new(schema).map_err(invalid)?;
        let mut skips = Skips::new(names.get_names());
        let skip = skips.skip(schema, None)?;
        Ok(Self { skip, named: Named(skips.named.into()) })
    }
}

impl Plan {
    /// How to read events out of bodies written with `writer`. `reader` is the schema of events, or a later version of it.
    pub(super) fn new(writer: &Schema, reader: &'static RecordSchema) -> Result<Self, SchemaError> {
        let names = ResolvedSchema::new(writer).map_err(invalid)?;
        let mut resolution = Resolution { reader, skips: Skips::new(names.get_names()) };
        let root = match writer {
            Schema::Record(record) => Root::Record(resolution.record(record)?),
            Schema::Union(union) => Root::Union(resolution.root_union(writer, union)?),
            other => return Err(SchemaError::NotARecord { found: text(other) }),
        };
        Ok(Self { root, defaults: resolution.defaults(), named: Named(resolution.skips.named.into()) })
    }
}

/// The steps for each branch of a union of records; none for those that do not resolve.
type Branches = Box<[Option<Box<[Step]>>]>;

/// The resolution of a writer schema into the reader's.
struct Resolution<'s> {
    reader: &'static RecordSchema,
    skips: Skips<'s>,
}

impl Resolution<'_> {
    /// A branch that does not resolve is one that no event can be read from.
    fn root_union(&mut self, schema: &Schema, union: &UnionSchema) -> Result<Branches, SchemaError> {
        let mut refused = Err(SchemaError::NotARecord { found: text(schema) });
        let mut branches = Vec::with_capacity(union.variants().len());
        for branch in union.variants() {
            let Schema::Record(record) = branch else {
                branches.push(None);
                continue;
            };
            match self.record(record) {
                Ok(steps) => branches.push(Some(steps)),
                Err(error) => {
                    refused = Err(error);
                    branches.push(None);
                }
            }
        }
        if branches.iter().any(Option::is_some) { Ok(branches.into()) } else { refused }
    }

    fn record(&mut self, writer: &RecordSchema) -> Result<Box<[Step]>, SchemaError> {
        let mut needed = vec![None; writer.fields.len()];
        for field in Field::ALL {
            let ours = self.ours(field);
            let names = ours.iter().flat_map(|ours| once(&ours.name).chain(&ours.aliases));
            let free = |name: &String| {
                let mut fields = writer.fields.iter().zip(&needed);
                fields.position(|(theirs, taken)| theirs.name == *name && taken.is_none())
            };
            match names.map(free).find_map(|place| place) {
                Some(place) => needed[place] = Some(field),
                None if self.has_default(field) => {}
                None => return Err(SchemaError::MissingField { field: field.name(), expected: field.expected() }),
            }
        }
        let namespace = writer.name.namespace();
        let steps = writer.fields.iter().zip(needed).map(|(theirs, needed)| match needed {
            Some(field) => self.step(field, theirs, namespace),
            None => self.skips.skip(&theirs.schema, namespace).map(Step::Skip),
        });
        steps.collect()
    }

    /// Reads a writer's field into ours.
    fn step(&self, field: Field, theirs: &RecordField, namespace: NamespaceRef) -> Result<Step, SchemaError> {
        let schema = self.skips.definition(&theirs.schema, namespace)?;
        let step = match schema {
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| {
                    let branch = self.skips.definition(branch, namespace)?;
                    Ok(self.value(field, branch))
                });
                let branches = branches.collect::<Result<Box<[_]>, SchemaError>>()?;
                branches.iter().any(Option::is_some).then_some(Step::Union(branches))
            }
            other => self.value(field, other),
        };
        step.ok_or_else(|| SchemaError::FieldType {
            name: theirs.name.clone(),
            field: field.name(),
            found: text(schema),
            expected: field.expected(),
        })
    }

    /// Reads a value that is no union, if it resolves.
    fn value(&self, field: Field, schema: &Schema) -> Option<Step> {
        let is_text = matches!(
            schema,
            // A uuid is text where it is a string, and as bytes it is not a logical type of the specification's.
            Schema::String | Schema::Bytes | Schema::Uuid(UuidSchema::String | UuidSchema::Bytes)
        );
        match (field, schema) {
            (Field::UserId, _) if is_text => Some(Step::UserId),
            (Field::SessionId, _) if is_text => Some(Step::SessionId),
            (Field::PageUrl, _) if is_text => Some(Step::PageUrl),
            (Field::EventType, Schema::Enum(writer)) => self.symbols(writer).map(Step::EventType),
            (Field::Timestamp, Schema::Long | Schema::TimestampMillis) => Some(Step::Timestamp),
            (Field::Timestamp, Schema::Int) => Some(Step::TimestampFromInt),
            (Field::SessionDuration, Schema::Int) => Some(Step::SessionDuration),
            (Field::SessionDuration, Schema::Null) => Some(Step::NoSessionDuration),
            _ => None,
        }
    }

    /// What the writer's symbols stand for, if any of them stands for anything.
    fn symbols(&self, writer: &EnumSchema) -> Option<Box<[Option<EventType>]>> {
        let default = match self.ours(Field::EventType).map(|ours| &ours.schema) {
            Some(Schema::Enum(ours)) => ours.default.as_deref().and_then(event_type),
            _ => None,
        };
        let symbols = writer.symbols.iter().map(|symbol| event_type(symbol).or(default));
        let symbols = symbols.collect::<Box<[_]>>();
        symbols.iter().any(Option::is_some).then_some(symbols)
    }

    /// The field as it is in the reader schema.
    fn ours(&self, field: Field) -> Option<&'static RecordField> {
        self.reader.fields.iter().find(|ours| ours.name == field.name())
    }

    fn has_default(&self, field: Field) -> bool {
        self.ours(field).is_some_and(|ours| ours.default.is_some())
    }

    fn defaults(&self) -> Slots<'static> {
        let default = |field| self.ours(field).and_then(|ours| ours.default.as_ref());
        let text = |field| default(field).and_then(|value| value.as_str());
        Slots {
            user_id: text(Field::UserId).unwrap_or_default(),
            session_id: text(Field::SessionId).unwrap_or_default(),
            page_url: text(Field::PageUrl).unwrap_or_default(),
            event_type: text(Field::EventType).and_then(event_type).unwrap_or(EventType::View),
            timestamp: default(Field::Timestamp).and_then(|value| value.as_i64()).unwrap_or_default(),
            session_duration: default(Field::SessionDuration)
                .and_then(|value| value.as_i64())
                .and_then(|seconds| seconds.try_into().ok()),
        }
    }
}

/// The event type of this symbol.
fn event_type(symbol: &str) -> Option<EventType> {
    EVENT_TYPES.iter().find(|(ours, _)| *ours == symbol).map(|(_, event_type)| *event_type)
}

/// How to pass over the types of one schema.
pub(super) struct Skips<'s> {
    names: &'s NamesRef<'s>,
    /// How to skip a type that was referred to by its name before.
    references: HashMap<Name, Skip>,
    /// What is to be made [`Named`].
    pub(super) named: Vec<Skip>,
}

impl<'s> Skips<'s> {
    pub(super) fn new(names: &'s NamesRef<'s>) -> Self {
        Self { names, references: HashMap::new(), named: Vec::new() }
    }

    /// What a reference refers to; any other schema is its own definition.
    fn definition<'a>(&self, schema: &'a Schema, namespace: NamespaceRef) -> Result<&'a Schema, SchemaError>
    where
        's: 'a,
    {
        let Schema::Ref { name } = schema else {
            return Ok(schema);
        };
        let name = name.fully_qualified_name(namespace);
        let unknown = || SchemaError::Invalid(format!("no type is named {name}"));
        self.names.get(name.as_ref()).copied().ok_or_else(unknown)
    }

    pub(super) fn skip(&mut self, schema: &Schema, namespace: NamespaceRef) -> Result<Skip, SchemaError> {
        Ok(match schema {
            Schema::Null => Skip::Nothing,
            Schema::Boolean => Skip::Fixed(1),
            Schema::Float => Skip::Fixed(4),
            Schema::Double => Skip::Fixed(8),
            Schema::Int
            | Schema::Long
            | Schema::Enum(_)
            | Schema::Date
            | Schema::TimeMillis
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Skip::Varint,
            Schema::Bytes | Schema::String | Schema::BigDecimal => Skip::Bytes,
            Schema::Fixed(fixed) | Schema::Duration(fixed) => fixed_bytes(fixed.size),
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Skip::Bytes,
                InnerDecimalSchema::Fixed(fixed) => fixed_bytes(fixed.size),
            },
            Schema::Uuid(UuidSchema::Fixed(fixed)) => fixed_bytes(fixed.size),
            Schema::Uuid(UuidSchema::String | UuidSchema::Bytes) => Skip::Bytes,
            Schema::Array(array) => Skip::Array(Box::new(self.skip(&array.items, namespace)?)),
            Schema::Map(map) => Skip::Map(Box::new(self.skip(&map.types, namespace)?)),
            Schema::Union(union) => self.union(union, namespace)?,
            Schema::Record(record) => self.record(record, namespace)?,
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace).into_owned();
                if let Some(reference) = self.references.get(&name) {
                    return Ok(reference.clone());
                }
                let definition = self.definition(schema, namespace)?;
                // The place is taken before the type is compiled, for references from inside the type itself. A type with
                // such a reference is never `Nothing`.
                let place = self.named.len();
                self.named.push(Skip::Nothing);
                self.references.insert(name.clone(), Skip::Named(place));
                match self.skip(definition, name.namespace())? {
                    Skip::Nothing => {
                        self.references.insert(name, Skip::Nothing);
                        Skip::Nothing
                    }
                    skip => {
                        self.named[place] = skip;
                        Skip::Named(place)
                    }
                }
            }
        })
    }

    fn union(&mut self, union: &UnionSchema, namespace: NamespaceRef) -> Result<Skip, SchemaError> {
        let branches = union.variants().iter().map(|branch| self.skip(branch, namespace));
        Ok(Skip::Union(branches.collect::<Result<_, _>>()?))
    }

    fn record(&mut self, record: &RecordSchema, namespace: NamespaceRef) -> Result<Skip, SchemaError> {
        let name = record.name.fully_qualified_name(namespace);
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            match self.skip(&field.schema, name.namespace())? {
                Skip::Nothing => {}
                skip => fields.push(skip),
            }
        }
        Ok(if fields.is_empty() { Skip::Nothing } else { Skip::Record(fields.into()) })
    }
}

fn fixed_bytes(size: usize) -> Skip {
    if size == 0 { Skip::Nothing } else { Skip::Fixed(size) }
}

pub(super) fn invalid(error: apache_avro::Error) -> SchemaError {
    SchemaError::Invalid(error.to_string())
}

/// A schema as JSON, with its logical types.
fn text(schema: &Schema) -> String {
    serde_json::to_string(schema).unwrap_or_else(|_| schema.canonical_form())
}
