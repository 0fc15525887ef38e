//! Answers outside the API's objects: health, readiness, metrics.

use serde_json::Value;

use super::{Client, ClientError, header};

/// An answer as it came, whatever its status.
#[derive(Debug)]
pub struct Probe {
    /// The status.
    pub status: u16,
    /// The server's clock, in seconds since 1970; whole seconds.
    pub date: Option<i64>,
    /// The body.
    pub text: String,
    /// The body, where it is JSON.
    pub json: Value,
}

impl Client {
    /// Reads a path of the server, not of the API.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]: there is no answer.
    pub async fn probe(&self, path: &str) -> Result<Probe, ClientError> {
        let mut request = self.http.get(format!("{}{path}", self.base)).timeout(self.answer_timeout());
        if let Some(token) = self.bearer()? {
            request = request.header("authorization", token);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let date = header(&response, "date");
        let date =
            date.and_then(|date| jiff::fmt::rfc2822::parse(&date).ok()).map(|at| at.timestamp().as_second());
        let bytes = self.read_bounded(response).await.map_err(super::Sent::into_error)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Ok(Probe { status, date, text, json })
    }

    /// Host and port of the server; an IPv6 host in brackets.
    pub fn host_port(&self) -> Option<(String, u16)> {
        let url = reqwest::Url::parse(&self.base).ok()?;
        Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
    }
}
