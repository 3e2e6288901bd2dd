//! `/v1/openapi.json`: the API's own document, made of what the server serves.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use utoipa::openapi::Components;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::{OpenApi as _, PartialSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{self, Token};
use super::problem::{Problem, ProblemBody};

/// What every server's document begins with.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Clicktide", description = include_str!("openapi.md")),
    tags(
        (name = "windows", description = "Closed windows, which never change again."),
        (name = "pages", description = "The results of pages in closed windows."),
        (name = "job", description = "The job itself."),
        (name = "operation", description = "Health, metrics and this document."),
    )
)]
struct Document;

/// The name of the way in which a token is given.
const BEARER: &str = "token";

/// The routes that are `open` to all, those of `guarded` for whoever has the token, if there is one, and the document of both.
pub(super) fn with_document(open: OpenApiRouter, guarded: OpenApiRouter, token: Option<Token>) -> Router {
    let text = Arc::new(OnceLock::new());
    let own = OpenApiRouter::new().routes(routes!(document)).with_state(Arc::clone(&text));
    let (open, open_described) = open.split_for_parts();
    let (mut guarded, mut guarded_described) = guarded.merge(own).split_for_parts();
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());
    if let Some(token) = token {
        guarded = guarded.route_layer(from_fn_with_state(token, auth::require));
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The text of `http.token`."));
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
        guarded_described.paths.paths.values_mut().flat_map(operations).for_each(describe_token);
    }
    document.merge(open_described);
    document.merge(guarded_described);
    document.paths.paths.values_mut().flat_map(operations).for_each(describe_url);
    text.get_or_init(|| super::json(&document));
    open.merge(guarded)
}

fn describe_url(operation: &mut Operation) {
    let too_long = Problem::described("The path and the query are too long.");
    operation.responses.responses.insert("414".to_owned(), too_long.into());
}

fn describe_token(operation: &mut Operation) {
    operation.security.get_or_insert_default().push(SecurityRequirement::new(BEARER, [""; 0]));
    let missing = Problem::described("The request has no token, or another one.");
    operation.responses.responses.insert("401".to_owned(), missing.into());
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// This document: OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "operation",
    responses((status = 200, description = "The document.", body = serde_json::Value))
)]
async fn document(State(text): State<Arc<OnceLock<String>>>) -> Response {
    super::json_text(text.get().cloned().unwrap_or_default())
}
