//! The API's description (OpenAPI 3.1): made of the routes and the types that answer, so that it cannot drift from them.
//!
//! A route and its description are one thing (`#[utoipa::path]` and `routes!`). What every operation has in common is
//! added here: the bearer token, and the problems that it can answer with, of which each operation names its own in
//! [`own_problems`]. docs/openapi.json is a copy that a test compares; see CONTRIBUTING.md.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder, Schema, Type,
};
use utoipa::{PartialSchema as _, ToSchema};

use super::kind::Kind;
use super::params::Params;
use super::problem::{Problem, ProblemBody};

/// Name of the security scheme.
const TOKEN: &str = "token";
/// Operations that change nothing.
const READS: [&str; 19] = [
    "live",
    "ready",
    "openapi",
    "metrics",
    "summary",
    "stream_events",
    "list_rules",
    "get_rule",
    "check_rule",
    "import_rules",
    "list_versions",
    "get_version",
    "diff_versions",
    "list_rule_placements",
    "list_placements",
    "get_placement",
    "list_edges",
    "get_edge",
    "export",
];
/// Operations that need no token.
const OPEN: [&str; 3] = ["live", "ready", "openapi"];

/// `GET /api/v1/openapi.json`. It needs no token: it tells the same of every installation.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "monitoring",
    responses((status = 200, description = "This document", body = Object))
)]
pub(super) async fn openapi(params: Params) -> Result<Response, Problem> {
    static TEXT: LazyLock<String> = LazyLock::new(text);
    params.finish()?;
    Ok(([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response())
}

/// The document as it is served and committed.
pub(super) fn text() -> String {
    let document = super::routes().split_for_parts().1;
    let mut text = serde_json::to_string_pretty(&document).expect("the document has text keys");
    text.push('\n');
    text
}

/// What the description begins with.
pub(super) fn beginning() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Tidegate controller")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Conventions (errors, entity tags, idempotency, dry runs, pages) are in docs/api.md. Unknown fields of answers \
             are to be ignored; unknown fields and parameters of requests are refused.",
        ))
        .build();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The administrator's token: file admin.token in the controller's data directory"))
        .build();
    let components = ComponentsBuilder::new()
        .security_scheme(TOKEN, SecurityScheme::Http(scheme))
        .schema(ProblemBody::name(), ProblemBody::schema());
    let mut schemas = Vec::new();
    ProblemBody::schemas(&mut schemas);
    let components = schemas.into_iter().fold(components, |all, (name, schema)| all.schema(name, schema));
    OpenApiBuilder::new().info(info).components(Some(components.build())).build()
}

/// Adds to a description what all operations have in common.
pub(super) fn complete(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(complete_operation);
    }
    for (schema, secret, what, names) in [
        ("RemoteSpec", "password", "password", "password_set"),
        ("TlsSpec", "key", "private key of the client certificate (PEM)", "key_set"),
    ] {
        let found = document.components.as_mut().and_then(|all| all.schemas.get_mut(schema));
        let Some(RefOr::T(Schema::Object(found))) = found else { continue };
        // A secret goes in and never comes out (rule/secret.rs), so that it is in no type that is shown.
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .write_only(true)
            .description(Some(format!("The {what}. Left out it stays as it is; empty it is removed")));
        let set = ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .read_only(true)
            .description(Some(format!("Whether a {what} is kept")));
        found.properties.insert(secret.to_owned(), text.into());
        found.properties.insert(names.to_owned(), set.into());
    }
}

/// The operations of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn complete_operation(operation: &mut Operation) {
    let id = operation.operation_id.clone().unwrap_or_default();
    if !OPEN.contains(&id.as_str()) {
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, Vec::<String>::new())]);
    }
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in problems(&id) {
        by_status.entry(kind.status().as_u16()).or_default().push(kind);
    }
    for (status, kinds) in by_status {
        let told = kinds.iter().map(|kind| format!("`{}` ({}): {}", kind.code(), kind.slug(), kind.title()));
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new()
            .description(told.collect::<Vec<_>>().join("; "))
            .content("application/problem+json", content);
        operation.responses.responses.insert(status.to_string(), response.build().into());
    }
}

/// The problems that an operation can answer with.
pub(super) fn problems(operation: &str) -> Vec<Kind> {
    let mut all = vec![
        Kind::UriTooLong,
        Kind::HeadersTooLarge,
        Kind::TooLarge,
        Kind::RateLimited,
        Kind::InvalidRequest,
        Kind::Internal,
        Kind::Unavailable,
    ];
    if !OPEN.contains(&operation) {
        all.extend([Kind::Unauthenticated, Kind::Forbidden]);
    }
    if !READS.contains(&operation) {
        // A controller that another one replaced decides nothing any more.
        all.push(Kind::Superseded);
    }
    all.extend_from_slice(own_problems(operation));
    all.sort_unstable();
    all.dedup();
    all
}

/// The problems of an operation beside those that all have.
fn own_problems(operation: &str) -> &'static [Kind] {
    use Kind::*;
    match operation {
        "list_rules" | "list_placements" | "list_edges" | "stream_events" | "summary" | "live" | "ready"
        | "metrics" | "openapi" | "export" => &[],
        "create_rule" => {
            &[BadBody, RequestTimeout, UnsupportedMediaType, InvalidRule, RuleExists, Limit, KeyReused]
        }
        "check_rule" | "import_rules" => {
            &[BadBody, RequestTimeout, UnsupportedMediaType, InvalidRule, KeyReused]
        }
        "get_rule" | "list_rule_placements" | "list_versions" => &[BadPath, UnknownRule],
        "explain_rule" => &[BadPath, UnknownRule, UnknownEdge, InvalidOnEdge],
        "put_rule" => &[
            BadPath,
            BadBody,
            RequestTimeout,
            UnsupportedMediaType,
            InvalidRule,
            InvalidOnEdge,
            ClientIdClash,
            LoopBetweenRules,
            UnknownRule,
            VersionConflict,
            AlreadyThere,
            PreconditionRequired,
            Limit,
        ],
        "patch_rule" => &[
            BadPath,
            BadBody,
            RequestTimeout,
            UnsupportedMediaType,
            InvalidRule,
            InvalidOnEdge,
            ClientIdClash,
            LoopBetweenRules,
            UnknownRule,
            VersionConflict,
            PreconditionRequired,
        ],
        "delete_rule" => &[BadPath, UnknownRule, VersionConflict, PreconditionRequired],
        "get_version" | "diff_versions" => &[BadPath, UnknownRule, UnknownVersion],
        "restore_rule" => &[
            BadPath,
            BadBody,
            RequestTimeout,
            UnsupportedMediaType,
            UnknownRule,
            UnknownVersion,
            VersionConflict,
            InvalidOnEdge,
            ClientIdClash,
            LoopBetweenRules,
            KeyReused,
        ],
        "place_rule" => &[
            BadPath,
            BadBody,
            RequestTimeout,
            UnsupportedMediaType,
            UnknownRule,
            UnknownEdge,
            InvalidOnEdge,
            ClientIdClash,
            LoopBetweenRules,
            Limit,
        ],
        "unplace_rule" | "get_placement" => &[BadPath, UnknownRule, UnknownEdge, UnknownPlacement],
        "act" => &[
            BadPath,
            ForgottenTwin,
            BadBody,
            RequestTimeout,
            UnsupportedMediaType,
            UnknownRule,
            UnknownEdge,
            UnknownPlacement,
            UnknownAction,
            EdgeOffline,
            CloudBehind,
            DuplicateEdge,
            Busy,
            NotAllowed,
            UnsupportedField,
            KeyReused,
        ],
        "act_on_many" => &[BadBody, RequestTimeout, UnsupportedMediaType, KeyReused],
        "create_edge" => &[BadBody, RequestTimeout, UnsupportedMediaType, EdgeExists, Limit, KeyReused],
        "get_edge" => &[BadPath, UnknownEdge],
        "remove_edge" => &[BadPath, UnknownEdge, EdgeInUse],
        "remove_unmanaged_rule" => &[BadPath, UnknownEdge, UnknownUnmanaged, OfTheSite],
        "confirm_edge" => &[
            BadPath,
            BadBody,
            RequestTimeout,
            UnknownEdge,
            NothingToConfirm,
            EpochTooFar,
            GenerationTooFar,
            KeyReused,
        ],
        unknown => unreachable!("operation {unknown} has no list of problems; a test asks for each"),
    }
}
