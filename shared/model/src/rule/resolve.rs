//! Fills in variables and reads what comes out: address, client id, filters, mappings. Used twice: with sample values
//! when a rule is saved, with the values of an edge when it is rendered.

use super::edge::Route;
use super::problem::{Problems, pointer};
use super::spec::{RouteSpec, RuleSpec, TlsSpec};
use super::template::{self, BUILT_IN, TemplateError};
use super::tls;
use super::url::{self, BrokerAddress, Scheme, UrlError};
use crate::limits::{MAX_CLIENT_ID_BYTES, MAX_CREDENTIAL_BYTES, MAX_EXCLUDES_PER_ROUTE, MAX_FALLBACK_URLS};
use crate::topic::{InvalidTopic, TopicFilter, TopicMapping, UnmappableFilter, reserved};

/// What could be resolved; `None` where a problem was noted.
pub(super) struct Resolved {
    pub address: Option<BrokerAddress>,
    pub fallbacks: Vec<BrokerAddress>,
    pub proxy: Option<BrokerAddress>,
    /// `Some`: the broker is spoken to over TLS.
    pub tls: Option<TlsSpec>,
    pub client_id: Option<String>,
    pub username: Option<String>,
    pub forwards: Vec<Option<Route>>,
    pub subscriptions: Vec<Option<Route>>,
}

/// Values of variables by name.
pub(super) type Lookup<'l, 'v> = &'l dyn Fn(&str) -> Option<&'v str>;

pub(super) fn resolve(spec: &RuleSpec, value: Lookup<'_, '_>, problems: &mut Problems) -> Resolved {
    let mut resolver = Resolver { spec, value, problems };
    let mountpoint = resolver.mountpoint();
    let address = resolver.address("/remote/url", &spec.remote.url);
    let scheme = address.as_ref().map(|(_, scheme)| *scheme);
    Resolved {
        fallbacks: resolver.fallbacks(address.as_ref()),
        address: address.map(|(address, _)| address),
        proxy: resolver.proxy(),
        tls: resolver.tls(scheme),
        client_id: resolver.client_id(),
        username: resolver.username(),
        forwards: resolver.routes("/forwards", &spec.forwards, mountpoint.as_deref()),
        subscriptions: resolver.routes("/subscriptions", &spec.subscriptions, Some("")),
    }
}

struct Resolver<'r, 'v> {
    spec: &'r RuleSpec,
    value: Lookup<'r, 'v>,
    problems: &'r mut Problems,
}

impl Resolver<'_, '_> {
    fn expand(&mut self, at: &str, text: &str) -> Option<String> {
        let errors = match template::expand(text, self.value) {
            Ok(text) => return Some(text),
            Err(errors) => errors,
        };
        for error in errors {
            match error {
                TemplateError::Unbalanced { brace, at: column } => self.problems.add(
                    at,
                    "unbalanced-brace",
                    format!("the '{brace}' at character {column} has no partner"),
                    "write variables as {edge}; braces have no other use",
                ),
                TemplateError::Unknown { name } => {
                    let name: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
                    let known = BUILT_IN.iter().copied().chain(self.spec.vars.keys().map(String::as_str));
                    let known: Vec<String> = known.map(|name| format!("{{{name}}}")).collect();
                    self.problems.add(
                        at,
                        "unknown-variable",
                        format!("the variable {{{name}}} is not known"),
                        format!("use one of {}, or declare it in [vars]", known.join(", ")),
                    );
                }
            }
        }
        None
    }

    fn mountpoint(&mut self) -> Option<String> {
        let text = self.expand("/mountpoint", &self.spec.mountpoint)?;
        self.plain("/mountpoint", "bad-mountpoint", "mountpoint", &text).then_some(text)
    }

    fn address(&mut self, at: &str, text: &str) -> Option<(BrokerAddress, Scheme)> {
        let text = self.expand(at, text)?;
        self.noted(at, url::parse(&text))
    }

    fn noted<T>(&mut self, at: &str, read: Result<T, UrlError>) -> Option<T> {
        read.map_err(|(code, what, help)| self.problems.add(at, code, what, help)).ok()
    }

    fn fallbacks(&mut self, first: Option<&(BrokerAddress, Scheme)>) -> Vec<BrokerAddress> {
        const AT: &str = "/remote/fallback_urls";
        let urls = &self.spec.remote.fallback_urls;
        if urls.len() > MAX_FALLBACK_URLS {
            let what =
                format!("{} other addresses are given, at most {MAX_FALLBACK_URLS} are tried", urls.len());
            self.problems.add(AT, "too-many-addresses", what, "keep the nearest ones");
            return Vec::new();
        }
        let mut addresses: Vec<BrokerAddress> = Vec::with_capacity(urls.len());
        for (index, url) in urls.iter().enumerate() {
            let at = pointer(AT, index);
            let Some((address, scheme)) = self.address(&at, url) else { continue };
            if first.is_some_and(|(_, of_first)| *of_first != scheme) {
                let what = "one address is spoken to over TLS, the other in clear";
                self.problems.add(
                    at,
                    "bad-url",
                    what,
                    "write mqtts:// in url and in all of fallback_urls, or in none",
                );
            } else if addresses.contains(&address) || first.is_some_and(|(first, _)| *first == address) {
                self.problems.add(
                    at,
                    "bad-url",
                    format!("{address} is given already"),
                    "remove one of the two",
                );
            } else {
                addresses.push(address);
            }
        }
        addresses
    }

    fn proxy(&mut self) -> Option<BrokerAddress> {
        const AT: &str = "/remote/proxy";
        let text = self.expand(AT, self.spec.remote.proxy.as_ref()?)?;
        self.noted(AT, url::parse_proxy(&text))
    }

    /// How TLS is done; `None` where it is not.
    fn tls(&mut self, scheme: Option<Scheme>) -> Option<TlsSpec> {
        let written = self.spec.remote.tls.as_ref();
        if let Some(tls) = written {
            tls::check(tls, self.problems);
        }
        match (scheme, written) {
            (Some(Scheme::Mqtts), None) => Some(TlsSpec::default()),
            (Some(Scheme::Mqtts), Some(tls)) => {
                const AT: &str = "/remote/tls/server_name";
                let server_name = tls.server_name.as_ref().and_then(|name| self.expand(AT, name));
                if let Some(name) = &server_name {
                    tls::check_server_name(AT, name, self.problems);
                }
                Some(TlsSpec { server_name, ..tls.clone() })
            }
            (Some(Scheme::Mqtt), Some(_)) => {
                let help = "write mqtts:// in url, or remove [remote.tls]";
                self.problems.add("/remote/tls", "bad-tls", "the broker is spoken to in clear", help);
                None
            }
            (Some(Scheme::Mqtt) | None, _) => None,
        }
    }

    fn client_id(&mut self) -> Option<String> {
        const AT: &str = "/remote/client_id";
        let text = self.expand(AT, &self.spec.remote.client_id)?;
        let (what, help) = if text.is_empty() {
            ("the client id is empty".to_owned(), "leave it out for \"{edge}-{rule}\", or write one")
        } else if text.len() > MAX_CLIENT_ID_BYTES {
            (
                format!("the client id has {} bytes, at most {MAX_CLIENT_ID_BYTES} are allowed", text.len()),
                "shorten it",
            )
        } else if let Some(bad) =
            text.chars().find(|c| c.is_control() || c.is_whitespace() || "+#".contains(*c))
        {
            (
                format!("the client id has the character {bad:?}, which brokers refuse"),
                "use letters, digits, '-', '_', '.', ':' and '/'",
            )
        } else {
            return Some(text);
        };
        self.problems.add(AT, "bad-client-id", what, help);
        None
    }

    fn username(&mut self) -> Option<String> {
        const AT: &str = "/remote/username";
        let text = self.expand(AT, self.spec.remote.username.as_ref()?)?;
        let what = if text.is_empty() {
            "the user name is empty"
        } else if text.len() > MAX_CREDENTIAL_BYTES {
            "the user name is longer than 1,024 bytes"
        } else if text.chars().any(char::is_control) {
            "the user name has a control character"
        } else {
            return Some(text);
        };
        self.problems.add(AT, "bad-username", what, "write the login of the remote broker, or leave it out");
        None
    }

    fn routes(&mut self, base: &str, specs: &[RouteSpec], mount: Option<&str>) -> Vec<Option<Route>> {
        specs.iter().enumerate().map(|(index, spec)| self.route(&pointer(base, index), spec, mount)).collect()
    }

    /// `mount` is `None` when the mountpoint is broken: then the mapping cannot be judged.
    fn route(&mut self, at: &str, spec: &RouteSpec, mount: Option<&str>) -> Option<Route> {
        let topic = self.expand(&format!("{at}/topic"), &spec.topic);
        let strip = self.expand(&format!("{at}/strip"), &spec.strip);
        let prefix = self.expand(&format!("{at}/prefix"), &spec.prefix);
        let prefix = prefix.filter(|text| self.plain(&format!("{at}/prefix"), "bad-prefix", "prefix", text));
        let excludes_at = format!("{at}/exclude");
        let excludes: Vec<Option<String>> = (0..)
            .zip(&spec.exclude)
            .map(|(index, text)| self.expand(&pointer(&excludes_at, index), text))
            .collect();
        let excludes: Option<Vec<String>> = excludes.into_iter().collect();
        let filter = topic.and_then(|topic| filter(&format!("{at}/topic"), &topic, self.problems));
        let (filter, strip) = (filter?, strip?);
        let exclude = excludes.and_then(|texts| excluded(&excludes_at, &filter, &texts, self.problems));
        if !filter.literal_prefix().starts_with(&strip) {
            self.problems.add(
                format!("{at}/strip"),
                "bad-strip",
                format!("'{}' does not begin with '{strip}'", filter),
                format!(
                    "strip text that the filter begins with: all or a part of '{}'",
                    filter.literal_prefix()
                ),
            );
            return None;
        }
        let (prefix, mount) = (prefix?, mount?);
        let mapping = TopicMapping { strip, prefix: format!("{mount}{prefix}") };
        let blame = if prefix.is_empty() && !mount.is_empty() {
            "/mountpoint".into()
        } else {
            format!("{at}/prefix")
        };
        let image = image(&filter, &mapping, &blame, self.problems)?;
        if reserved(image.as_str()) {
            self.problems.add(
                blame,
                "reserved-topic",
                format!("messages would become '{image}', which is Tidegate's own"),
                "choose another prefix or mountpoint",
            );
            return None;
        }
        Some(Route { filter, exclude: exclude?, mapping, image, qos: spec.qos, retain: spec.retain })
    }

    /// Checks text that is put before topics.
    fn plain(&mut self, at: &str, code: &'static str, field: &str, text: &str) -> bool {
        let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, '+' | '#')) else { return true };
        self.problems.add(
            at,
            code,
            format!("the {field} has the character {bad:?}"),
            format!("a {field} is plain text, as in \"plant/lyon/\""),
        );
        false
    }
}

/// Reads the filter of a route.
pub(super) fn filter(at: &str, text: &str, problems: &mut Problems) -> Option<TopicFilter> {
    let filter = match TopicFilter::new(text) {
        Ok(filter) => filter,
        Err(error) => {
            bad_topic(at, "bad-filter", &error, problems);
            return None;
        }
    };
    if filter.levels().next().is_some_and(|first| matches!(first, "$share" | "$queue")) {
        problems.add(
            at,
            "shared-subscription",
            "a shared subscription gives a bridge only a part of the messages",
            "write the filter behind the group's name",
        );
        return None;
    }
    if reserved(text) {
        problems.add(
            at,
            "reserved-topic",
            "topics under 'tidegate/' are Tidegate's own and never bridged",
            "choose another filter; '#' leaves them out by itself",
        );
        return None;
    }
    Some(filter)
}

/// Reads what a route leaves out. Each must match something that the route matches, and leave something.
pub(super) fn excluded(
    at: &str,
    route: &TopicFilter,
    texts: &[String],
    problems: &mut Problems,
) -> Option<Vec<TopicFilter>> {
    if texts.len() > MAX_EXCLUDES_PER_ROUTE {
        problems.add(
            at,
            "too-many-excludes",
            format!("{} filters are left out, at most {MAX_EXCLUDES_PER_ROUTE} are allowed", texts.len()),
            "use wildcards, or name what is wanted instead",
        );
        return None;
    }
    let mut exclude = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = pointer(at, index);
        match TopicFilter::new(text.as_str()) {
            Err(error) => bad_topic(&at, "bad-filter", &error, problems),
            Ok(filter) if !filter.overlaps(route) => problems.add(
                at,
                "useless-exclude",
                format!("'{filter}' matches nothing that '{route}' matches"),
                "write a part of what topic matches, or remove it",
            ),
            Ok(filter) if filter.covers(route) => problems.add(
                at,
                "useless-exclude",
                format!("'{filter}' leaves out all that '{route}' matches"),
                "leave out less, or remove the whole entry",
            ),
            Ok(filter) => exclude.push(filter),
        }
    }
    (exclude.len() == texts.len()).then_some(exclude)
}

/// What the other side sees of a route.
pub(super) fn image(
    filter: &TopicFilter,
    mapping: &TopicMapping,
    at: &str,
    problems: &mut Problems,
) -> Option<TopicFilter> {
    let error = match mapping.map_filter(filter) {
        Ok(image) => return Some(image),
        Err(error) => error,
    };
    match error {
        UnmappableFilter::Invalid(InvalidTopic::WildcardInText { wildcard, .. }) => problems.add(
            at,
            "bad-mapping",
            format!("'{}' would be glued to the wildcard '{wildcard}'", mapping.prefix),
            format!("end it with '/': \"{}/\"", mapping.prefix),
        ),
        UnmappableFilter::Invalid(InvalidTopic::Empty) => problems.add(
            at,
            "bad-mapping",
            format!("nothing is left of '{filter}'"),
            "strip less, or give a prefix",
        ),
        UnmappableFilter::Invalid(error) => bad_topic(at, "bad-mapping", &error, problems),
        UnmappableFilter::NotAPrefix => problems.add(
            at,
            "bad-strip",
            format!("'{filter}' does not begin with '{}'", mapping.strip),
            "strip text that the filter begins with",
        ),
    }
    None
}

fn bad_topic(at: &str, code: &'static str, error: &InvalidTopic, problems: &mut Problems) {
    let text = error.to_string();
    let (what, help) = text.split_once("; ").unwrap_or((&text, "choose another topic"));
    problems.add(at, code, what, help);
}
