//! The bytes of a rendered rule: one JSON object with fixed fields in a fixed order. Written once, read for ever, so a
//! field is only ever added, together with a [`super::Feature`].

use serde::{Deserialize, Serialize};

use super::check::routes_together;
use super::decode;
use super::edge::{EdgeQueue, EdgeRemote, EdgeRule, EdgeTls, Login, Route};
use super::located::{self, Node};
use super::loops::Wiring;
use super::problem::{Place, Problem, Problems};
use super::quantity::{Bytes, Seconds};
use super::reader::{Fields, Reader};
use super::resolve::{excluded, filter, image};
use super::secret::SecretRef;
use super::spec::{DrainSpec, PolicySpec, Qos, Start, WhenFull};
use super::url::BrokerAddress;
use crate::ids::RuleName;
use crate::limits::MAX_RENDERED_BYTES;
use crate::topic::{TopicFilter, TopicMapping, reserved};

/// The object, in the order of its bytes.
#[derive(Serialize)]
struct Document<'r> {
    name: &'r RuleName,
    start: Start,
    remote: Remote<'r>,
    forwards: Vec<Routed<'r>>,
    subscriptions: Vec<Routed<'r>>,
    queue: Queue,
    policy: PolicySpec,
}

#[derive(Serialize)]
struct Remote<'r> {
    host: &'r str,
    port: u16,
    client_id: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'r SecretRef>,
    keep_alive_s: u64,
    clean_session: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fallbacks: Vec<Address<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Address<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls<'r>>,
}

#[derive(Serialize)]
struct Address<'r> {
    host: &'r str,
    port: u16,
}

#[derive(Serialize)]
struct Tls<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'r str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    alpn: &'r [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'r SecretRef>,
}

#[derive(Serialize)]
struct Routed<'r> {
    topic: &'r str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<&'r str>,
    qos: Qos,
    strip: &'r str,
    prefix: &'r str,
    retain: bool,
}

#[derive(Serialize)]
struct Queue {
    max_bytes: u64,
    max_age_s: u64,
    when_full: WhenFull,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<Drain>,
}

#[derive(Serialize)]
struct Drain {
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_per_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_s: Option<u64>,
}

const DOCUMENT: [&str; 7] = ["name", "start", "remote", "forwards", "subscriptions", "queue", "policy"];
const REMOTE: [&str; 10] = [
    "host",
    "port",
    "client_id",
    "username",
    "password",
    "keep_alive_s",
    "clean_session",
    "fallbacks",
    "proxy",
    "tls",
];
const ADDRESS: [&str; 2] = ["host", "port"];
const TLS: [&str; 5] = ["ca", "server_name", "alpn", "certificate", "key"];
const SECRET: [&str; 2] = ["id", "version"];
const ROUTE: [&str; 6] = ["topic", "exclude", "qos", "strip", "prefix", "retain"];
const QUEUE: [&str; 4] = ["max_bytes", "max_age_s", "when_full", "drain"];

/// The bytes of a rule.
pub(super) fn write(rule: &EdgeRule) -> String {
    let document = Document {
        name: &rule.name,
        start: rule.start,
        remote: Remote {
            host: &rule.remote.address.host,
            port: rule.remote.address.port,
            client_id: &rule.remote.client_id,
            username: rule.remote.username.as_deref(),
            password: rule.remote.password.as_ref(),
            keep_alive_s: rule.remote.keep_alive.0,
            clean_session: rule.remote.clean_session,
            fallbacks: rule.remote.fallbacks.iter().map(address).collect(),
            proxy: rule.remote.proxy.as_ref().map(address),
            tls: rule.remote.tls.as_ref().map(|tls| Tls {
                ca: tls.ca.as_deref(),
                server_name: tls.server_name.as_deref(),
                alpn: &tls.alpn,
                certificate: tls.certificate.as_deref(),
                key: tls.key.as_ref(),
            }),
        },
        forwards: rule.forwards.iter().map(routed).collect(),
        subscriptions: rule.subscriptions.iter().map(routed).collect(),
        queue: Queue {
            max_bytes: rule.queue.max_bytes.0,
            max_age_s: rule.queue.max_age.0,
            when_full: rule.queue.when_full,
            drain: rule.queue.drain.map(|drain| Drain {
                messages_per_s: drain.messages_per_s,
                bytes_per_s: drain.bytes_per_s.map(|bytes| bytes.0),
            }),
        },
        policy: rule.policy,
    };
    serde_json::to_string(&document).expect("texts, numbers and flags under text keys are always JSON")
}

fn address(address: &BrokerAddress) -> Address<'_> {
    Address { host: &address.host, port: address.port }
}

fn routed(route: &Route) -> Routed<'_> {
    Routed {
        topic: route.filter.as_str(),
        exclude: route.exclude.iter().map(TopicFilter::as_str).collect(),
        qos: route.qos,
        strip: &route.mapping.strip,
        prefix: &route.mapping.prefix,
        retain: route.retain,
    }
}

/// Reads the bytes of a rule. Every field must be there, but for user name and password.
pub(super) fn read(text: &str) -> Result<EdgeRule, Problems> {
    let mut problems = Problems::default();
    if text.len() > MAX_RENDERED_BYTES {
        too_large(text.len(), &mut problems);
        return Err(problems);
    }
    let tree = match located::read(text, super::Format::Json) {
        Ok(tree) => tree,
        Err(error) => {
            let place = Place {
                pointer: String::new(),
                line: error.at.map(|p| p.line),
                column: error.at.map(|p| p.column),
            };
            let help = "the rendered rule is damaged; issue it again".to_owned();
            problems.push(Problem { place, code: "syntax", what: error.what, help });
            return Err(problems);
        }
    };
    let mut reader = Reader::default();
    let rule = document(&mut reader, &tree);
    let Reader { mut problems, places, .. } = reader;
    if let Some(rule) = &rule {
        let some = |routes: &[Route]| routes.iter().cloned().map(Some).collect::<Vec<_>>();
        routes_together(&some(&rule.forwards), &some(&rule.subscriptions), &mut problems);
    }
    places.locate(&mut problems);
    problems.into_result()?;
    rule.ok_or_else(|| {
        let mut problems = Problems::default();
        problems.add("", "syntax", "the rendered rule is incomplete", "issue it again");
        problems
    })
}

/// As what a rendered rule logs in, and which topics it moves. It was checked when it was made, and the rest does not matter here.
pub(super) fn wiring(text: &str) -> Option<Wiring> {
    #[derive(Deserialize)]
    struct Named {
        name: RuleName,
        remote: Host,
        forwards: Vec<Topics>,
        subscriptions: Vec<Topics>,
    }
    #[derive(Deserialize)]
    struct Host {
        host: String,
        port: u16,
        client_id: String,
        #[serde(default)]
        fallbacks: Vec<Other>,
    }
    #[derive(Deserialize)]
    struct Other {
        host: String,
        port: u16,
    }
    #[derive(Deserialize)]
    struct Topics {
        topic: String,
        #[serde(default)]
        exclude: Vec<String>,
        qos: Qos,
        strip: String,
        prefix: String,
        retain: bool,
    }
    let routes = |topics: Vec<Topics>| {
        let read = |Topics { topic, exclude, qos, strip, prefix, retain }: Topics| {
            let filter = TopicFilter::new(topic).ok()?;
            let exclude =
                exclude.into_iter().map(|text| TopicFilter::new(text).ok()).collect::<Option<_>>()?;
            let mapping = TopicMapping { strip, prefix };
            let image = mapping.map_filter(&filter).ok()?;
            Some(Route { filter, exclude, mapping, image, qos, retain })
        };
        topics.into_iter().map(read).collect::<Option<Vec<Route>>>()
    };
    let Named { name, remote: Host { host, port, client_id, fallbacks }, forwards, subscriptions } =
        serde_json::from_str(text).ok()?;
    let others = fallbacks.into_iter().map(|Other { host, port }| BrokerAddress { host, port });
    let addresses = std::iter::once(BrokerAddress { host, port }).chain(others).collect();
    let login = Login { rule: name, addresses, client_id };
    Some(Wiring { login, forwards: routes(forwards)?, subscriptions: routes(subscriptions)? })
}

/// The problem of bytes beyond [`MAX_RENDERED_BYTES`].
pub(super) fn too_large(bytes: usize, problems: &mut Problems) {
    problems.add(
        "",
        "too-large",
        format!("the rule for this edge has {bytes} bytes, at most {MAX_RENDERED_BYTES} are sent"),
        "use fewer or shorter topics, or split the rule",
    );
}

/// `None` when something is missing or wrong, which the reader then knows.
fn document(reader: &mut Reader, tree: &Node) -> Option<EdgeRule> {
    let fields = reader.table(tree, String::new(), &DOCUMENT)?;
    let name = decode::name(reader, &fields);
    let start =
        required(reader, &fields, "start", |reader, fields, key| reader.choice(fields, key, &decode::START));
    let remote = remote(reader, &fields);
    let forwards = routes(reader, &fields, "forwards");
    let subscriptions = routes(reader, &fields, "subscriptions");
    let queue = queue(reader, &fields);
    let policy = decode::policy(reader, &fields);
    Some(EdgeRule {
        name: name?,
        start: start?,
        remote: remote?,
        forwards,
        subscriptions,
        queue: queue?,
        policy,
    })
}

fn required<'n, T>(
    reader: &mut Reader,
    fields: &Fields<'n>,
    key: &str,
    read: impl FnOnce(&mut Reader, &Fields<'n>, &str) -> Option<T>,
) -> Option<T> {
    if fields.get(key).is_none() {
        reader.missing(fields, key, "the rendered rule is incomplete; issue it again");
        return None;
    }
    read(reader, fields, key)
}

/// A whole number from `least` to `most`.
fn number(reader: &mut Reader, fields: &Fields<'_>, key: &str, least: u64, most: u64) -> Option<u64> {
    let number = required(reader, fields, key, Reader::number)?;
    match u64::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Some(number),
        Ok(_) | Err(_) => {
            let help = format!("it must be {least} to {most}");
            reader.fail(fields.pointer(key), "out-of-range", format!("{number} is out of range"), help);
            None
        }
    }
}

fn remote(reader: &mut Reader, rule: &Fields<'_>) -> Option<EdgeRemote> {
    let fields = required(reader, rule, "remote", |reader, fields, key| reader.child(fields, key, &REMOTE))?;
    let address = read_address(reader, &fields);
    let client_id = required(reader, &fields, "client_id", Reader::text);
    let username = reader.text(&fields, "username");
    let password = secret(reader, &fields, "password");
    let keep_alive = number(reader, &fields, "keep_alive_s", 1, u16::MAX.into());
    let clean_session = required(reader, &fields, "clean_session", Reader::flag);
    let fallbacks = reader.list(&fields, "fallbacks").into_iter().map(|(at, node)| {
        let fields = reader.table(node, at, &ADDRESS)?;
        read_address(reader, &fields)
    });
    let fallbacks: Option<Vec<BrokerAddress>> = fallbacks.collect();
    let proxy = reader.child(&fields, "proxy", &ADDRESS).and_then(|fields| read_address(reader, &fields));
    let tls = reader.child(&fields, "tls", &TLS).map(|fields| EdgeTls {
        ca: reader.text(&fields, "ca"),
        server_name: reader.text(&fields, "server_name"),
        alpn: reader.texts(&fields, "alpn"),
        certificate: reader.text(&fields, "certificate"),
        key: secret(reader, &fields, "key"),
    });
    Some(EdgeRemote {
        address: address?,
        fallbacks: fallbacks?,
        proxy,
        client_id: client_id?,
        username,
        password,
        keep_alive: Seconds(keep_alive?),
        clean_session: clean_session?,
        tls,
    })
}

fn read_address(reader: &mut Reader, fields: &Fields<'_>) -> Option<BrokerAddress> {
    let host = required(reader, fields, "host", Reader::text);
    let port = number(reader, fields, "port", 1, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
    Some(BrokerAddress { host: host?, port: port? })
}

fn secret(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> Option<SecretRef> {
    let secret = reader.child(fields, key, &SECRET)?;
    let id = required(reader, &secret, "id", Reader::text);
    let version = number(reader, &secret, "version", 0, i64::MAX.unsigned_abs());
    Some(SecretRef { id: id?, version: version? })
}

fn queue(reader: &mut Reader, rule: &Fields<'_>) -> Option<EdgeQueue> {
    let fields = required(reader, rule, "queue", |reader, fields, key| reader.child(fields, key, &QUEUE))?;
    let most = i64::MAX.unsigned_abs();
    let max_bytes = number(reader, &fields, "max_bytes", 1, most);
    let max_age = number(reader, &fields, "max_age_s", 1, most);
    let when_full = required(reader, &fields, "when_full", |reader, fields, key| {
        reader.choice(fields, key, &decode::WHEN_FULL)
    });
    let drain = match fields.get("drain") {
        None => None,
        Some(_) => Some(drain(reader, &fields)?),
    };
    Some(EdgeQueue { max_bytes: Bytes(max_bytes?), max_age: Seconds(max_age?), when_full: when_full?, drain })
}

/// `None` when it is wrong, which the reader then knows.
fn drain(reader: &mut Reader, queue: &Fields<'_>) -> Option<DrainSpec> {
    let fields = reader.child(queue, "drain", &decode::DRAIN)?;
    let mut limit = |key, most| match fields.get(key) {
        None => Some(None),
        Some(_) => number(reader, &fields, key, 1, most).map(Some),
    };
    let messages = limit("messages_per_s", u32::MAX.into())?;
    let bytes = limit("bytes_per_s", i64::MAX.unsigned_abs())?;
    Some(DrainSpec {
        messages_per_s: messages.and_then(|number| u32::try_from(number).ok()),
        bytes_per_s: bytes.map(Bytes),
    })
}

fn routes(reader: &mut Reader, rule: &Fields<'_>, key: &str) -> Vec<Route> {
    reader.list(rule, key).into_iter().filter_map(|(at, node)| route(reader, node, at)).collect()
}

fn route(reader: &mut Reader, node: &Node, at: String) -> Option<Route> {
    let fields = reader.table(node, at, &ROUTE)?;
    let topic = required(reader, &fields, "topic", Reader::text);
    let exclude = reader.texts(&fields, "exclude");
    let qos = required(reader, &fields, "qos", |reader, fields, _| decode::qos(reader, fields));
    let strip = required(reader, &fields, "strip", Reader::text);
    let prefix = required(reader, &fields, "prefix", Reader::text);
    let retain = required(reader, &fields, "retain", Reader::flag);
    let filter = filter(&fields.pointer("topic"), &topic?, &mut reader.problems)?;
    let exclude = excluded(&fields.pointer("exclude"), &filter, &exclude, &mut reader.problems)?;
    let mapping = TopicMapping { strip: strip?, prefix: prefix? };
    let image = image(&filter, &mapping, &fields.pointer("prefix"), &mut reader.problems)?;
    if reserved(image.as_str()) {
        reader.fail(
            fields.pointer("prefix"),
            "reserved-topic",
            format!("messages would become '{image}', which is Tidegate's own"),
            "choose another prefix",
        );
        return None;
    }
    Some(Route { filter, exclude, mapping, image, qos: qos?, retain: retain? })
}
