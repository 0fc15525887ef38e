//! Why a connection could not be made, or ended, and which fault of the protocol that is.

use std::{io, time::Duration};

use rumqttc::mqttbytes::{self, v4::ConnectReturnCode};
use tidegate_edge_queue::{AppendError, AsideError, ReadError};
use tidegate_model::code::FaultCode;
use tidegate_model::wire::{Fault, one_line};

/// Why there is no connection (any more). The sentence is for operators; it holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot find the address of '{host}': {source}; check the host name and the gateway's DNS")]
    Resolve { host: String, source: io::Error },
    #[error("'{host}' has no address; check the host name")]
    NoAddress { host: String },
    #[error(
        "cannot connect to {address}: {source}; check that the broker runs and that no firewall is between"
    )]
    Connect { address: String, source: io::Error },
    #[error("{address} did not accept a connection within {} ms; check address and firewall", after.as_millis())]
    ConnectTimeout { address: String, after: Duration },
    #[error("{address} accepted the connection and did not answer CONNECT within {} ms; is it an MQTT broker?", after.as_millis())]
    NoConnack { address: String, after: Duration },
    #[error(
        "{address} closed the connection without answering CONNECT; is it an MQTT broker, does it know this client?"
    )]
    ClosedBeforeConnack { address: String },
    #[error("the broker refused the connection: {reason}")]
    Refused { code: ConnectReturnCode, reason: &'static str },
    #[error("cannot reach the broker through the proxy {proxy}: {what}")]
    Proxy { proxy: String, what: String, refused: bool },
    #[error("TLS cannot be set up: {0}")]
    TlsSetup(String),
    #[error("{0}")]
    TlsUntrusted(String),
    #[error("{0}")]
    TlsName(String),
    #[error("{0}")]
    TlsClientCert(String),
    #[error("{address} cannot be spoken to over TLS: {what}")]
    TlsRefused { address: String, what: String },
    #[error("{address} closed the connection before TLS stood: {source}; is this its port for TLS?")]
    TlsBroken { address: String, source: io::Error },
    #[error("{address} did not answer with TLS within {} ms; is this its port for TLS?", after.as_millis())]
    TlsSilent { address: String, after: Duration },
    #[error("the broker closed the connection")]
    Closed,
    #[error(
        "the broker closes the connection each time a message of {bytes} bytes on '{topic}' is sent; it may be too \
         large or not permitted there"
    )]
    ClosedAfter { topic: String, bytes: usize },
    #[error("the connection to the broker broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the broker refused the subscription of {filters}; check what this client may subscribe to")]
    SubscribeRefused { filters: String },
    #[error("the broker did not answer SUBSCRIBE within {} ms", after.as_millis())]
    SubscribeSilent { after: Duration },
    #[error("the broker gave no sign of life for {} ms", after.as_millis())]
    Silent { after: Duration },
    #[error("the broker acknowledged no message for {} ms", after.as_millis())]
    NoAcknowledgement { after: Duration },
    #[error("the broker sent what is not MQTT 3.1.1: {0}")]
    Malformed(String),
    #[error("cannot read the queue: {0}")]
    Read(#[from] ReadError),
    #[error("cannot set a message aside that the broker does not take: {0}")]
    SetAside(#[source] AsideError),
    #[error("cannot keep a message of the broker: {0}")]
    Keep(#[source] AppendError),
    #[error("what the broker sent again is not what is held; it is asked anew")]
    Doubt,
    #[error("cannot note the session at the local broker: {0}")]
    Session(#[source] io::Error),
}

impl LinkError {
    /// The error for a CONNACK other than "accepted".
    pub fn refused(code: ConnectReturnCode) -> Self {
        let reason = match code {
            ConnectReturnCode::Success => "it accepted it",
            ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1 (CONNACK 1)",
            ConnectReturnCode::BadClientId => "it does not take this client id (CONNACK 2)",
            ConnectReturnCode::ServiceUnavailable => "it is not available now (CONNACK 3)",
            ConnectReturnCode::BadUserNamePassword => "user name or password is wrong (CONNACK 4)",
            ConnectReturnCode::NotAuthorized => "this client is not authorized (CONNACK 5)",
        };
        Self::Refused { code, reason }
    }

    /// The error for bytes that the codec does not take.
    pub fn malformed(error: &mqttbytes::Error) -> Self {
        Self::Malformed(error.to_string())
    }

    /// The fault it is.
    pub fn code(&self) -> FaultCode {
        match self {
            Self::Resolve { .. } | Self::NoAddress { .. } => FaultCode::Dns,
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::ClosedBeforeConnack { .. }
            | Self::Closed
            | Self::ClosedAfter { .. }
            | Self::Broken(_)
            | Self::Doubt
            | Self::TlsRefused { .. }
            | Self::TlsBroken { .. }
            | Self::TlsSilent { .. }
            | Self::Proxy { refused: false, .. }
            | Self::Malformed(_) => FaultCode::Tcp,
            Self::Proxy { refused: true, .. } => FaultCode::NotAuthorized,
            Self::TlsSetup(_) => FaultCode::Config,
            Self::TlsUntrusted(_) => FaultCode::TlsUntrusted,
            Self::TlsName(_) => FaultCode::TlsName,
            Self::TlsClientCert(_) => FaultCode::TlsClientCert,
            Self::Refused { code, .. } => match code {
                ConnectReturnCode::BadUserNamePassword => FaultCode::Auth,
                ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadClientId => FaultCode::NotAuthorized,
                ConnectReturnCode::RefusedProtocolVersion => FaultCode::Config,
                ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::Success => FaultCode::Tcp,
            },
            Self::SubscribeRefused { .. } => FaultCode::SubscribeRefused,
            Self::NoConnack { .. }
            | Self::SubscribeSilent { .. }
            | Self::Silent { .. }
            | Self::NoAcknowledgement { .. } => FaultCode::KeepAlive,
            Self::Read(_) | Self::Keep(_) | Self::SetAside(_) | Self::Session(_) => FaultCode::Disk,
        }
    }

    /// What the controller is told of the remote broker.
    pub fn fault(&self) -> Fault {
        fault(self.code(), &self.to_string())
    }

    /// What the controller is told of the local broker at this address.
    pub fn local_fault(&self, address: &str) -> Fault {
        if self.code() == FaultCode::Disk {
            self.fault()
        } else {
            fault(FaultCode::LocalBroker, &format!("local broker {address}: {self}"))
        }
    }
}

/// A fault whose detail may be shown, whatever a broker put into it.
pub(super) fn fault(code: FaultCode, detail: &str) -> Fault {
    Fault { code, detail: one_line(detail) }
}
