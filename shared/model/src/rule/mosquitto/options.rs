//! The options of a bridge, and which of the others are mosquitto's own.

use super::line::{Line, brief};
use super::{Bridge, Said};
use crate::limits::{KEEP_ALIVE_S, MAX_HOST_BYTES};
use crate::rule::quantity::Seconds;
use crate::rule::secret::{Secret, SecretInput};
use crate::rule::spec::{Start, TlsSpec};

/// An option of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BridgeOption {
    Address,
    Topic,
    Protocol,
    ClientId,
    Username,
    Password,
    CleanSession,
    KeepAlive,
    StartType,
    OutgoingRetain,
    Insecure,
    OsCertificates,
    Alpn,
    TlsVersion,
    CaFile,
    CertificateFile,
    KeyFile,
    /// Has no counterpart, and needs none: why.
    Needless(&'static str),
    /// Has no counterpart, and what it asks for would be missing: why, and what to do.
    Impossible(&'static str),
}

const LOCAL: &str =
    "the agent is the local broker itself: it needs no login there, and keeps what waits in any case";
const STATE: &str = "Tidegate tells how the rule is (tidegate status), not a topic";
const RETRY: &str = "the agent tries again by itself, after 0.2 s to 30 s";
const LAZY: &str = "a rule is connected as long as it runs";
const MQTT5: &str = "a rule speaks MQTT 3.1.1, which does not have it";
const TCP: &str = "the edge's system decides it";
const CIPHERS: &str = "the agent chooses among the safe ones itself";
const INSECURE: &str = "the name in the broker's certificate is always checked: name what stands there in remote.tls.server_name, and take \
                        the line out";
const DIRECTORY: &str = "directories of certificates are not read: put the one that is needed into remote.tls.ca, and take the line out";
const OCSP: &str = "the agent does not ask whether certificates were withdrawn (OCSP)";
const PSK: &str = "pre-shared keys are not supported; use certificates";

/// The option of a bridge of this name.
pub(super) fn of_bridge(name: &str) -> Option<BridgeOption> {
    use BridgeOption as O;
    Some(match name {
        "address" | "addresses" => O::Address,
        "topic" => O::Topic,
        "bridge_protocol_version" => O::Protocol,
        "remote_clientid" | "clientid" => O::ClientId,
        "remote_username" | "username" => O::Username,
        "remote_password" | "password" => O::Password,
        "cleansession" => O::CleanSession,
        "keepalive_interval" => O::KeepAlive,
        "start_type" => O::StartType,
        "bridge_outgoing_retain" => O::OutgoingRetain,
        "bridge_insecure" => O::Insecure,
        "local_clientid" | "local_username" | "local_password" | "local_cleansession" => O::Needless(LOCAL),
        "notifications" | "notifications_local_only" | "notification_topic" => O::Needless(STATE),
        "restart_timeout" => O::Needless(RETRY),
        "idle_timeout" | "threshold" => O::Needless(LAZY),
        "round_robin" => {
            O::Needless("the other addresses are tried in turn while the first cannot be reached")
        }
        "try_private" => O::Needless("a rule logs in like any client, not as a bridge"),
        "bridge_attempt_unsubscribe" => {
            O::Needless("the agent takes back what it does not subscribe to any more by itself")
        }
        "bridge_reload_type" => O::Needless("how a change takes effect follows from what changed"),
        "bridge_max_packet_size" => O::Needless("the edge bounds messages for all its rules alike"),
        "bridge_receive_maximum" | "bridge_max_topic_alias" | "bridge_session_expiry_interval" => {
            O::Needless(MQTT5)
        }
        "bridge_tcp_keepalive" | "bridge_tcp_user_timeout" | "bridge_bind_address" => O::Needless(TCP),
        "bridge_cafile" => O::CaFile,
        "bridge_certfile" => O::CertificateFile,
        "bridge_keyfile" => O::KeyFile,
        "bridge_alpn" => O::Alpn,
        "bridge_tls_version" => O::TlsVersion,
        "bridge_tls_use_os_certs" => O::OsCertificates,
        "bridge_ciphers" | "bridge_ciphers_tls1.3" => O::Needless(CIPHERS),
        "bridge_capath" => O::Impossible(DIRECTORY),
        "bridge_require_ocsp" => O::Impossible(OCSP),
        "bridge_identity" | "bridge_psk" => O::Impossible(PSK),
        _ => return None,
    })
}

/// Options of mosquitto itself and of its listeners (mosquitto.conf(5), 2.0 and 2.1).
const OF_BROKER: [&str; 87] = [
    "accept_protocol_versions",
    "acl_file",
    "allow_anonymous",
    "allow_duplicate_messages",
    "allow_zero_length_clientid",
    "auth_plugin",
    "auth_plugin_deny_special_chars",
    "auto_id_prefix",
    "autosave_interval",
    "autosave_on_changes",
    "bind_address",
    "bind_interface",
    "cafile",
    "capath",
    "certfile",
    "check_retain_source",
    "ciphers",
    "ciphers_tls1.3",
    "clientid_prefixes",
    "connection_messages",
    "crlfile",
    "dhparamfile",
    "disable_client_cert_date_checks",
    "enable_control_api",
    "enable_proxy_protocol",
    "global_max_clients",
    "global_max_connections",
    "global_plugin",
    "http_dir",
    "keyfile",
    "listener",
    "listener_allow_anonymous",
    "listener_auto_id_prefix",
    "log_dest",
    "log_facility",
    "log_timestamp",
    "log_timestamp_format",
    "log_type",
    "max_connections",
    "max_inflight_bytes",
    "max_inflight_messages",
    "max_keepalive",
    "max_packet_size",
    "max_qos",
    "max_queued_bytes",
    "max_queued_messages",
    "max_topic_alias",
    "max_topic_alias_broker",
    "maximum_qos",
    "memory_limit",
    "message_size_limit",
    "mount_point",
    "packet_buffer_size",
    "password_file",
    "per_listener_settings",
    "persistence",
    "persistence_file",
    "persistence_location",
    "persistent_client_expiration",
    "pid_file",
    "plugin",
    "plugin_load",
    "plugin_use",
    "port",
    "protocol",
    "proxy_protocol_v2_require_tls",
    "psk_file",
    "psk_hint",
    "queue_qos0_messages",
    "require_certificate",
    "retain_available",
    "retain_expiry_interval",
    "retained_persistence",
    "retry_interval",
    "set_tcp_nodelay",
    "socket_domain",
    "sys_interval",
    "tls_engine",
    "tls_engine_kpass_sha1",
    "tls_keyform",
    "tls_version",
    "upgrade_outgoing_qos",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
    "user",
    "websockets_log_level",
];

/// What becomes of an option that is no bridge's.
pub(super) fn of_broker(name: &str) -> Said {
    let listed = OF_BROKER.contains(&name)
        || ["auth_opt_", "plugin_opt_", "websockets_"].iter().any(|prefix| name.starts_with(prefix));
    if name == "include_dir" {
        Said::ignored(
            "the files of that directory are not read: import those that hold connections one by one",
        )
    } else if listed {
        Said::ignored("it is about the broker, not about a bridge")
    } else if name.starts_with('#') {
        Said::ignored("a comment; mosquitto takes one only in the first column")
    } else if name.contains('\t') {
        Said::refused("mosquitto parts words by blanks only, not by tabs")
    } else {
        Said::refused("mosquitto has no option of this name, or this version of tidegate does not know it")
    }
}

impl Bridge {
    /// What a line says about the bridge. `at` is its index in the report.
    pub(super) fn take(&mut self, option: BridgeOption, line: &Line<'_>, at: usize) -> Said {
        use BridgeOption as O;
        match option {
            O::Topic => self.topic(line, at),
            O::Address => self.once("address", "/remote/url", at, |bridge| bridge.address(line)),
            O::Protocol => self.once("protocol", "", at, |_| protocol(line)),
            O::ClientId => self.once("client id", "/remote/client_id", at, |bridge| {
                text(line, |text| {
                    bridge.spec.remote.client_id = text;
                    Said::but("every edge would use this client id: put {edge} into it before the rule is placed on two")
                })
            }),
            O::Username => self.once("user name", "/remote/username", at, |bridge| {
                text(line, |text| {
                    bridge.spec.remote.username = Some(text);
                    Said::mapped()
                })
            }),
            O::Password => self.once("password", "/remote/password", at, |bridge| {
                if line.rest.is_empty() {
                    return Said::refused("the password is empty");
                }
                bridge.secrets.password = SecretInput::Set(Secret::new(line.rest));
                Said::but("it is kept as a secret and not shown")
            }),
            O::CleanSession => flag(line, |on| {
                self.spec.remote.clean_session = on;
                Said::mapped()
            }),
            O::OutgoingRetain => flag(line, |on| {
                self.outgoing_retain = on;
                Said::mapped()
            }),
            O::Insecure => flag(line, |on| if on { Said::refused(INSECURE) } else { Said::ignored("it is so without the line") }),
            O::OsCertificates => flag(line, |on| {
                if on {
                    self.tls();
                }
                Said::mapped()
            }),
            O::Alpn => self.once("ALPN", "/remote/tls/alpn", at, |bridge| {
                text(line, |text| {
                    bridge.tls().alpn = vec![text];
                    Said::mapped()
                })
            }),
            O::TlsVersion => tls_version(line),
            O::CaFile => self.file("CA file", "remote.tls.ca"),
            O::CertificateFile => self.file("certificate file", "remote.tls.certificate"),
            O::KeyFile => self.file("key file", "remote.tls.key"),
            O::KeepAlive => self.keep_alive(line),
            O::StartType => self.start_type(line),
            O::Needless(why) => Said::ignored(why),
            O::Impossible(why) => Said::refused(why),
        }
    }

    /// An option that mosquitto takes once.
    fn once(
        &mut self,
        what: &'static str,
        pointer: &str,
        at: usize,
        take: impl FnOnce(&mut Self) -> Said,
    ) -> Said {
        if !self.seen.insert(what) {
            return Said::refused(format!("the {what} was given before; mosquitto takes it once"));
        }
        if !pointer.is_empty() {
            self.lines.insert(pointer.to_owned(), at);
        }
        take(self)
    }

    /// The connection is over TLS.
    fn tls(&mut self) -> &mut TlsSpec {
        self.spec.remote.tls.get_or_insert_default()
    }

    /// A file of the machine that mosquitto runs on. Without what is in it the rule is no less safe: it does not get in.
    fn file(&mut self, what: &'static str, field: &str) -> Said {
        if !self.seen.insert(what) {
            return Said::refused(format!("the {what} was given before; mosquitto takes it once"));
        }
        self.tls();
        Said::but(format!("the file is not read here: put its text into {field} before the rule is issued"))
    }

    /// Once it is known that the connection is over TLS: its addresses are, too.
    pub(super) fn over_tls(&mut self) {
        let remote = &mut self.spec.remote;
        for url in std::iter::once(&mut remote.url).chain(&mut remote.fallback_urls) {
            if let Some(rest) = url.strip_prefix("mqtt://") {
                *url = format!("mqtts://{rest}");
            }
        }
    }

    fn address(&mut self, line: &Line<'_>) -> Said {
        let words = line.words();
        let mut hosts = words.iter().take_while(|word| !word.starts_with('#'));
        let Some(first) = hosts.next() else { return Said::refused("the address is empty") };
        let urls: Result<Vec<String>, String> =
            std::iter::once(first).chain(hosts).map(|host| url(host)).collect();
        match urls {
            Ok(mut urls) => {
                self.spec.remote.fallback_urls = urls.split_off(1);
                self.spec.remote.url = urls.remove(0);
                Said::mapped()
            }
            Err(why) => Said::refused(why),
        }
    }

    fn keep_alive(&mut self, line: &Line<'_>) -> Said {
        let (least, most) = (*KEEP_ALIVE_S.start(), *KEEP_ALIVE_S.end());
        match line.word().parse::<i64>() {
            Ok(seconds) if seconds > i64::try_from(most).unwrap_or(i64::MAX) => {
                Said::refused(format!("at most {most} s are possible"))
            }
            Ok(seconds) => {
                let seconds = u64::try_from(seconds).unwrap_or(0);
                self.spec.remote.keep_alive = Seconds(seconds.max(least));
                if seconds < least {
                    Said::but(format!("{least} s, as mosquitto does"))
                } else {
                    Said::mapped()
                }
            }
            Err(_) => Said::refused("it is no number of seconds"),
        }
    }

    fn start_type(&mut self, line: &Line<'_>) -> Said {
        match line.word() {
            "automatic" => Said::mapped(),
            "manual" => {
                self.spec.start = Start::Manual;
                Said::mapped()
            }
            kind @ ("lazy" | "once") => Said::but(format!(
                "there is no '{kind}': the rule starts when it is issued, and runs until it is stopped"
            )),
            other => Said::refused(format!("'{}' is no start type; write automatic", brief(other))),
        }
    }
}

fn protocol(line: &Line<'_>) -> Said {
    match line.word() {
        "mqttv311" => Said::mapped(),
        "mqttv31" => Said::but("the rule speaks MQTT 3.1.1; a broker that knows only 3.1 refuses it"),
        "mqttv50" => {
            Said::but("the rule speaks MQTT 3.1.1; properties of MQTT 5 messages are not carried over")
        }
        other => Said::refused(format!("'{}' is no version; write mqttv311", brief(other))),
    }
}

fn tls_version(line: &Line<'_>) -> Said {
    match line.word() {
        "tlsv1.2" | "tlsv1.3" => {
            Said::ignored("the agent takes TLS 1.3, or 1.2 where the broker has no other")
        }
        other => Said::refused(format!("'{}' is not offered: TLS 1.2 and 1.3 are", brief(other))),
    }
}

/// The whole rest of a line; a rule takes braces for variables.
fn text(line: &Line<'_>, take: impl FnOnce(String) -> Said) -> Said {
    match line.rest {
        "" => Said::refused("the value is empty"),
        text if text.contains(['{', '}']) => {
            Said::refused("a brace cannot be written in a rule: it begins a variable")
        }
        text => take(text.to_owned()),
    }
}

fn flag(line: &Line<'_>, take: impl FnOnce(bool) -> Said) -> Said {
    match line.word() {
        "true" | "1" => take(true),
        "false" | "0" => take(false),
        _ => Said::refused("write true or false"),
    }
}

/// The URL of `host[:port]`; an IPv6 address stands bare, and its port is not optional.
fn url(address: &str) -> Result<String, String> {
    if address.len() > MAX_HOST_BYTES + ":65535".len() + "[]".len() {
        return Err(format!("the host has more than {MAX_HOST_BYTES} bytes"));
    }
    if address.contains(['{', '}', '@', '/', '?', '#']) {
        return Err(format!("'{}' is not host:port", brief(&address.replace(['@', '/'], " "))));
    }
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "1883"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if !host.contains(':') {
        return Ok(format!("mqtt://{host}:{port}"));
    }
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(_) => Ok(format!("mqtt://[{host}]:{port}")),
        Err(_) => Err("an IPv6 address needs its port: write it as ADDRESS:1883".to_owned()),
    }
}
