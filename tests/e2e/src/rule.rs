//! Rule files as an operator writes them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A rule file in the making.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The rule's name.
    pub name: String,
    /// Put before forwarded topics.
    pub mountpoint: String,
    /// The remote broker.
    pub remote: SocketAddr,
    /// Its URL, in place of the one of `remote`.
    pub url: Option<String>,
    /// User name and password there.
    pub login: Option<(String, String)>,
    /// Keep-alive, as text.
    pub keep_alive: String,
    /// `auto` or `manual`; the default if `None`.
    pub start: Option<String>,
    /// Filters, local to remote.
    pub forwards: Vec<String>,
    /// Filters, remote to local.
    pub subscriptions: Vec<String>,
    /// More TOML, such as a `[queue]` table.
    pub more: String,
}

impl Rule {
    /// A rule that forwards `sensors/#` under `plant/{edge}/`.
    #[must_use]
    pub fn new(name: &str, remote: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            mountpoint: "plant/{edge}/".to_owned(),
            remote,
            url: None,
            login: None,
            keep_alive: "5s".to_owned(),
            start: None,
            forwards: vec!["sensors/#".to_owned()],
            subscriptions: Vec::new(),
            more: String::new(),
        }
    }

    /// Its text.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut text = format!("name = {:?}\nmountpoint = {:?}\n", self.name, self.mountpoint);
        if let Some(start) = &self.start {
            text += &format!("start = {start:?}\n");
        }
        let url = self.url.clone().unwrap_or_else(|| format!("mqtt://{}", self.remote));
        text += &format!(
            "\n[remote]\nurl = {url:?}\nclient_id = \"{{edge}}-{}\"\nkeep_alive = {:?}\n",
            self.name, self.keep_alive
        );
        if let Some((username, password)) = &self.login {
            text += &format!("username = {username:?}\npassword = {password:?}\n");
        }
        for (table, filters) in [("forwards", &self.forwards), ("subscriptions", &self.subscriptions)] {
            for filter in filters {
                // Writing to a text cannot fail.
                let _ = write!(text, "\n[[{table}]]\ntopic = {filter:?}\nqos = 1\n");
            }
        }
        text + "\n" + &self.more
    }

    /// Writes it to a file of its name.
    ///
    /// # Panics
    /// When the directory cannot be written.
    #[must_use]
    pub fn write(&self, dir: &Path) -> PathBuf {
        let file = dir.join(format!("{}.toml", self.name));
        std::fs::write(&file, self.toml()).expect("the test's directory can be written");
        file
    }

    /// The client id that it has on an edge.
    #[must_use]
    pub fn client_id(&self, edge: &str) -> String {
        format!("{edge}-{}", self.name)
    }
}
