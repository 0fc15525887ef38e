//! Every kind of problem that the API answers with: one table of status, code, title and what to do.
//!
//! docs/operations.md shows the same table, and the OpenAPI document lists for each operation which of them it can answer;
//! tests compare both with this one.

use axum::http::StatusCode;

macro_rules! kinds {
    ($( $name:ident = $slug:literal, $status:literal, $code:literal, $title:literal, $next:literal; )*) => {
        /// A kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Kind {
            $( #[doc = $title] $name, )*
        }

        impl Kind {
            /// Every kind.
            #[cfg_attr(not(test), expect(dead_code, reason = "the documents are compared with it"))]
            pub(super) const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The last part of `type`: `/problems/{slug}`.
            pub(super) fn slug(self) -> &'static str {
                match self { $( Self::$name => $slug, )* }
            }

            /// What `type` says.
            pub(super) fn path(self) -> String {
                format!("/problems/{}", self.slug())
            }

            /// The HTTP status.
            pub(super) fn status(self) -> StatusCode {
                let status = match self { $( Self::$name => $status, )* };
                StatusCode::from_u16(status).expect("the table holds HTTP statuses")
            }

            /// The code, for programs. Kinds that a program handles alike share one.
            pub(super) fn code(self) -> &'static str {
                match self { $( Self::$name => $code, )* }
            }

            /// The kind in words.
            pub(super) fn title(self) -> &'static str {
                match self { $( Self::$name => $title, )* }
            }

            /// What to do.
            pub(super) fn next(self) -> &'static str {
                match self { $( Self::$name => $next, )* }
            }
        }
    };
}

kinds! {
    BadBody = "bad-body", 400, "BAD_REQUEST", "The body ended early", "send it again";
    BadPath = "bad-path", 400, "BAD_REQUEST", "The path cannot be read", "escape names in a path as UTF-8 (%C3%A9)";
    Unauthenticated = "unauthenticated", 401, "UNAUTHENTICATED", "A token is needed", "send the administrator's token (file admin.token in the controller's data directory) as 'Authorization: Bearer tga_…'";
    Forbidden = "forbidden", 403, "FORBIDDEN", "Not allowed", "use a token that may do this; the credential of an edge opens MQTT only";
    UnknownPath = "unknown-path", 404, "UNKNOWN_PATH", "There is nothing at this path", "look the path up in /api/v1/openapi.json; it has no trailing slash";
    UnknownRule = "unknown-rule", 404, "UNKNOWN_RULE", "No such rule", "list the rules (GET /api/v1/rules), or create it";
    UnknownVersion = "unknown-version", 404, "UNKNOWN_VERSION", "No such version", "list the rule's versions";
    UnknownEdge = "unknown-edge", 404, "UNKNOWN_EDGE", "No such edge", "list the edges (GET /api/v1/edges), or make it known";
    UnknownPlacement = "unknown-placement", 404, "UNKNOWN_RULE", "The rule is not on this edge", "place it first";
    UnknownUnmanaged = "unknown-unmanaged-rule", 404, "UNKNOWN_RULE", "No such rule on the edge", "read the edge (GET /api/v1/edges/{edge}): unmanaged lists such rules with their ids";
    UnknownAction = "unknown-action", 404, "UNKNOWN_ACTION", "No such action", "use issue, issue-again, sync, start or stop";
    MethodNotAllowed = "method-not-allowed", 405, "METHOD_NOT_ALLOWED", "No such method", "use a method that the Allow header names";
    RequestTimeout = "request-timeout", 408, "REQUEST_TIMEOUT", "The body came too slowly", "send the whole body within the time that the detail names";
    RuleExists = "rule-exists", 409, "CONFLICT", "The rule exists already", "change it with PUT or PATCH and If-Match, or choose another name";
    EdgeExists = "edge-exists", 409, "CONFLICT", "The edge exists already", "use its credential; if that is lost, remove the edge and make it again";
    EdgeInUse = "edge-in-use", 409, "CONFLICT", "Rules are on this edge", "take them off first, or leave them running with leave_running=true";
    EpochTooFar = "epoch-too-far", 409, "CONFLICT", "The edge obeyed a controller of the far future", "look at the clocks of both, then empty the edge's data directory so that it begins anew";
    GenerationTooFar = "generation-too-far", 409, "CONFLICT", "The edge names a generation that nobody can have given", "give the edge a new credential, then empty its data directory so that it begins anew";
    NothingToConfirm = "nothing-to-confirm", 409, "CONFLICT", "There is nothing to confirm", "nothing: the edge is not ahead of the cloud";
    OfTheSite = "rule-of-the-site", 409, "CONFLICT", "The rule belongs to the site", "remove its file on the gateway, or ask who runs it";
    ForgottenTwin = "forgotten-twin", 409, "CONFLICT", "The edge runs another rule of this name", "remove that one first (DELETE /api/v1/edges/{edge}/unmanaged/{rule})";
    EdgeOffline = "edge-offline", 409, "EDGE_OFFLINE", "The edge is offline", "try again when it is back, or queue the action (when_offline=queue)";
    CloudBehind = "cloud-behind", 409, "CLOUD_BEHIND", "The edge is ahead of the cloud", "look at what the edge runs, then confirm it (POST /api/v1/edges/{edge}/confirm)";
    DuplicateEdge = "duplicate-edge", 409, "DUPLICATE_EDGE", "Two gateways use this identity", "find the second gateway and give it an identity of its own";
    Busy = "busy", 409, "BUSY", "Something else is under way", "wait until it ended";
    Superseded = "superseded", 409, "STALE_CONTROLLER", "Another controller leads", "stop one of the two; the one that is to lead has to be started last";
    NotAllowed = "not-allowed", 409, "NOT_ALLOWED", "Not possible in this state", "choose one of the actions that are allowed now";
    VersionConflict = "version-conflict", 412, "CONFLICT", "The rule was changed in between", "read the rule again and repeat the change with its new ETag";
    AlreadyThere = "already-there", 412, "CONFLICT", "The rule exists already", "change it with If-Match instead of If-None-Match: *";
    TooLarge = "too-large", 413, "TOO_LARGE", "The body is too large", "send less; the detail names the bound";
    UriTooLong = "uri-too-long", 414, "URI_TOO_LONG", "The path or the query is too long", "shorten it; the detail names the bound";
    UnsupportedMediaType = "unsupported-media-type", 415, "UNSUPPORTED_MEDIA_TYPE", "Unsupported content type", "send the Content-Type that the detail names";
    InvalidRequest = "invalid-request", 422, "BAD_REQUEST", "The request is not valid", "correct what errors lists";
    InvalidRule = "invalid-rule", 422, "INVALID_CONFIG", "The rule is not valid", "correct what errors lists";
    InvalidOnEdge = "invalid-on-edge", 422, "INVALID_CONFIG", "The rule does not fit this edge", "correct the rule, or its variables on that edge";
    ClientIdClash = "client-id-clash", 422, "INVALID_CONFIG", "Another rule uses this client id", "give one of the two rules another remote.client_id";
    LoopBetweenRules = "loop-between-rules", 422, "INVALID_CONFIG", "Messages would go round between rules of an edge", "give one of the two a prefix that the other does not match, or leave the topics out with exclude";
    UnsupportedField = "unsupported-field", 422, "UNSUPPORTED_FIELD", "The agent is too old for this rule", "update the agent on the edge, or leave the field out";
    Limit = "limit", 422, "TOO_LARGE", "A bound would be passed", "remove what is no longer used";
    KeyReused = "key-reused", 422, "IDEMPOTENCY_KEY_REUSED", "The Idempotency-Key belongs to another request", "make a new key for each request, and use it again only to repeat the very same one";
    PreconditionRequired = "precondition-required", 428, "PRECONDITION_REQUIRED", "A precondition is needed", "read the rule and send its ETag as If-Match; a new rule is made with If-None-Match: *";
    RateLimited = "rate-limited", 429, "RATE_LIMITED", "Too many requests", "wait for as long as Retry-After says; http_rate sets the bound";
    HeadersTooLarge = "headers-too-large", 431, "HEADERS_TOO_LARGE", "Too many or too large headers", "send fewer and shorter headers";
    Internal = "internal", 500, "INTERNAL", "Internal error", "look the request id up in the controller's log and report the defect";
    Unavailable = "unavailable", 503, "UNAVAILABLE", "Not available now", "try again after Retry-After; if it lasts, look at the controller's log";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_statuses_are_errors() {
        let slugs: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.status().as_u16() >= 400 && !kind.next().ends_with('.'), "{kind:?}");
        }
    }
}
