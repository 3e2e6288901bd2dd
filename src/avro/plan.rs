//! From a writer schema to the steps that read its bodies.
//!
//! Resolution is done here, once per writer schema, so that reading a body is a walk along the steps. A writer's field that
//! the analytics need becomes a step that reads it; any other field, whatever its type, one that skips it. What a writer
//! may do more than that (promote, leave to a default, rename) is to become more kinds of [`Step`].

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, NamesRef, NamespaceRef, RecordSchema, ResolvedSchema, UnionSchema};
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
    #[error("the writer schema has no field {field:?}")]
    MissingField {
        /// The field of ours.
        field: &'static str,
    },
    /// A field has a type that is not ours.
    #[error("the writer schema's field {field:?} is {found}; it must be {expected}")]
    FieldType {
        /// The field of ours.
        field: &'static str,
        /// Our type.
        expected: &'static str,
        /// The writer's type.
        found: String,
    },
}

/// What to do with the next value of a body.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Pass over a value nobody needs.
    Skip(Skip),
    /// A string is the user id.
    UserId,
    /// A string is the session id.
    SessionId,
    /// A string is the page's URL.
    PageUrl,
    /// An index into the writer's symbols is the event type; none stands for symbols that we do not know.
    EventType(Box<[Option<EventType>]>),
    /// A long is the event time, ms.
    Timestamp,
    /// A union of null and int is the session's duration, seconds.
    SessionDuration {
        /// The union's branch that is null, 0 or 1.
        null_branch: i64,
    },
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
    /// The named type at this place of [`Plan::named`], which may contain itself.
    Named(usize),
}

/// The steps that read one body, and the named types that they skip.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) steps: Box<[Step]>,
    pub(super) named: Box<[Skip]>,
}

impl Plan {
    /// The steps that read events out of bodies written with `writer_schema`.
    pub(super) fn read_event(writer_schema: &Schema) -> Result<Self, SchemaError> {
        let Schema::Record(record) = writer_schema else {
            return Err(SchemaError::NotARecord { found: writer_schema.canonical_form() });
        };
        let resolved = ResolvedSchema::new(writer_schema).map_err(|error| SchemaError::Invalid(error.to_string()))?;
        let mut compiler = Compiler::new(resolved.get_names());
        let mut missing = REQUIRED.to_vec();
        let mut steps = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            missing.retain(|name| *name != field.name);
            steps.push(compiler.step(&field.name, &field.schema, record.name.namespace())?);
        }
        match missing.first() {
            Some(field) => Err(SchemaError::MissingField { field }),
            None => Ok(Self { steps: steps.into(), named: compiler.named.into() }),
        }
    }

    /// The one step that passes over a whole value of `schema`.
    pub(super) fn skip_all(schema: &Schema) -> Result<Self, SchemaError> {
        let resolved = ResolvedSchema::new(schema).map_err(|error| SchemaError::Invalid(error.to_string()))?;
        let mut compiler = Compiler::new(resolved.get_names());
        let skip = compiler.skip(schema, None)?;
        Ok(Self { steps: [Step::Skip(skip)].into(), named: compiler.named.into() })
    }
}

/// The fields of ours that the analytics need and that have no default. The session's duration defaults to null.
const REQUIRED: [&str; 5] = ["user_id", "session_id", "event_type", "page_url", "timestamp"];

struct Compiler<'s> {
    names: &'s NamesRef<'s>,
    /// How to skip a type that was referred to by its name before.
    references: HashMap<Name, Skip>,
    named: Vec<Skip>,
}

impl<'s> Compiler<'s> {
    fn new(names: &'s NamesRef<'s>) -> Self {
        Self { names, references: HashMap::new(), named: Vec::new() }
    }

    fn step(&mut self, field: &str, schema: &Schema, namespace: NamespaceRef) -> Result<Step, SchemaError> {
        let refuse = |field, expected| {
            let found = schema.canonical_form();
            Err(SchemaError::FieldType { field, expected, found })
        };
        match (field, self.definition(schema, namespace)?) {
            ("user_id", Schema::String) => Ok(Step::UserId),
            ("user_id", _) => refuse("user_id", "a string"),
            ("session_id", Schema::String) => Ok(Step::SessionId),
            ("session_id", _) => refuse("session_id", "a string"),
            ("page_url", Schema::String) => Ok(Step::PageUrl),
            ("page_url", _) => refuse("page_url", "a string"),
            ("event_type", Schema::Enum(writer)) => {
                let known =
                    |symbol: &String| EVENT_TYPES.iter().find(|(ours, _)| ours == symbol).map(|(_, kind)| *kind);
                Ok(Step::EventType(writer.symbols.iter().map(known).collect()))
            }
            ("event_type", _) => refuse("event_type", "an enum"),
            ("timestamp", Schema::TimestampMillis | Schema::Long) => Ok(Step::Timestamp),
            ("timestamp", _) => refuse("timestamp", "a long of milliseconds"),
            ("session_duration", Schema::Union(union)) => match union.variants() {
                [Schema::Null, Schema::Int] => Ok(Step::SessionDuration { null_branch: 0 }),
                [Schema::Int, Schema::Null] => Ok(Step::SessionDuration { null_branch: 1 }),
                _ => refuse("session_duration", "a union of null and int"),
            },
            ("session_duration", _) => refuse("session_duration", "a union of null and int"),
            _ => self.skip(schema, namespace).map(Step::Skip),
        }
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

    fn skip(&mut self, schema: &Schema, namespace: NamespaceRef) -> Result<Skip, SchemaError> {
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
                apache_avro::schema::InnerDecimalSchema::Bytes => Skip::Bytes,
                apache_avro::schema::InnerDecimalSchema::Fixed(fixed) => fixed_bytes(fixed.size),
            },
            Schema::Uuid(apache_avro::schema::UuidSchema::Fixed(fixed)) => fixed_bytes(fixed.size),
            Schema::Uuid(_) => Skip::Bytes,
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
