//! The reading half of a connection: takes packets off the socket, does what they ask for, and acknowledges in order.

use crate::broker::Context;
use crate::codec::{self, Inbound, Publish, Reply};
use crate::connect::Attachment;
use crate::filter;
use crate::gate::Rights;
use crate::held::{Held, Item};
use crate::message::{Message, Qos};
use crate::session::Received;
use crate::stats::count;
use crate::tap::{Offer, Source, TapResult};
use crate::watcher::{DisconnectReason, Event};
use crate::writer::{Outbox, lost};
use bytes::BytesMut;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};
use tokio::time::Instant;

/// Bytes that one read takes at the most.
const READ_BYTES: usize = 32 * 1024;

thread_local! {
    /// Where reads of all connections of a thread land first, so that a connection which waits holds no buffer.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Reads what is there behind `buffer`; 0 at the end of the connection. Nothing is lost when the wait is given up.
pub(crate) async fn read_some<S: AsyncRead + Unpin>(
    socket: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<usize> {
    poll_fn(|context| {
        LANDING.with_borrow_mut(|landing| {
            let mut landing = ReadBuf::new(landing);
            ready!(Pin::new(&mut *socket).poll_read(context, &mut landing))?;
            buffer.extend_from_slice(landing.filled());
            Poll::Ready(Ok(landing.filled().len()))
        })
    })
    .await
}

/// The reading half of a connection.
pub(crate) struct Reader<'a> {
    context: &'a Context,
    attachment: &'a Attachment,
    outbox: &'a Outbox,
    rights: Rights,
    source: Source,
    held: Held,
}

impl<'a> Reader<'a> {
    pub fn new(context: &'a Context, attachment: &'a Attachment, outbox: &'a Outbox, rights: Rights) -> Self {
        let client_id = Arc::clone(&attachment.slot.client_id);
        let source = Source::Client { client_id, connection: attachment.connection };
        let limits = &context.limits;
        let held = Held::new(limits.max_unacked_taps_per_client, limits.max_unacked_tap_bytes_per_client);
        Self { context, attachment, outbox, rights, source, held }
    }

    /// Reads and handles packets until the connection is to end.
    pub async fn run<S: AsyncRead>(
        &mut self,
        mut socket: ReadHalf<S>,
        mut buffer: BytesMut,
        silence: Option<Duration>,
    ) -> DisconnectReason {
        let mut deadline = silence.map(|silence| Instant::now() + silence);
        loop {
            let before = buffer.len();
            match self.handle_buffered(&mut buffer).await {
                Ok(()) => {}
                Err(reason) => return reason,
            }
            let blocked = self.is_blocked();
            if blocked || buffer.len() < before {
                // Keep-alive counts whole packets, and does not run while we do not read.
                deadline = silence.map(|silence| Instant::now() + silence);
            }
            if buffer.is_empty() {
                // A client that says nothing holds no buffer.
                buffer = BytesMut::new();
            }
            tokio::select! {
                biased;
                reason = self.attachment.kill.killed() => return reason,
                Some((item, result)) = self.held.next() => {
                    if let Err(reason) = self.complete(item, result) {
                        return reason;
                    }
                }
                () = self.outbox.taken.notified(), if blocked => {}
                read = read_some(&mut socket, &mut buffer), if !blocked => match read {
                    Ok(1..) => {}
                    Ok(0) => return DisconnectReason::Lost("closed by the client".to_owned()),
                    Err(error) => return lost(&error),
                },
                () = sleep_until(deadline), if !blocked => return DisconnectReason::KeepAlive,
            }
        }
    }

    fn is_blocked(&self) -> bool {
        self.held.is_full() || self.outbox.is_full()
    }

    async fn handle_buffered(&mut self, buffer: &mut BytesMut) -> Result<(), DisconnectReason> {
        self.complete_ready()?;
        while !self.is_blocked() {
            let packet = codec::decode(buffer, self.context.limits.max_packet_bytes)
                .map_err(|error| DisconnectReason::Protocol(error.to_string()))?;
            match packet {
                Some(packet) => self.handle(packet).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn handle(&mut self, packet: Inbound) -> Result<(), DisconnectReason> {
        let slot = &self.attachment.slot;
        match packet {
            Inbound::Publish(publish) => return self.publish(publish),
            Inbound::PubAck(id) => slot.session().puback(id),
            Inbound::PubComp(id) => slot.session().pubcomp(id),
            Inbound::PubRec(id) => {
                slot.session().pubrec(id);
                self.reply(Reply::PubRel(id));
            }
            Inbound::PubRel(id) => {
                slot.session().release(id);
                self.reply(Reply::PubComp(id));
            }
            Inbound::Subscribe { packet_id, filters } => self.subscribe(packet_id, filters).await,
            Inbound::Unsubscribe { packet_id, filters } => {
                if self.context.hub.unsubscribe(slot, &filters) {
                    self.context.save_sessions().await;
                }
                self.reply(Reply::UnsubAck(packet_id));
            }
            Inbound::PingReq => self.reply(Reply::PingResp),
            Inbound::Disconnect => return Err(DisconnectReason::Client),
            Inbound::Connect(_) => return Err(DisconnectReason::Protocol("a second CONNECT".to_owned())),
        }
        // An acknowledgement may have opened the window.
        slot.wake.notify_one();
        Ok(())
    }

    fn reply(&self, reply: Reply) {
        self.outbox.reply(&self.attachment.slot, reply);
    }

    fn publish(&mut self, publish: Publish) -> Result<(), DisconnectReason> {
        let Publish { topic, payload, qos, retain, dup, packet_id } = publish;
        let limits = &self.context.limits;
        filter::check_name(&topic, limits.max_topic_bytes, limits.max_topic_levels).map_err(|error| {
            DisconnectReason::Protocol(format!("publish to a topic that is not valid: {error}"))
        })?;
        if !self.rights.publish.allows_topic(&topic) {
            return Err(DisconnectReason::NotPermitted { topic: topic.into() });
        }
        count(&self.context.hub.counters.received, 1);
        if qos == Qos::ExactlyOnce {
            let received = self.attachment.slot.session().receive(packet_id);
            match received {
                Received::New => {}
                Received::Pending => return Ok(()),
                Received::Done => {
                    self.held.push(Item { message: None, packet_id, wait: None, fan_out: false });
                    return self.complete_ready();
                }
                Received::TooMany => {
                    return Err(DisconnectReason::Protocol(
                        "too many QoS 2 publishes without PUBREL".to_owned(),
                    ));
                }
            }
        }
        let message = Arc::new(Message { topic: topic.into(), payload, qos, retain, dup });
        let (wait, fan_out) = match self.context.tap.offer(&message, &self.source) {
            Offer::Pass => (None, true),
            Offer::Hold { then, fan_out } => (Some(then), fan_out),
        };
        self.held.push(Item { message: Some(message), packet_id, wait, fan_out });
        self.complete_ready()
    }

    async fn subscribe(&self, packet_id: u16, filters: Vec<(String, Qos)>) {
        let limits = &self.context.limits;
        let slot = &self.attachment.slot;
        let allowed = |filter: &str| {
            filter::check_filter(filter, limits.max_topic_bytes, limits.max_topic_levels).is_ok()
                && self.rights.subscribe.allows_filter(filter)
        };
        let verdicts: Vec<bool> = filters.iter().map(|(filter, _)| allowed(filter)).collect();
        let good: Vec<(Arc<str>, Qos)> = filters
            .into_iter()
            .zip(&verdicts)
            .filter(|(_, ok)| **ok)
            .map(|((f, qos), _)| (f.into(), qos))
            .collect();
        let (answers, save) = self.context.hub.subscribe(slot, &good);
        if save {
            self.context.save_sessions().await;
        }
        let mut answers_in_order = answers.iter().copied();
        let granted =
            verdicts.iter().map(|ok| if *ok { answers_in_order.next().flatten() } else { None }).collect();
        self.reply(Reply::SubAck { packet_id, granted });
        let new: Vec<_> = good.iter().zip(answers).filter_map(|((f, _), qos)| Some((f, qos?))).collect();
        self.context.hub.look_up(slot, &new);
        for (filter, qos) in new {
            let (client_id, connection) = (Arc::clone(&slot.client_id), self.attachment.connection);
            let filter = Arc::clone(filter);
            self.context.watcher.event(&Event::Subscribed { client_id, connection, filter, qos });
        }
    }

    /// Completes publishes whose taps have answered, in order.
    fn complete_ready(&mut self) -> Result<(), DisconnectReason> {
        while let Some((item, result)) = self.held.try_next() {
            self.complete(item, result)?;
        }
        Ok(())
    }

    /// Delivers and acknowledges a publish, or ends the connection so that the client sends it again.
    fn complete(&self, item: Item, result: TapResult) -> Result<(), DisconnectReason> {
        let Item { message, packet_id, fan_out, .. } = item;
        let Some(message) = message else {
            self.reply(Reply::PubRec(packet_id));
            return Ok(());
        };
        let (TapResult::Taken, qos) = (result, message.qos) else { return self.refused(&message, packet_id) };
        if fan_out {
            self.context.hub.commit(&message);
        }
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.reply(Reply::PubAck(packet_id)),
            Qos::ExactlyOnce => {
                self.attachment.slot.session().processed(packet_id);
                self.reply(Reply::PubRec(packet_id));
            }
        }
        Ok(())
    }

    fn refused(&self, message: &Message, packet_id: u16) -> Result<(), DisconnectReason> {
        match message.qos {
            Qos::AtMostOnce => {
                count(&self.context.hub.counters.dropped_by_tap, 1);
                return Ok(());
            }
            Qos::AtLeastOnce => {}
            Qos::ExactlyOnce => self.attachment.slot.session().not_processed(packet_id),
        }
        Err(DisconnectReason::TapRefused)
    }

    /// After the end of the connection: waits `grace` for the taps of what was received, then gives the rest up. `refused`
    /// tells that a message before these was refused.
    pub async fn settle_all(&mut self, grace: Duration, mut refused: bool) {
        let end = Instant::now() + grace;
        while let Ok(Some((item, result))) = tokio::time::timeout_at(end, self.held.next()).await {
            let comes_again = item.message.as_ref().is_some_and(|message| message.qos == Qos::AtLeastOnce);
            // Behind a refused message, what will be sent again is not delivered now: it would come before the other.
            if !(refused && comes_again) {
                refused |= self.complete(item, result).is_err();
            }
        }
        while let Some(item) = self.held.give_up() {
            if let Some(message) = &item.message {
                let _ = self.refused(message, item.packet_id);
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
