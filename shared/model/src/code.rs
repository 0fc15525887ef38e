//! The one list of codes: how an operation ended, why a message was refused, what fault pauses a rule.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure a code is: it decides who has to do something.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Unreachable or out of time: trying again may help.
    Network,
    /// The configuration was refused: trying the same again cannot help.
    Parameter,
}

macro_rules! codes {
    ($( $name:ident = $word:literal, $number:literal, $meaning:literal; )*) => {
        /// How an operation ended, or why something was refused. The number gives the class, as in HTTP.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $( #[doc = $meaning] #[serde(rename = $word)] $name, )*
            /// A code that a newer peer knows and this software does not.
            #[serde(rename = "UNKNOWN", other)]
            Unknown,
        }

        impl Code {
            /// Every code but [`Code::Unknown`].
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The word on the wire and in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$name => $word, )* Self::Unknown => "UNKNOWN" }
            }

            /// The number, as in HTTP.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $( Self::$name => $number, )* Self::Unknown => 500 }
            }

            /// One sentence for people.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $( Self::$name => $meaning, )* Self::Unknown => "the peer gave a code that this version does not know" }
            }
        }
    };
}

codes! {
    Ok = "OK", 200, "done";
    Accepted = "ACCEPTED", 202, "accepted and queued";
    Already = "ALREADY", 208, "it was so already";
    BadMessage = "BAD_MESSAGE", 400, "the message could not be read";
    BadSignature = "BAD_SIGNATURE", 401, "the message is not signed by whom it claims";
    PolicyDenied = "POLICY_DENIED", 403, "a policy forbids it";
    ManagedByCloud = "MANAGED_BY_CLOUD", 403, "the rule is managed by the cloud; change it there";
    UnknownRule = "UNKNOWN_RULE", 404, "no such rule is here";
    UnknownEdge = "UNKNOWN_EDGE", 404, "no such edge is known";
    Conflict = "CONFLICT", 409, "cloud and edge disagree; an operator has to decide";
    EdgeOffline = "EDGE_OFFLINE", 409, "the edge is offline";
    NotAllowed = "NOT_ALLOWED", 409, "the action is not possible in this state";
    DuplicateEdge = "DUPLICATE_EDGE", 409, "two gateways use the same identity";
    CloudBehind = "CLOUD_BEHIND", 409, "the edge holds newer commands than the cloud: the cloud was restored from a backup, or the edge was removed and made known anew";
    Stale = "STALE", 410, "a newer command was accepted already";
    StaleController = "STALE_CONTROLLER", 410, "the message comes from a controller that was replaced";
    StaleSession = "STALE_SESSION", 410, "the message was meant for another session";
    Superseded = "SUPERSEDED", 410, "a newer action took its place";
    Expired = "EXPIRED", 410, "the edge did not return in time; the queued action was dropped";
    TooLarge = "TOO_LARGE", 413, "it is larger than allowed";
    InvalidConfig = "INVALID_CONFIG", 422, "the edge refused the configuration";
    UnsupportedField = "UNSUPPORTED_FIELD", 422, "the agent on the edge is too old for this rule";
    MissingDependency = "MISSING_DEPENDENCY", 422, "something that the rule needs is missing on the edge";
    RemoteAuth = "REMOTE_AUTH", 422, "the remote broker refused the login";
    RemoteNotAuthorized = "REMOTE_NOT_AUTHORIZED", 422, "the remote broker says that this client is not authorized";
    SubscribeRefused = "SUBSCRIBE_REFUSED", 422, "the remote broker refused a subscription";
    Locked = "LOCKED", 423, "it is locked";
    Busy = "BUSY", 429, "something else is under way";
    Internal = "INTERNAL", 500, "an internal error";
    RemoteUnreachable = "REMOTE_UNREACHABLE", 502, "the remote broker cannot be reached";
    TimedOut = "TIMED_OUT", 504, "the edge gave no answer in time; its next report will tell whether it applied the change";
    NoSpace = "NO_SPACE", 507, "the disk of the edge is full";
}

// Written by hand: the derive does not see through the macro which word a code has.
#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Code {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let words = Self::ALL.iter().chain([&Self::Unknown]).map(|code| code.as_str());
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .description(Some("How an operation ended, or why something was refused."))
            .enum_values(Some(words))
            .into()
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for Code {}

impl Code {
    /// Whether the operation succeeded.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.number() < 300
    }

    /// Whether the edge may try the same again by itself later (protocol.md section 8).
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Locked
                | Self::Busy
                | Self::Internal
                | Self::RemoteUnreachable
                | Self::TimedOut
                | Self::NoSpace
        )
    }

    /// The class of a failure; `None` for a success.
    #[must_use]
    pub fn class(self) -> Option<FailureClass> {
        if self.is_success() {
            return None;
        }
        let network = self.is_transient() || matches!(self, Self::EdgeOffline | Self::Expired);
        Some(if network { FailureClass::Network } else { FailureClass::Parameter })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What keeps a rule from running that wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FaultCode {
    /// The name of the remote broker does not resolve.
    Dns,
    /// No TCP connection to the remote broker, or it broke.
    Tcp,
    /// The certificate of the remote broker is not trusted.
    TlsUntrusted,
    /// The certificate of the remote broker is for another name.
    TlsName,
    /// The remote broker refused the client's certificate.
    TlsClientCert,
    /// The remote broker refused the login (CONNACK 4).
    Auth,
    /// The remote broker refused this client (CONNACK 5 or 2).
    NotAuthorized,
    /// The remote broker refused a subscription (SUBACK 0x80).
    SubscribeRefused,
    /// The remote broker went silent.
    KeepAlive,
    /// The queue is full and the rule's policy is to block. It is told beside the run state and pauses nothing.
    QueueFull,
    /// The disk of the gateway fails or is full.
    Disk,
    /// The local broker is not there.
    LocalBroker,
    /// The configuration cannot be run.
    Config,
    /// A code of a newer agent.
    #[serde(other)]
    Unknown,
}

impl FaultCode {
    /// Every code but [`FaultCode::Unknown`].
    pub const ALL: [Self; 13] = [
        Self::Dns,
        Self::Tcp,
        Self::TlsUntrusted,
        Self::TlsName,
        Self::TlsClientCert,
        Self::Auth,
        Self::NotAuthorized,
        Self::SubscribeRefused,
        Self::KeepAlive,
        Self::QueueFull,
        Self::Disk,
        Self::LocalBroker,
        Self::Config,
    ];

    /// The word on the wire and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Tcp => "TCP",
            Self::TlsUntrusted => "TLS_UNTRUSTED",
            Self::TlsName => "TLS_NAME",
            Self::TlsClientCert => "TLS_CLIENT_CERT",
            Self::Auth => "AUTH",
            Self::NotAuthorized => "NOT_AUTHORIZED",
            Self::SubscribeRefused => "SUBSCRIBE_REFUSED",
            Self::KeepAlive => "KEEP_ALIVE",
            Self::QueueFull => "QUEUE_FULL",
            Self::Disk => "DISK",
            Self::LocalBroker => "LOCAL_BROKER",
            Self::Config => "CONFIG",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The code with which an issue fails when its probe meets this fault; `None`: the fault is not the rule's,
    /// so the rule is committed and pauses until the fault is gone (protocol.md section 8).
    #[must_use]
    pub fn as_parameter_error(self) -> Option<Code> {
        match self {
            Self::Auth => Some(Code::RemoteAuth),
            Self::NotAuthorized => Some(Code::RemoteNotAuthorized),
            Self::SubscribeRefused => Some(Code::SubscribeRefused),
            Self::Config | Self::TlsUntrusted | Self::TlsName | Self::TlsClientCert => {
                Some(Code::InvalidConfig)
            }
            Self::Dns
            | Self::Tcp
            | Self::KeepAlive
            | Self::QueueFull
            | Self::Disk
            | Self::LocalBroker
            | Self::Unknown => None,
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_as_it_is_named_and_a_strange_one_is_read_as_unknown() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        for code in FaultCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        assert_eq!(serde_json::from_str::<Code>("\"FROM_THE_FUTURE\"").unwrap(), Code::Unknown);
        assert_eq!(serde_json::from_str::<FaultCode>("\"FROM_THE_FUTURE\"").unwrap(), FaultCode::Unknown);
    }

    #[test]
    fn c09_failures_have_a_class() {
        assert_eq!(Code::Ok.class(), None);
        assert_eq!(Code::TimedOut.class(), Some(FailureClass::Network));
        assert_eq!(Code::EdgeOffline.class(), Some(FailureClass::Network));
        assert_eq!(Code::RemoteAuth.class(), Some(FailureClass::Parameter));
        assert_eq!(Code::InvalidConfig.class(), Some(FailureClass::Parameter));
    }
}
