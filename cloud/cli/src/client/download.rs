//! An answer that is too large to hold: read piece by piece.

use super::error::root;
use super::{Call, Client, ClientError};

/// A body on its way.
#[derive(Debug)]
pub struct Download {
    url: String,
    response: reqwest::Response,
}

impl Download {
    /// The next piece; `None`: that was all.
    ///
    /// # Errors
    /// [`ClientError::BrokenOff`]: the server stopped in the middle, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        match self.response.chunk().await {
            Ok(piece) => Ok(piece.map(|bytes| bytes.to_vec())),
            Err(error) => Err(ClientError::BrokenOff { url: self.url.clone(), cause: root(&error) }),
        }
    }
}

impl Client {
    /// Does a call whose answer is read piece by piece.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn download(&self, call: Call) -> Result<Download, ClientError> {
        let response = self.request(call)?.send().await.map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() {
            return Ok(Download { url: self.base.clone(), response });
        }
        Err(self.refused(response).await.into_error())
    }
}
