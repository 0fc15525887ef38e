//! Lists in pages: `?limit=&cursor=`, and where the next page is.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;

/// Items of a page unless asked otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Items of a page at the most.
const MAX_LIMIT: usize = 500;

/// Which page is asked for.
pub(super) struct Page {
    /// Items of the page at the most.
    limit: usize,
    /// The key of the last item of the page before.
    pub(super) after: Option<String>,
    path: String,
    /// The other parameters, to be repeated in the link to the next page.
    filters: Vec<(String, String)>,
}

impl Page {
    /// Takes `limit` and `cursor`.
    pub(super) fn take(params: &mut Params, path: impl Into<String>) -> Self {
        let filters =
            params.pairs().iter().filter(|(name, _)| name != "limit" && name != "cursor").cloned().collect();
        let limit = match params.parse::<usize>("limit") {
            None => DEFAULT_LIMIT,
            Some(limit) if (1..=MAX_LIMIT).contains(&limit) => limit,
            Some(_) => {
                params.error("limit", "out-of-range", format!("limit is a number from 1 to {MAX_LIMIT}"));
                DEFAULT_LIMIT
            }
        };
        let after = params.text("cursor").and_then(|cursor| {
            let read = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            if read.is_none() {
                params.bad_cursor();
            }
            read
        });
        Self { limit, after, path: path.into(), filters }
    }

    /// How many items to ask for: one more than are shown, to know whether there is a next page.
    pub(super) fn ask(&self) -> usize {
        self.limit + 1
    }

    /// The page of these items. `key` gives an item's key, `wrap` makes the body of items and the cursor of the next page.
    pub(super) fn answer<T, B: Serialize>(
        self,
        mut items: Vec<T>,
        key: impl Fn(&T) -> String,
        wrap: impl FnOnce(Vec<T>, Option<String>) -> B,
    ) -> Response {
        let further = items.len() > self.limit;
        items.truncate(self.limit);
        let cursor = items.last().filter(|_| further).map(|last| URL_SAFE_NO_PAD.encode(key(last)));
        let body = wrap(items, cursor.clone());
        let mut response = Json(body).into_response();
        if let Some(cursor) = cursor {
            let mut link = format!("<{}?limit={}&cursor={cursor}", self.path, self.limit);
            for (name, value) in &self.filters {
                link.push_str(&format!("&{}={}", escape(name), escape(value)));
            }
            link.push_str(">; rel=\"next\"");
            if let Ok(value) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(header::LINK, value);
            }
        }
        response
    }
}

impl Params {
    /// Says that the cursor is none of ours.
    pub(super) fn bad_cursor(&mut self) {
        self.error(
            "cursor",
            "bad-cursor",
            "cursor is the next_cursor of the page before, as it came".to_owned(),
        );
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List<T> {
    /// The items of this page, in the list's order.
    items: Vec<T>,
    /// The `cursor` of the next page; `null`: this is the last.
    next_cursor: Option<String>,
    /// How many items pass the filters in all.
    total: u32,
}

impl<T> List<T> {
    /// A page out of so many.
    pub(super) fn of(total: u32) -> impl FnOnce(Vec<T>, Option<String>) -> Self {
        move |items, next_cursor| Self { items, next_cursor, total }
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
