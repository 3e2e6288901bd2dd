//! Events out of bare Avro bodies.

use std::borrow::Cow;

use apache_avro::Schema;
use clicktide_dataflows::event::EventType;

use super::input::Input;
use super::plan::{Plan, SchemaError, Skip, Step};
use super::{CLICK_EVENT_SCHEMA, DecodeError};
use crate::event::DecodedEvent;

/// How deep skipped values may be nested, which bounds the stack that a recursive schema takes.
const DEPTH_MAX: u32 = 512;

/// Reads events that were written with one schema.
///
/// Made once per writer schema; from then on reading an event is a walk along its fields that borrows from the body and
/// allocates nothing. Fields that the analytics do not need are passed over and not looked into.
#[derive(Clone, Debug)]
pub struct Decoder {
    plan: Plan,
}

impl Decoder {
    /// Reads bodies written with `writer_schema`, the JSON text of an Avro schema: a record with our fields in any order,
    /// of our types, and any other fields. The fields that the analytics do not need may be missing.
    ///
    /// # Errors
    /// When the text is not an Avro schema, or a field that the analytics need is missing or of another type.
    pub fn new(writer_schema: &str) -> Result<Self, SchemaError> {
        let schema = Schema::parse_str(writer_schema).map_err(|error| SchemaError::Invalid(error.to_string()))?;
        Ok(Self { plan: Plan::read_event(&schema)? })
    }

    /// Reads the event that `body` is, from its first byte to its last.
    ///
    /// # Errors
    /// When `body` is not exactly one event of the writer schema. Whatever the bytes, nothing panics, and nothing is
    /// allocated.
    #[inline]
    pub fn decode<'a>(&self, body: &'a [u8]) -> Result<DecodedEvent<'a>, DecodeError> {
        let mut input = Input::new(body);
        let (mut user_id, mut session_id, mut page_url) = ("", "", "");
        let (mut event_type, mut timestamp, mut session_duration) = (EventType::View, 0, None);
        // The plan reads each of them, save the duration, whose default is null.
        for step in &self.plan.steps {
            match step {
                Step::UserId => user_id = input.string()?,
                Step::SessionId => session_id = input.string()?,
                Step::PageUrl => page_url = input.string()?,
                Step::EventType(symbols) => {
                    let index = usize::try_from(input.long()?).map_err(|_| DecodeError::UnknownSymbol)?;
                    event_type = symbols.get(index).copied().flatten().ok_or(DecodeError::UnknownSymbol)?;
                }
                Step::Timestamp => timestamp = input.long()?,
                Step::SessionDuration { null_branch } => {
                    session_duration = match input.long()? {
                        branch if branch == *null_branch => None,
                        0 | 1 => Some(input.int()?),
                        _ => return Err(DecodeError::UnknownBranch),
                    };
                }
                Step::Skip(skip) => self.plan.skip(skip, &mut input, 0)?,
            }
        }
        input.finish()?;
        let (user_id, session_id, page_url) = (user_id.into(), session_id.into(), Cow::Borrowed(page_url));
        Ok(DecodedEvent { user_id, session_id, page_url, event_type, timestamp, session_duration })
    }
}

/// Reads bodies written with the published schema, [`CLICK_EVENT_SCHEMA`].
impl Default for Decoder {
    fn default() -> Self {
        Self::new(CLICK_EVENT_SCHEMA).expect("the published schema is readable")
    }
}

impl Plan {
    /// Moves `input` past one value. Takes time in proportion to the bytes it passes, however many values they claim.
    pub(super) fn skip(&self, skip: &Skip, input: &mut Input<'_>, depth: u32) -> Result<(), DecodeError> {
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
            Skip::Union(branches) => {
                let branch = usize::try_from(input.long()?).map_err(|_| DecodeError::UnknownBranch)?;
                self.skip(branches.get(branch).ok_or(DecodeError::UnknownBranch)?, input, depth)
            }
            Skip::Record(fields) => fields.iter().try_for_each(|field| self.skip(field, input, depth)),
            Skip::Array(item) => self.skip_blocks(None, item, input, depth),
            Skip::Map(value) => self.skip_blocks(Some(&Skip::Bytes), value, input, depth),
            Skip::Named(place) => self.skip(&self.named[*place], input, depth),
            Skip::Nothing | Skip::Varint | Skip::Bytes | Skip::Fixed(_) => self.skip(skip, input, depth),
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
