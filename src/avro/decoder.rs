//! Events out of bare Avro bodies.

use std::borrow::Cow;

use apache_avro::Schema;

use super::details::DetailPlan;
use super::input::Input;
use super::plan::{Extent, Named, Plan, Root, SchemaError, Skip, Slots, Step};
use super::{CLICK_EVENT_SCHEMA, DecodeError, published_event};
use crate::event::{DecodedEvent, EventDetails};

/// How deep skipped values may be nested, which bounds the stack that a recursive schema takes.
const DEPTH_MAX: u32 = 512;

/// Reads events that were written with one schema.
///
/// Made once per writer schema; from then on reading an event is a walk along its fields that borrows from the body and
/// allocates nothing. Fields that the analytics do not need are passed over and not looked into.
#[derive(Clone, Debug)]
pub struct Decoder {
    plan: Plan,
    details: DetailPlan,
}

impl Decoder {
    /// Reads bodies written with `writer_schema`, the JSON text of any Avro schema that resolves into [`CLICK_EVENT_SCHEMA`] as
    /// the Avro specification says: fields may come in any order and among others, be promoted, or be unions of which a
    /// branch resolves. The fields that the analytics do not need may be of any type, or missing.
    ///
    /// ```
    /// use clicktide::avro::Decoder;
    ///
    /// let schema = r#"{"type": "record", "name": "Click", "fields": [
    ///     {"name": "page_url", "type": "string"}, {"name": "timestamp", "type": "int"},
    ///     {"name": "event_type", "type": {"type": "enum", "name": "Kind", "symbols": ["CLICK"]}},
    ///     {"name": "session_id", "type": "bytes"}, {"name": "user_id", "type": ["null", "string"]}
    /// ]}"#;
    /// let event = Decoder::new(schema).unwrap().decode(b"\x02/\x0a\0\x02s\x02\x02u").unwrap();
    /// assert_eq!((&*event.page_url, event.timestamp, &*event.session_id, &*event.user_id), ("/", 5, "s", "u"));
    /// assert!(Decoder::new(&schema.replace("bytes", "double")).unwrap_err().to_string().contains("session_id"));
    /// ```
    ///
    /// # Errors
    /// When the text is not an Avro schema, or a field that the analytics need is missing or does not resolve.
    pub fn new(writer_schema: &str) -> Result<Self, SchemaError> {
        let schema = Schema::parse_str(writer_schema).map_err(|error| SchemaError::Invalid(error.to_string()))?;
        Self::of(&schema)
    }

    /// Reads bodies written with `writer_schema`.
    pub(super) fn of(writer_schema: &Schema) -> Result<Self, SchemaError> {
        let plan = Plan::new(writer_schema, published_event())?;
        Ok(Self { plan, details: DetailPlan::new(writer_schema, published_event())? })
    }

    /// Reads the event that `body` is, from its first byte to its last.
    ///
    /// # Errors
    /// When `body` is not exactly one event of the writer schema. Whatever the bytes, nothing panics, and nothing is
    /// allocated.
    #[inline]
    pub fn decode<'a>(&self, body: &'a [u8]) -> Result<DecodedEvent<'a>, DecodeError> {
        let Slots { user_id, session_id, page_url, event_type, timestamp, session_duration } = self.plan.read(body)?;
        let (user_id, session_id, page_url) = (user_id.into(), session_id.into(), Cow::Borrowed(page_url));
        Ok(DecodedEvent { user_id, session_id, page_url, event_type, timestamp, session_duration })
    }

    /// Reads what only the sanitiser needs of the event that `body` is, in a walk of its own. Allocates nothing.
    ///
    /// # Errors
    /// When `body` is not one event of the writer schema; never where [`Decoder::decode`] reads one.
    pub fn details<'a>(&self, body: &'a [u8]) -> Result<EventDetails<'a>, DecodeError> {
        self.details.read(body)
    }
}

/// Reads bodies written with the published schema, [`CLICK_EVENT_SCHEMA`].
impl Default for Decoder {
    fn default() -> Self {
        Self::new(CLICK_EVENT_SCHEMA).expect("the published schema is readable")
    }
}

impl Plan {
    /// Reads the event that `body` is.
    #[inline]
    pub(super) fn read<'a>(&self, body: &'a [u8]) -> Result<Slots<'a>, DecodeError> {
        let mut input = Input::new(body);
        let mut slots: Slots<'a> = self.defaults;
        let steps = match &self.root {
            Root::Record(steps) => steps,
            Root::Union(branches) => chosen(branches, &mut input)?,
        };
        for step in steps {
            self.step(step, &mut input, &mut slots)?;
        }
        input.finish()?;
        Ok(slots)
    }

    #[inline(always)]
    fn step<'a>(&self, step: &Step, input: &mut Input<'a>, slots: &mut Slots<'a>) -> Result<(), DecodeError> {
        match step {
            Step::UserId => slots.user_id = input.string()?,
            Step::SessionId => slots.session_id = input.string()?,
            Step::PageUrl => slots.page_url = input.string()?,
            Step::EventType(symbols) => {
                let index = usize::try_from(input.long()?).map_err(|_| DecodeError::UnknownSymbol)?;
                slots.event_type = symbols.get(index).copied().flatten().ok_or(DecodeError::UnknownSymbol)?;
            }
            Step::Timestamp => slots.timestamp = input.long()?,
            Step::TimestampFromInt => slots.timestamp = i64::from(input.int()?),
            Step::SessionDuration => slots.session_duration = Some(input.int()?),
            Step::NoSessionDuration => slots.session_duration = None,
            Step::Skip(skip) => self.named.skip(skip, input, 0)?,
            Step::Union(branches) => self.branch(chosen(branches, input)?, input, slots)?,
        }
        Ok(())
    }

    /// Reads a value of a union. It is no union itself.
    fn branch<'a>(&self, step: &Step, input: &mut Input<'a>, slots: &mut Slots<'a>) -> Result<(), DecodeError> {
        self.step(step, input, slots)
    }
}

/// Reads a branch number, and finds what resolves it.
#[inline]
pub(super) fn chosen<'p, T>(branches: &'p [Option<T>], input: &mut Input<'_>) -> Result<&'p T, DecodeError> {
    let branch = usize::try_from(input.long()?).map_err(|_| DecodeError::UnknownBranch)?;
    let branch = branches.get(branch).ok_or(DecodeError::UnknownBranch)?;
    branch.as_ref().ok_or(DecodeError::UnreadableBranch)
}

impl Extent {
    /// Moves `input` past one body.
    pub(super) fn skip(&self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        self.named.skip(&self.skip, input, 0)
    }
}

impl Named {
    /// Moves `input` past one value. Takes time in proportion to the bytes it passes, however many values they claim.
    #[inline]
    pub(super) fn skip(&self, skip: &Skip, input: &mut Input<'_>, depth: u32) -> Result<(), DecodeError> {
        let skip = match skip {
            Skip::Union(branches) => {
                let branch = usize::try_from(input.long()?).map_err(|_| DecodeError::UnknownBranch)?;
                branches.get(branch).ok_or(DecodeError::UnknownBranch)?
            }
            other => other,
        };
        match skip {
            Skip::Nothing => {}
            Skip::Varint => {
                input.long()?;
            }
            Skip::Bytes => {
                input.bytes()?;
            }
            Skip::Fixed(size) => {
                input.take(*size)?;
            }
            nested => self.skip_nested(nested, input, depth + 1)?,
        }
        Ok(())
    }

    fn skip_nested(&self, skip: &Skip, input: &mut Input<'_>, depth: u32) -> Result<(), DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        match skip {
            Skip::Record(fields) => fields.iter().try_for_each(|field| self.skip(field, input, depth)),
            Skip::Array(item) => self.skip_blocks(None, item, input, depth),
            Skip::Map(value) => self.skip_blocks(Some(&Skip::Bytes), value, input, depth),
            Skip::Named(place) => self.skip(&self.0[*place], input, depth),
            Skip::Nothing | Skip::Varint | Skip::Bytes | Skip::Fixed(_) | Skip::Union(_) => {
                self.skip(skip, input, depth)
            }
        }
    }

    /// Arrays and maps are blocks of items, ended by an empty block. A negative count is followed by the block's bytes.
    fn skip_blocks(
        &self,
        key: Option<&Skip>,
        value: &Skip,
        input: &mut Input<'_>,
        depth: u32,
    ) -> Result<(), DecodeError> {
        loop {
            match input.long()? {
                0 => return Ok(()),
                i64::MIN..0 => {
                    input.bytes()?;
                }
                // Nulls take no bytes, so that their number is bounded by nothing.
                _ if key.is_none() && matches!(value, Skip::Nothing) => {}
                count => {
                    for _ in 0..count {
                        key.map_or(Ok(()), |key| self.skip(key, input, depth))?;
                        self.skip(value, input, depth)?;
                    }
                }
            }
        }
    }
}
