//! The events of one window, and its results by their definitions.

use std::rc::Rc;

use clicktide_dataflows::event::{EventType, PageAnalytics};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use super::Click;

/// A text of the window, by its place in [`Texts`].
type TextId = u32;

/// An event in the window.
struct Active {
    leave: i64,
    user: TextId,
    session: TextId,
    page: TextId,
    event_type: EventType,
    time_ms: i64,
    session_duration_s: Option<i32>,
}

/// The events that the current window end counts.
#[derive(Default)]
pub(super) struct Window {
    active: Vec<Active>,
    texts: Texts,
}

/// A session's events in the window, on any page.
struct Session {
    events: u64,
    only_views: bool,
    reported_s: Option<i32>,
    first_ms: i64,
    last_ms: i64,
}

impl Session {
    fn bounced(&self) -> bool {
        self.events == 1 && self.only_views
    }

    fn duration_ms(&self) -> i64 {
        self.reported_s.map_or(self.last_ms - self.first_ms, |seconds| i64::from(seconds) * 1_000)
    }
}

/// What a page's result is made of.
#[derive(Default)]
struct Page {
    views: i64,
    clicks: i64,
    purchases: i64,
    users: i32,
    sessions: u64,
    engaged: u64,
    bounced: u64,
    duration_ms: i128,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Forgets the events that the window ending at `end` no longer counts.
    pub(super) fn leave(&mut self, end: i64) {
        let texts = &mut self.texts;
        self.active.retain(|event| {
            let stays = event.leave > end;
            if !stays {
                [event.user, event.session, event.page].into_iter().for_each(|id| texts.release(id));
            }
            stays
        });
    }

    /// Adds an event that counts until `leave`.
    pub(super) fn enter(&mut self, leave: i64, click: &Click) {
        self.active.push(Active {
            leave,
            user: self.texts.id(&click.user_id),
            session: self.texts.id(&click.session_id),
            page: self.texts.id(&click.page_url),
            event_type: click.event_type,
            time_ms: click.time_ms,
            session_duration_s: click.session_duration_s,
        });
    }

    /// The result of every page with an event, in order of page.
    pub(super) fn results(&self, end: i64, size_ms: i64, mut on_result: impl FnMut(PageAnalytics)) {
        let mut sessions: HashMap<TextId, Session> = HashMap::new();
        let mut pages: HashMap<TextId, Page> = HashMap::new();
        let mut users: HashSet<(TextId, TextId)> = HashSet::new();
        // By page and session: whether the session did more there than view it.
        let mut visits: HashMap<(TextId, TextId), bool> = HashMap::new();
        for event in &self.active {
            let is_view = event.event_type == EventType::View;
            let session = sessions.entry(event.session).or_insert(Session {
                events: 0,
                only_views: true,
                reported_s: None,
                first_ms: event.time_ms,
                last_ms: event.time_ms,
            });
            session.events += 1;
            session.only_views &= is_view;
            session.reported_s = session.reported_s.max(event.session_duration_s);
            session.first_ms = session.first_ms.min(event.time_ms);
            session.last_ms = session.last_ms.max(event.time_ms);

            let page = pages.entry(event.page).or_default();
            match event.event_type {
                EventType::View => page.views += 1,
                EventType::Click => page.clicks += 1,
                EventType::Purchase => page.purchases += 1,
                EventType::AddToCart | EventType::Search => {}
            }
            if users.insert((event.page, event.user)) {
                page.users += 1;
            }
            *visits.entry((event.page, event.session)).or_default() |= !is_view;
        }
        for ((page, session), engaged) in visits {
            let page = pages.entry(page).or_default();
            let session = &sessions[&session];
            page.sessions += 1;
            page.engaged += u64::from(engaged);
            page.bounced += u64::from(session.bounced());
            page.duration_ms += i128::from(session.duration_ms());
        }
        let mut pages: Vec<_> = pages.into_iter().map(|(id, page)| (self.texts.text(id), page)).collect();
        pages.sort_unstable_by_key(|(page_url, _)| *page_url);
        for (page_url, page) in pages {
            let sessions = page.sessions as f64;
            on_result(PageAnalytics {
                page_url: page_url.to_owned(),
                window_start: end - size_ms,
                window_end: end,
                view_count: page.views,
                unique_users: page.users,
                click_count: page.clicks,
                conversion_count: page.purchases,
                engagement_rate: page.engaged as f64 / sessions,
                bounce_rate: page.bounced as f64 / sessions,
                avg_session_duration: page.duration_ms as f64 / sessions / 1_000.0,
            });
        }
    }
}

/// The texts of the window's events, each kept once and for as long as an event has it.
#[derive(Default)]
struct Texts {
    ids: HashMap<Rc<str>, TextId>,
    texts: Vec<(Rc<str>, u32)>,
    free: Vec<TextId>,
}

impl Texts {
    /// The id of `text`, used once more.
    fn id(&mut self, text: &str) -> TextId {
        if let Some(id) = self.ids.get(text) {
            self.texts[*id as usize].1 += 1;
            return *id;
        }
        let text: Rc<str> = text.into();
        let id = match self.free.pop() {
            Some(id) => {
                self.texts[id as usize] = (text.clone(), 1);
                id
            }
            None => {
                self.texts.push((text.clone(), 1));
                (self.texts.len() - 1) as TextId
            }
        };
        self.ids.insert(text, id);
        id
    }

    fn text(&self, id: TextId) -> &str {
        &self.texts[id as usize].0
    }

    /// Undoes one use; a text without uses is forgotten.
    fn release(&mut self, id: TextId) {
        let (text, uses) = &mut self.texts[id as usize];
        *uses -= 1;
        if *uses == 0 {
            self.ids.remove(text);
            *text = "".into();
            self.free.push(id);
        }
    }
}
