//! One connection, from CONNACK to its end: reads, writes, timers. What to send and what to keep, others decide: the window
//! over the queue that goes out (`outgoing.rs`), and the half that the connection is for (`half.rs`).

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Disconnect, Packet, PingReq};
use tidegate_edge_core::backoff::Backoff;
use tidegate_model::time::Monotonic;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::{Duration, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Timing,
    dial::Dialled,
    fault::LinkError,
    frame::{Frame, Frames},
    half::{Change, Half},
    outgoing::{MAX_OUT_BYTES, Outgoing},
    route::Split,
    subscriptions::Subscriptions,
};

/// Bytes asked from the socket at once.
const READ_BYTES: usize = 64 << 10;
/// How often the half is asked how it fares.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Longest goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// How a connection ended.
pub(super) enum End {
    /// The half is to stop.
    Stopped,
    /// Another connection is needed, although nothing broke.
    Redial,
    /// It broke, or the other side does not do what it should.
    Failed(LinkError),
}

/// What a connection works with beyond its socket and its half.
pub(super) struct Context<'a> {
    pub outgoing: &'a mut Outgoing,
    pub backoff: &'a mut Backoff,
    pub timing: Timing,
    pub epoch: Instant,
    pub cancel: &'a CancellationToken,
}

/// The state of one connection.
struct Link<'h, H> {
    half: &'h mut H,
    /// How long it may be silent before the other side is asked whether it is there.
    silence: Duration,
    frames: Frames,
    inbox: BytesMut,
    out: BytesMut,
    /// Bytes that left `out`.
    written: u64,
    /// What was written may stay on this side until it is flushed (TLS).
    holds_back: bool,
    flushed: bool,
    subscriptions: Subscriptions,
    /// Every subscription was granted once: messages flow, also while others are being subscribed.
    started: bool,
    /// Last sign of life.
    heard: Instant,
    /// Last bytes we sent.
    sent: Instant,
    /// When we asked whether anybody is there.
    pinged: Option<Instant>,
    /// When reading went on after being blocked: answers that came meanwhile could not be seen.
    resumed: Instant,
    blocked: bool,
}

/// Runs a connection until it ends.
pub(super) async fn drive<H: Half>(dialled: Dialled, half: &mut H, ctx: &mut Context<'_>) -> End {
    let Split { mut reader, mut writer, holds_back } = dialled.stream.split();
    let now = Instant::now();
    let mut subscriptions = Subscriptions::default();
    subscriptions.want(half.filters());
    let keep_alive = half.endpoint().keep_alive;
    ctx.outgoing.limit(half.limit());
    let mut link = Link {
        half,
        silence: ctx.timing.silence.min(keep_alive * 3 / 4),
        frames: Frames::default(),
        inbox: dialled.buf,
        out: BytesMut::new(),
        written: 0,
        holds_back,
        flushed: true,
        subscriptions,
        started: false,
        heard: now,
        sent: now,
        pinged: None,
        resumed: now,
        blocked: false,
    };
    let end = link.run(&mut reader, &mut writer, ctx).await.unwrap_or_else(End::Failed);
    ctx.outgoing.release();
    let end = match end {
        End::Failed(LinkError::Doubt) => End::Redial,
        End::Failed(error @ LinkError::NoAcknowledgement { .. }) => {
            let _ = ctx.outgoing.lost(Instant::now());
            End::Failed(error)
        }
        End::Failed(error @ (LinkError::Closed | LinkError::Broken(_))) => {
            let suspect = ctx.outgoing.lost(Instant::now());
            End::Failed(suspect.map_or(error, |(topic, bytes)| LinkError::ClosedAfter { topic, bytes }))
        }
        other @ (End::Stopped | End::Redial | End::Failed(_)) => other,
    };
    // Nothing is on its way any more.
    ctx.outgoing.rewind();
    match &end {
        End::Stopped | End::Redial => link.goodbye(&mut writer).await,
        End::Failed(_) => {}
    }
    end
}

impl<H: Half> Link<'_, H> {
    async fn run(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        ctx: &mut Context<'_>,
    ) -> Result<End, LinkError> {
        let durable: Arc<Notify> = ctx.outgoing.durable();
        loop {
            self.handle_inbox(ctx)?;
            self.half.acknowledge(&mut self.out)?;
            ctx.outgoing.release();
            let now = Instant::now();
            self.subscriptions.ask(&mut self.out, now)?;
            if self.subscriptions.ready() {
                self.started = true;
                self.half.ready().await;
            }
            if self.started {
                ctx.outgoing.fill(&mut self.out, self.written, now)?;
            }
            let deadline = self.deadline(ctx, now)?;
            self.inbox.reserve(READ_BYTES);
            // With acknowledgements piling up behind a broker that does not read, stop reading it, too.
            let may_read = !self.half.blocked() && self.out.len() < 2 * MAX_OUT_BYTES;
            tokio::select! {
                () = ctx.cancel.cancelled() => return Ok(End::Stopped),
                read = reader.read_buf(&mut self.inbox), if may_read => {
                    if read? == 0 {
                        return Err(LinkError::Closed);
                    }
                    self.heard = Instant::now();
                    self.pinged = None;
                    ctx.backoff.heard(monotonic(ctx.epoch, self.heard));
                }
                wrote = put(writer, &mut self.out), if !(self.out.is_empty() && self.flushed) => {
                    let wrote = wrote? as u64;
                    self.flushed = wrote == 0 || !self.holds_back;
                    if wrote > 0 {
                        self.written += wrote;
                        self.sent = Instant::now();
                        ctx.outgoing.written(self.written);
                    }
                }
                is_free = ctx.outgoing.disk() => if is_free? {
                    // The connections that ended were that message's fault.
                    ctx.backoff.reset();
                },
                () = durable.notified() => ctx.outgoing.look_again(),
                change = self.half.wait() => match change? {
                    Change::None => {}
                    Change::Filters => {
                        self.subscriptions.want(self.half.filters());
                        ctx.outgoing.limit(self.half.limit());
                    }
                    Change::Connection => return Ok(End::Redial),
                },
                () = sleep_until(deadline.into()) => {}
            }
        }
    }

    /// Handles what was read, as far as there is room for it.
    fn handle_inbox(&mut self, ctx: &mut Context<'_>) -> Result<(), LinkError> {
        let now = Instant::now();
        while !self.half.blocked() {
            let Some(frame) = self.frames.next(&mut self.inbox)? else { break };
            match frame {
                Frame::Packet(Packet::Publish(publish)) => self.half.take(publish)?,
                Frame::Packet(Packet::PubAck(ack)) => ctx.outgoing.acknowledged(ack.pkid, now),
                Frame::Packet(Packet::SubAck(suback)) => self.subscriptions.answered(&suback)?,
                Frame::Packet(Packet::PingResp | Packet::UnsubAck(_)) => {}
                Frame::Oversized(id) => self.half.pass_over(id),
                Frame::Packet(
                    other @ (Packet::Connect(_)
                    | Packet::ConnAck(_)
                    | Packet::PubRec(_)
                    | Packet::PubRel(_)
                    | Packet::PubComp(_)
                    | Packet::Subscribe(_)
                    | Packet::Unsubscribe(_)
                    | Packet::PingReq
                    | Packet::Disconnect),
                ) => {
                    return Err(LinkError::Malformed(format!(
                        "an unexpected packet of {} bytes",
                        other.size()
                    )));
                }
            }
        }
        if self.blocked && !self.half.blocked() {
            self.resumed = now;
            self.heard = now;
            // The answer to what was asked meanwhile lies among what was not read.
            self.pinged = None;
        }
        self.blocked = self.half.blocked();
        Ok(())
    }

    /// Looks at every clock: an error for what is overdue, PINGREQ when it is time, and when to look again.
    fn deadline(&mut self, ctx: &Context<'_>, now: Instant) -> Result<Instant, LinkError> {
        let timing = ctx.timing;
        let mut next = now + HEALTH_EVERY;
        if let Some(due) = self.half.due(now)? {
            next = next.min(due);
        }
        if let Some(due) = ctx.outgoing.free_at() {
            next = next.min(due);
        }
        if let Some(due) = self.subscriptions.due(timing.subscribe) {
            if now >= due {
                return Err(LinkError::SubscribeSilent { after: timing.subscribe });
            }
            next = next.min(due);
        }
        if !self.blocked
            && let Some(due) = ctx.outgoing.due(timing.acknowledge)
        {
            let due = due.max(self.resumed + timing.acknowledge);
            if now >= due {
                return Err(LinkError::NoAcknowledgement { after: timing.acknowledge });
            }
            next = next.min(due);
        }
        match self.pinged {
            Some(at) if !self.blocked => {
                let due = at + timing.ping;
                if now >= due {
                    return Err(LinkError::Silent { after: now - self.heard });
                }
                next = next.min(due);
            }
            Some(_) | None => {
                let since = if self.blocked { self.sent } else { self.sent.min(self.heard) };
                let due = since + self.silence;
                if now >= due {
                    PingReq.write(&mut self.out).map_err(|error| LinkError::malformed(&error))?;
                    self.pinged = Some(now);
                    self.sent = now;
                } else {
                    next = next.min(due);
                }
            }
        }
        Ok(next)
    }

    /// Writes what is due and DISCONNECT, if the other side reads.
    async fn goodbye(&mut self, writer: &mut (impl AsyncWrite + Unpin)) {
        if Disconnect.write(&mut self.out).is_ok() {
            // Nothing depends on it: what was not acknowledged is sent again.
            let _ = timeout(GOODBYE, async {
                writer.write_all_buf(&mut self.out).await?;
                writer.flush().await?;
                writer.shutdown().await
            })
            .await;
        }
    }
}

/// Writes what is there, or sends on what the stream holds back. How many bytes were written.
async fn put(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> std::io::Result<usize> {
    if out.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    writer.write_buf(out).await
}

/// A moment as the cores count it.
pub(super) fn monotonic(epoch: Instant, now: Instant) -> Monotonic {
    Monotonic(i64::try_from(now.saturating_duration_since(epoch).as_millis()).unwrap_or(i64::MAX))
}
