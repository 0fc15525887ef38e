//! The fields of a rule's file: names, types, defaults. The one place that spells them for reading.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::located::Node;
use super::quantity::InvalidQuantity;
use super::reader::{Fields, Reader};
use super::secret::{Secret, SecretInput, SecretInputs};
use super::spec::{
    DrainSpec, OnDrift, OnWipe, PolicySpec, Qos, QueueSpec, RemoteSpec, RouteSpec, RuleSpec, Start, TlsSpec,
    VarSpec, WhenFull, default_client_id, default_keep_alive,
};
use crate::ids::RuleName;

const RULE: [&str; 9] =
    ["name", "mountpoint", "start", "remote", "forwards", "subscriptions", "queue", "policy", "vars"];
/// `password_set` is what the API answers in place of the password; it is read over, so that an answer can be sent back.
const REMOTE: [&str; 10] = [
    "url",
    "fallback_urls",
    "proxy",
    "client_id",
    "username",
    "password",
    "keep_alive",
    "clean_session",
    "tls",
    "password_set",
];
/// `key_set` as `password_set`.
const TLS: [&str; 6] = ["ca", "server_name", "alpn", "certificate", "key", "key_set"];
const ROUTE: [&str; 6] = ["topic", "exclude", "qos", "strip", "prefix", "retain"];
/// The words of `retain` in files; `true` and `false` mean the same.
const RETAIN: [(&str, bool); 2] = [("keep", true), ("clear", false)];
const QUEUE: [&str; 4] = ["max_bytes", "max_age", "when_full", "drain"];
pub(super) const DRAIN: [&str; 2] = ["messages_per_s", "bytes_per_s"];
const POLICY: [&str; 3] = ["verify_s", "on_wipe", "on_drift"];

/// The words of [`Start`] in files.
pub(super) const START: [(&str, Start); 2] = [("auto", Start::Auto), ("manual", Start::Manual)];
/// The words of [`WhenFull`] in files.
pub(super) const WHEN_FULL: [(&str, WhenFull); 2] =
    [("drop_oldest", WhenFull::DropOldest), ("block", WhenFull::Block)];
/// The words of [`OnWipe`] in files.
pub(super) const ON_WIPE: [(&str, OnWipe); 2] = [("issue", OnWipe::Issue), ("keep", OnWipe::Keep)];
/// The words of [`OnDrift`] in files.
pub(super) const ON_DRIFT: [(&str, OnDrift); 2] = [("heal", OnDrift::Heal), ("ask", OnDrift::Ask)];

/// Where a rule's text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// It is sent to the cloud: a path would be one of whoever wrote it.
    Cloud,
    /// It lies on the gateway that runs it.
    Site,
}

/// A field whose text may lie in a file of its own, named by the field with `_file` behind it: on a gateway only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileField {
    /// `remote.password_file`: the first line is the password.
    Password,
    /// `remote.tls.ca_file`.
    Ca,
    /// `remote.tls.certificate_file`.
    Certificate,
    /// `remote.tls.key_file`.
    Key,
}

impl FileField {
    /// The field that names the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "remote.password_file",
            Self::Ca => "remote.tls.ca_file",
            Self::Certificate => "remote.tls.certificate_file",
            Self::Key => "remote.tls.key_file",
        }
    }
}

/// What a text says.
pub(super) struct Decoded {
    pub spec: RuleSpec,
    pub secrets: SecretInputs,
    /// Files that hold fields.
    pub files: BTreeMap<FileField, String>,
}

/// Reads a rule as far as it can be read: what is broken has a stand-in and is noted in the reader.
pub(super) fn rule(tree: &Node, home: Home) -> (Reader, Option<Decoded>) {
    let mut reader = Reader::default();
    let Some(fields) = reader.table(tree, String::new(), &RULE) else { return (reader, None) };
    let Some(stand_in) = RuleName::new("unnamed").ok() else { return (reader, None) };
    let name = name(&mut reader, &fields).unwrap_or(stand_in);
    let mut decoder = Remote { home, secrets: SecretInputs::default(), files: BTreeMap::new() };
    let remote = decoder.remote(&mut reader, &fields);
    let Remote { secrets, files, .. } = decoder;
    let spec = RuleSpec {
        name,
        mountpoint: reader.text(&fields, "mountpoint").unwrap_or_default(),
        start: reader.choice(&fields, "start", &START).unwrap_or_default(),
        remote,
        forwards: routes(&mut reader, &fields, "forwards"),
        subscriptions: routes(&mut reader, &fields, "subscriptions"),
        queue: queue(&mut reader, &fields),
        policy: policy(&mut reader, &fields),
        vars: vars(&mut reader, &fields),
    };
    (reader, Some(Decoded { spec, secrets, files }))
}

pub(super) fn name(reader: &mut Reader, fields: &Fields<'_>) -> Option<RuleName> {
    if fields.get("name").is_none() {
        reader.missing(fields, "name", "write name = \"camera-up\"");
        return None;
    }
    let text = reader.text(fields, "name")?;
    match RuleName::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            let text = error.to_string();
            let (what, help) = text.split_once("; ").unwrap_or((&text, "choose another name"));
            reader.fail(fields.pointer("name"), "bad-name", what, help);
            None
        }
    }
}

/// Reads `[remote]`, and what it says beside the spec.
struct Remote {
    home: Home,
    secrets: SecretInputs,
    files: BTreeMap<FileField, String>,
}

impl Remote {
    fn remote(&mut self, reader: &mut Reader, rule: &Fields<'_>) -> RemoteSpec {
        const URL_HELP: &str = "write url = \"mqtt://broker.example:1883\" in [remote]";
        let mut remote = RemoteSpec {
            url: String::new(),
            fallback_urls: Vec::new(),
            proxy: None,
            client_id: default_client_id(),
            username: None,
            keep_alive: default_keep_alive(),
            clean_session: false,
            tls: None,
        };
        if rule.get("remote").is_none() {
            reader.missing(rule, "remote", URL_HELP);
            return remote;
        }
        let known = self.known(&REMOTE, &["password_file"]);
        let Some(fields) = reader.child(rule, "remote", &known) else { return remote };
        if fields.get("url").is_none() {
            reader.missing(&fields, "url", URL_HELP);
        }
        remote.url = reader.text(&fields, "url").unwrap_or_default();
        remote.fallback_urls = reader.texts(&fields, "fallback_urls");
        remote.proxy = reader.text(&fields, "proxy");
        if let Some(client_id) = reader.text(&fields, "client_id") {
            remote.client_id = client_id;
        }
        remote.username = reader.text(&fields, "username");
        if let Some(seconds) =
            quantity(reader, &fields, "keep_alive", "write \"60s\"; units are s, m, h, d, w")
        {
            remote.keep_alive = seconds;
        }
        remote.clean_session = reader.flag(&fields, "clean_session").unwrap_or_default();
        reader.flag(&fields, "password_set");
        self.secrets.password = secret(reader, &fields, "password");
        let is_here = self.secrets.password != SecretInput::Keep;
        self.file(reader, &fields, FileField::Password, ("password", is_here), "bad-password");
        remote.tls = self.tls(reader, &fields);
        remote
    }

    fn tls(&mut self, reader: &mut Reader, remote: &Fields<'_>) -> Option<TlsSpec> {
        let known = self.known(&TLS, &["ca_file", "certificate_file", "key_file"]);
        let fields = reader.child(remote, "tls", &known)?;
        let tls = TlsSpec {
            ca: reader.text(&fields, "ca"),
            server_name: reader.text(&fields, "server_name"),
            alpn: reader.texts(&fields, "alpn"),
            certificate: reader.text(&fields, "certificate"),
        };
        reader.flag(&fields, "key_set");
        self.secrets.key = secret(reader, &fields, "key");
        let key_is_here = self.secrets.key != SecretInput::Keep;
        self.file(reader, &fields, FileField::Ca, ("ca", tls.ca.is_some()), "bad-certificate");
        let certificate = ("certificate", tls.certificate.is_some());
        self.file(reader, &fields, FileField::Certificate, certificate, "bad-certificate");
        self.file(reader, &fields, FileField::Key, ("key", key_is_here), "bad-key");
        Some(tls)
    }

    /// The fields of a table; on a gateway those that name files, too.
    fn known<'k>(&self, fields: &[&'k str], of_files: &[&'k str]) -> Vec<&'k str> {
        let of_files = match self.home {
            Home::Cloud => &[],
            Home::Site => of_files,
        };
        [fields, of_files].concat()
    }

    /// Notes the file that holds a field, which then is not written itself.
    fn file(
        &mut self,
        reader: &mut Reader,
        fields: &Fields<'_>,
        field: FileField,
        (key, is_here): (&str, bool),
        code: &'static str,
    ) {
        if self.home == Home::Cloud {
            return;
        }
        let key_of_file = format!("{key}_file");
        let Some(path) = reader.text(fields, &key_of_file) else { return };
        if is_here {
            let what = format!("both {key} and {key_of_file} are given");
            reader.fail(fields.pointer(&key_of_file), code, what, "leave one of them out");
        }
        self.files.insert(field, path);
    }
}

fn secret(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> SecretInput {
    match reader.text(fields, key) {
        None => SecretInput::Keep,
        Some(text) if text.is_empty() => SecretInput::Clear,
        Some(text) => SecretInput::Set(Secret::new(text)),
    }
}

fn routes(reader: &mut Reader, rule: &Fields<'_>, key: &str) -> Vec<RouteSpec> {
    let mut routes = Vec::new();
    for (at, node) in reader.list(rule, key) {
        let Some(fields) = reader.table(node, at, &ROUTE) else {
            // A stand-in keeps the numbers of the routes after it.
            routes.push(RouteSpec::default());
            continue;
        };
        if fields.get("topic").is_none() {
            reader.missing(&fields, "topic", "write topic = \"sensors/#\"");
        }
        routes.push(RouteSpec {
            topic: reader.text(&fields, "topic").unwrap_or_default(),
            exclude: reader.texts(&fields, "exclude"),
            qos: qos(reader, &fields).unwrap_or_default(),
            strip: reader.text(&fields, "strip").unwrap_or_default(),
            prefix: reader.text(&fields, "prefix").unwrap_or_default(),
            retain: reader.flag_or_choice(&fields, "retain", &RETAIN).unwrap_or_default(),
        });
    }
    routes
}

pub(super) fn qos(reader: &mut Reader, fields: &Fields<'_>) -> Option<Qos> {
    let number = reader.number(fields, "qos")?;
    if let Some(qos) = u8::try_from(number).ok().and_then(|number| Qos::try_from(number).ok()) {
        return Some(qos);
    }
    let (what, help) = match number {
        2 => (
            "QoS 2 is not offered: messages wait in a queue on disk and are delivered at least once"
                .to_owned(),
            "write 1; who receives must bear a message that comes twice",
        ),
        other => (format!("{other} is not a QoS"), "write 0 or 1"),
    };
    reader.fail(fields.pointer("qos"), "bad-qos", what, help);
    None
}

fn quantity<T: FromStr<Err = InvalidQuantity>>(
    reader: &mut Reader,
    fields: &Fields<'_>,
    key: &str,
    help: &str,
) -> Option<T> {
    let text = reader.text(fields, key)?;
    match text.parse() {
        Ok(quantity) => Some(quantity),
        Err(error) => {
            reader.fail(fields.pointer(key), "bad-quantity", error.to_string(), help);
            None
        }
    }
}

fn queue(reader: &mut Reader, rule: &Fields<'_>) -> QueueSpec {
    let default = QueueSpec::default();
    let Some(fields) = reader.child(rule, "queue", &QUEUE) else { return default };
    const SIZE: &str = "write \"64MiB\"; units are B, kB, MB, GB, KiB, MiB, GiB";
    const AGE: &str = "write \"7d\"; units are s, m, h, d, w";
    QueueSpec {
        max_bytes: quantity(reader, &fields, "max_bytes", SIZE).unwrap_or(default.max_bytes),
        max_age: quantity(reader, &fields, "max_age", AGE).unwrap_or(default.max_age),
        when_full: reader.choice(&fields, "when_full", &WHEN_FULL).unwrap_or_default(),
        drain: drain(reader, &fields),
    }
}

fn drain(reader: &mut Reader, queue: &Fields<'_>) -> Option<DrainSpec> {
    const HELP: &str = "write drain = { messages_per_s = 500, bytes_per_s = \"1MiB\" }, or one of the two";
    const RATE: &str = "write \"1MiB\"; units are B, kB, MB, GB, KiB, MiB, GiB";
    let fields = reader.child(queue, "drain", &DRAIN)?;
    if DRAIN.iter().all(|key| fields.get(key).is_none()) {
        reader.fail(
            queue.pointer("drain"),
            "missing-field",
            "the limit says neither messages nor bytes",
            HELP,
        );
        return None;
    }
    let messages = reader.number(&fields, "messages_per_s");
    Some(DrainSpec {
        // What does not fit lies outside the bounds too, so the check of the bounds tells it.
        messages_per_s: messages.map(|n| u32::try_from(n).unwrap_or(if n < 0 { 0 } else { u32::MAX })),
        bytes_per_s: quantity(reader, &fields, "bytes_per_s", RATE),
    })
}

pub(super) fn policy(reader: &mut Reader, rule: &Fields<'_>) -> PolicySpec {
    let default = PolicySpec::default();
    let Some(fields) = reader.child(rule, "policy", &POLICY) else { return default };
    let verify_s = reader.number(&fields, "verify_s").map(|number| {
        // What does not fit lies outside the bounds too, so the check of the bounds tells it.
        u32::try_from(number).unwrap_or(if number < 0 { 0 } else { u32::MAX })
    });
    PolicySpec {
        verify_s: verify_s.unwrap_or(default.verify_s),
        on_wipe: reader.choice(&fields, "on_wipe", &ON_WIPE).unwrap_or_default(),
        on_drift: reader.choice(&fields, "on_drift", &ON_DRIFT).unwrap_or_default(),
    }
}

fn vars(reader: &mut Reader, rule: &Fields<'_>) -> BTreeMap<String, VarSpec> {
    let mut vars = BTreeMap::new();
    let Some(fields) = reader.child(rule, "vars", &[]) else { return vars };
    for entry in fields.entries() {
        let Some(var) = reader.table(&entry.node, fields.pointer(&entry.key), &["default"]) else { continue };
        vars.insert(entry.key.clone(), VarSpec { default: reader.text(&var, "default") });
    }
    vars
}
