//! Errors of the HTTP API, as problem+json (RFC 9457).

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

use super::view::NoWindow;

const CONTENT_TYPE: &str = "application/problem+json";

/// An error of a request, with one sentence that says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
}

/// What is wrong with a request (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    r#type: &'a str,
    /// The name of the status.
    title: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, and what would be right.
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// How the API's document describes an answer with a problem.
    pub(super) fn described(description: &str) -> Described {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(description).content(CONTENT_TYPE, content).build()
    }
}

impl From<NoWindow> for Problem {
    fn from(no_window: NoWindow) -> Self {
        let status = match no_window {
            NoWindow::Forgotten { .. } => StatusCode::GONE,
            NoWindow::NoneYet | NoWindow::NotClosed { .. } | NoWindow::NoEnd { .. } => StatusCode::NOT_FOUND,
        };
        Problem::new(status, no_window.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = ProblemBody { r#type: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
        (self.status, [(header::CONTENT_TYPE, CONTENT_TYPE)], super::json(&body)).into_response()
    }
}

/// For the API's document: the answer to parameters that cannot be used.
pub(super) enum BadRequest {}

impl IntoResponses for BadRequest {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([("400", "A parameter is unknown, given twice, or has a value that cannot be used.")])
    }
}

/// For the API's document: the answers where there is no such window or page.
pub(super) enum NoSuchWindow {}

impl IntoResponses for NoSuchWindow {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([
            ("404", "No window has closed yet, or there is no such window or page."),
            ("410", "The window, or the one that the cursor stands at, is no longer kept in memory."),
        ])
    }
}

/// For the API's document: the answer to one stream too many.
pub(super) enum TooManyStreams {}

impl IntoResponses for TooManyStreams {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([("503", "There are as many streams as there can be.")])
    }
}

/// For the API's document: why a request that changes something is refused.
pub(super) enum NoChange {}

impl IntoResponses for NoChange {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([
            ("400", "The body is not what it should be."),
            (
                "403",
                "No token is configured, and the request comes from another machine, or from a page of another site.",
            ),
            ("408", "The body does not come."),
            ("413", "The body is too large."),
            ("415", "The body is not `application/json`."),
        ])
    }
}

/// For the API's document: why there is no savepoint.
pub(super) enum NoSavepoint {}

impl IntoResponses for NoSavepoint {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([
            ("409", "The job takes no checkpoints, has committed nothing yet, or there is a savepoint of that name."),
            ("503", "The job is ending."),
            ("504", "The savepoint was not there in time. It may come later."),
        ])
    }
}

/// For the API's document: why no checkpoints are listed.
pub(super) enum NoCheckpoints {}

impl IntoResponses for NoCheckpoints {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([
            ("404", "The job takes no checkpoints."),
            ("502", "The checkpoint store has failed."),
            ("503", "The process is ending."),
            ("504", "The checkpoint store has not answered in time."),
        ])
    }
}

/// For the API's document: why levels are neither told nor changed.
pub(super) enum NoLevels {}

impl IntoResponses for NoLevels {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([("409", "The process does not log.")])
    }
}

fn described<const N: usize>(problems: [(&str, &str); N]) -> BTreeMap<String, RefOr<Described>> {
    problems.map(|(status, description)| (status.to_owned(), Problem::described(description).into())).into()
}
