//! Counters of one broker. Every message that is dropped and every client that is refused is counted here by its reason.

use crate::connect::NotAdmitted;
use crate::gate::Refusal;
use crate::watcher::DisconnectReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// Declares the counters once: as public numbers, as the atomics behind them, and the copy from one to the other.
macro_rules! counters {
    ($($(#[$meaning:meta])* $name:ident,)*) => {
        /// Counters since start, and sizes now.
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Stats {
            /// Connections that were let in and are open.
            pub connected: usize,
            /// Connections whose CONNECT is not complete.
            pub connecting: usize,
            /// Sessions, online and offline.
            pub sessions: usize,
            /// Subscriptions of all sessions.
            pub subscriptions: usize,
            /// Retained messages.
            pub retained_messages: usize,
            /// Bytes of retained messages.
            pub retained_bytes: usize,
            /// Bytes of messages that wait for sessions, those in flight included, as
            /// [`crate::Limits::max_all_queued_bytes`] counts them.
            pub waiting_bytes: usize,
            $($(#[$meaning])* pub $name: u64,)*
        }

        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub $name: AtomicU64,)*
        }

        impl Counters {
            /// A copy of the counters, sizes left at 0.
            pub fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)* ..Stats::default() }
            }
        }
    };
}

counters! {
    /// TCP connections accepted since start.
    accepted,
    /// Failures to accept one, as when the process may open no more files.
    accept_errors,
    /// Connections that were not let in; the sum of the seven reasons that follow.
    refused,
    /// Not let in: too many connections did not complete their CONNECT, in all or of one address.
    refused_crowded,
    /// Not let in: closed or silent before a complete CONNECT.
    refused_incomplete,
    /// Not let in: what came is no CONNECT of MQTT 3.1.1.
    refused_malformed,
    /// CONNACK 2: the client id.
    refused_client_id,
    /// CONNACK 3: too many connections or sessions, or the gate cannot tell now.
    refused_unavailable,
    /// CONNACK 4: user name or password.
    refused_credentials,
    /// CONNACK 5: no rights, the will's included.
    refused_not_authorized,
    /// Connections closed because another one took their client id over.
    taken_over,
    /// Connections closed because the client broke the protocol or passed a limit.
    violations,
    /// Connections closed because the client published where it may not.
    not_permitted,
    /// Connections closed because nothing came for 1.5 keep-alive times.
    keep_alive_timeouts,
    /// Connections closed because the client took no byte for the write timeout.
    write_timeouts,
    /// Publishes received from clients.
    received,
    /// Publishes sent to clients.
    sent,
    /// QoS 0 messages dropped because a session's queue was full or its connection ended.
    dropped_qos0,
    /// QoS 1 and 2 messages dropped because a session's queue was full.
    dropped_queue_full,
    /// QoS 1 and 2 messages dropped because all sessions together held too much.
    dropped_all_full,
    /// QoS 0 messages and wills that a tap refused.
    dropped_by_tap,
    /// Messages that were delivered but not retained for lack of room.
    not_retained,
    /// Wills published.
    wills,
    /// Wills discarded because the broker stopped.
    wills_discarded,
    /// Connections that a panic ended: a bug of this broker.
    panics,
    /// Failed writes of the state directory; the next write tries everything again.
    state_write_errors,
}

/// Adds to a counter; counters order nothing.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts a connection that was not let in.
    pub fn refuse(&self, reason: &NotAdmitted) {
        count(&self.refused, 1);
        let counter = match reason {
            NotAdmitted::Crowded => &self.refused_crowded,
            NotAdmitted::Ended | NotAdmitted::Late => &self.refused_incomplete,
            NotAdmitted::NotConnect | NotAdmitted::Malformed(_) | NotAdmitted::Will(_) => {
                &self.refused_malformed
            }
            NotAdmitted::Refused(Refusal::IdentifierRejected) => &self.refused_client_id,
            NotAdmitted::Refused(Refusal::ServerUnavailable) => &self.refused_unavailable,
            NotAdmitted::Refused(Refusal::BadCredentials) => &self.refused_credentials,
            NotAdmitted::Refused(Refusal::NotAuthorized) => &self.refused_not_authorized,
        };
        count(counter, 1);
    }

    /// Counts the end of a connection that was let in, if somebody should know.
    pub fn end(&self, reason: &DisconnectReason) {
        let counter = match reason {
            DisconnectReason::TakenOver => &self.taken_over,
            DisconnectReason::Protocol(_) => &self.violations,
            DisconnectReason::NotPermitted { .. } => &self.not_permitted,
            DisconnectReason::KeepAlive => &self.keep_alive_timeouts,
            DisconnectReason::WriteTimeout => &self.write_timeouts,
            DisconnectReason::Client
            | DisconnectReason::Lost(_)
            | DisconnectReason::TapRefused
            | DisconnectReason::ByOwner
            | DisconnectReason::Stopped => return,
        };
        count(counter, 1);
    }
}
