//! What was put into the traffic beside clean events, by kind.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::form::Form;
use crate::validation::Reason;

/// What is unusual about a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Which rule its event was made to break.
    pub invalid: Option<Reason>,
    /// It was sent later than its event happened.
    pub delayed: bool,
    /// It was kept for an upload.
    pub uploaded: bool,
    /// It was sent before.
    pub duplicate: bool,
    /// Its user's clock is wrong.
    pub skewed: bool,
    /// Its user is a bot.
    pub bot: bool,
    /// Its page was chosen because it is hot.
    pub hot: bool,
}

/// How many records of each kind have been sent. One may be of several kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Sent later than the event happened.
    pub delayed: u64,
    /// Kept for an upload.
    pub uploaded: u64,
    /// Sent before.
    pub duplicates: u64,
    /// Cut off.
    pub truncated: u64,
    /// Replaced by arbitrary bytes.
    pub garbage: u64,
    /// Replaced by nothing.
    pub empty: u64,
    /// Replaced by a record of another schema.
    pub other_schema: u64,
    /// Events that break a rule, in the order of [`Reason::all`].
    pub invalid: [u64; REASONS],
    /// Of users whose clocks are wrong.
    pub skewed: u64,
    /// Of bots.
    pub bots: u64,
    /// On a page because it is hot.
    pub hot_page: u64,
    /// Not sent at all, since their partition was silent.
    pub silenced: u64,
}

/// How many reasons there are.
const REASONS: usize = 11;

impl Injected {
    /// Counts a record that was sent.
    pub fn count(&mut self, form: Form, marks: &Marks) {
        match form {
            Form::Event => {}
            Form::Truncated { .. } => self.truncated += 1,
            Form::Garbage { .. } => self.garbage += 1,
            Form::Empty => self.empty += 1,
            Form::OtherSchema { .. } => self.other_schema += 1,
        }
        // What cannot be decoded breaks no rule that could be seen.
        if form == Form::Event
            && let Some(place) = Reason::all().iter().position(|reason| Some(*reason) == marks.invalid)
        {
            self.invalid[place] += 1;
        }
        for (count, counts) in [
            (&mut self.delayed, marks.delayed),
            (&mut self.uploaded, marks.uploaded),
            (&mut self.duplicates, marks.duplicate),
            (&mut self.skewed, marks.skewed),
            (&mut self.bots, marks.bot),
            (&mut self.hot_page, marks.hot),
        ] {
            *count += u64::from(counts);
        }
    }

    /// Each kind by the name that reports and metrics have for it, and how many there were.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let own = [
            ("delayed", self.delayed),
            ("uploaded", self.uploaded),
            ("duplicate", self.duplicates),
            ("truncated", self.truncated),
            ("garbage", self.garbage),
            ("empty", self.empty),
            ("other_schema", self.other_schema),
            ("skewed", self.skewed),
            ("bot", self.bots),
            ("hot_page", self.hot_page),
            ("silenced", self.silenced),
        ];
        let invalid = self.invalid;
        let reasons = Reason::all().iter().zip(invalid).filter(|(reason, _)| **reason != Reason::Undecodable);
        own.into_iter().chain(reasons.map(|(reason, count)| (reason.label(), count)))
    }

    /// Records that cannot be decoded.
    pub fn undecodable(&self) -> u64 {
        self.truncated + self.garbage + self.empty + self.other_schema
    }
}

/// A map from the kinds to how many there were.
impl Serialize for Injected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (kind, count) in self.kinds() {
            map.serialize_entry(kind, &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_under_its_own_name() {
        assert_eq!(Reason::all().len(), REASONS);
        let mut injected = Injected { silenced: 1, ..Injected::default() };
        let marks =
            Marks { delayed: true, uploaded: true, duplicate: true, skewed: true, bot: true, hot: true, invalid: None };
        injected.count(Form::Event, &marks);
        for form in [Form::Truncated { left: 0 }, Form::Garbage { seed: 0 }, Form::Empty, Form::OtherSchema { seed: 0 }]
        {
            injected.count(form, &Marks { invalid: Some(Reason::EmptyUserId), ..Marks::default() });
        }
        for reason in Reason::all().iter().filter(|reason| **reason != Reason::Undecodable) {
            injected.count(Form::Event, &Marks { invalid: Some(*reason), ..Marks::default() });
        }
        let kinds: std::collections::BTreeMap<_, _> = injected.kinds().collect();
        assert_eq!(kinds.len(), 21);
        assert!(kinds.values().all(|count| *count == 1), "{kinds:?}");
        assert_eq!(injected.undecodable(), 4);
        assert_eq!(serde_json::to_value(injected).unwrap()["empty_user_id"], 1);
    }
}
