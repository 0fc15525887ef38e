//! Presence: which session of an edge stands, and which messages are only echoes of an older one.
//!
//! Protocol.md section 5. The order of sessions is (store, epoch) and never time: a Last Will that comes late, a birth
//! that was copied, a retained message of last week all carry an epoch that was passed long ago.
//!
//! ```text
//!            birth, hello (higher epoch)               silence for 2.5 heartbeats
//!  Unknown ------------------------------> Online ------------------------------> Stale
//!     |                                     ^  |  <------ any message ------------  |
//!     | will, bye                           |  | will, bye (known epoch or higher)  | no pong
//!     v                                     |  v                                    v
//!  Offline <--------------------------------+-Offline <-----------------------------+
//!                        pong, birth with a higher epoch
//! ```

use std::collections::BTreeMap;

use tidegate_model::code::Code;
use tidegate_model::digest::Digest;
use tidegate_model::ids::{EdgeId, MessageId, RuleId, RuleName, SessionId};
use tidegate_model::limits;
use tidegate_model::placement::{Link, VersionDigest};
use tidegate_model::time::Monotonic;
use tidegate_model::version::Generation;
use tidegate_model::wire::{Down, Envelope, Header, Origin, Ping, RunReport, Want};

use crate::controller::{Controller, Edge, Placement, Turn};
use crate::io::Effect;
use crate::reconcile::Collected;
use crate::timers::TimerKey;

/// What is known of an edge as long as the process lives.
#[derive(Debug, Clone)]
pub(crate) struct EdgeLive {
    pub(crate) link: Link,
    /// When it last said something.
    pub(crate) heard: Monotonic,
    pub(crate) session: Option<Session>,
    /// The session that was believed dead or replaced last: its counters go on if a pong revives it.
    asleep: Option<Session>,
    pub(crate) collecting: Option<Collected>,
    /// When an inventory was last asked for.
    pub(crate) asked_at: Option<Monotonic>,
    /// Whether one is wanted and did not come yet; the question or the answer may have been lost.
    pub(crate) wants_inventory: bool,
    /// Take-overs within [`limits::TAKEOVER_WINDOW_MS`], at most [`limits::MAX_TAKEOVERS`].
    takeovers: Vec<Monotonic>,
    duplicate_until: Option<Monotonic>,
    /// Whether everything that the records say of this edge was confirmed since the controller started.
    pub(crate) confirmed: bool,
    /// Rules on it that the cloud never had, as last told, at most [`limits::MAX_RULES_PER_EDGE`]; `None`: this edge,
    /// with this store, told nothing yet since the controller started.
    pub(crate) unmanaged: Option<BTreeMap<RuleId, Unmanaged>>,
    /// Generations that its last inventory told, tombstones included.
    pub(crate) highest: BTreeMap<RuleId, Generation>,
    /// The highest epoch above this controller's own that it named; 0: none.
    pub(crate) highest_ce: u64,
    pub(crate) dropped: u64,
    pub(crate) clock_skew_ms: Option<i64>,
}

impl Default for EdgeLive {
    fn default() -> Self {
        Self {
            link: Link::Unknown,
            heard: Monotonic::default(),
            session: None,
            asleep: None,
            collecting: None,
            asked_at: None,
            wants_inventory: false,
            takeovers: Vec::new(),
            duplicate_until: None,
            confirmed: false,
            unmanaged: None,
            highest: BTreeMap::new(),
            highest_ce: 0,
            dropped: 0,
            clock_skew_ms: None,
        }
    }
}

impl EdgeLive {
    /// The controller's epoch rose: what is sent from now on counts from 1.
    pub(crate) fn begin_epoch(&mut self) {
        for session in [&mut self.session, &mut self.asleep].into_iter().flatten() {
            session.down = 0;
        }
    }
}

/// A session of an edge that stands.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) sid: SessionId,
    pub(crate) boot: Option<u64>,
    /// The last message on `up`: (controller epoch that it named, number).
    up: Option<(u64, u64)>,
    /// Number of the last message on `down`.
    down: u64,
    /// The last question for an inventory, and the last message on `up` when it was asked.
    question: Option<(MessageId, (u64, u64))>,
}

/// What an edge said of a rule that the cloud never had: what its root is made of, and what people are shown.
#[derive(Debug, Clone)]
pub(crate) struct Unmanaged {
    pub(crate) name: Option<RuleName>,
    pub(crate) origin: Origin,
    pub(crate) want: Digest,
    pub(crate) running: Option<VersionDigest>,
    pub(crate) run: RunReport,
}

/// What a session id says about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is of the session that stands.
    Current,
    /// It is of a session that was believed dead or replaced: it is to be asked.
    Revenant,
    /// It is of a session that was passed, or of a store that did not say hello yet.
    Past,
}

/// What the number of a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The next.
    Next,
    /// Some before it are missing.
    Gap,
    /// It was handled already, or came too late.
    Copy,
}

impl Edge {
    /// Why actions on this edge are held, if they are.
    pub(crate) fn held(&self) -> Option<Code> {
        if self.live.duplicate_until.is_some() {
            Some(Code::DuplicateEdge)
        } else if self.record.facts.cloud_behind {
            Some(Code::CloudBehind)
        } else {
            None
        }
    }
}

impl Controller {
    pub(crate) fn edge_mut(&mut self, edge: &EdgeId) -> &mut Edge {
        self.edges.get_mut(edge).expect("the caller looked the edge up before")
    }

    /// A birth: the session stands from now on, if it is a new one.
    pub(crate) fn birth(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId, boot: u64) {
        let edge = self.edge_mut(id);
        let facts = &edge.record.facts;
        if facts.previous_store == Some(sid.store) {
            self.duplicate(turn, id, "two databases alternate under this identity");
        } else if facts.store != Some(sid.store) || sid.epoch > facts.epoch {
            let over = edge.live.link == Link::Online && facts.store == Some(sid.store);
            self.adopt(turn, id, sid, Some(boot));
            if over {
                self.count_takeover(turn, id);
            }
        } else if sid.epoch == facts.epoch && facts.alive {
            self.check_boot(turn, id, sid, boot);
        } else {
            edge.live.dropped += 1;
        }
    }

    /// A will or a bye: the session ended, unless a newer one stands.
    pub(crate) fn death(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId, planned: bool) {
        let edge = self.edge_mut(id);
        let facts = &mut edge.record.facts;
        if facts.store != Some(sid.store) || sid.epoch < facts.epoch {
            edge.live.dropped += 1;
            return;
        }
        facts.epoch = sid.epoch;
        facts.alive = false;
        let text = if planned { "the agent stopped" } else { "the connection broke" };
        turn.touch_edge(id);
        self.goes_offline(turn, id, text);
    }

    /// Sorts a message of `up` by its session id; one of a session that was not heard of yet begins that session
    /// (its birth was lost).
    pub(crate) fn heard(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId, is_hello: bool) -> Heard {
        let edge = self.edge_mut(id);
        let facts = &edge.record.facts;
        if facts.store != Some(sid.store) {
            // Replaced, it may be an echo; or it is the one that stands after all, and what replaced it was the echo.
            if facts.previous_store == Some(sid.store) {
                return Heard::Revenant;
            }
            // A store that is new to us begins with its hello; everything else may be an echo, or of one that stands after all while
            // echoes of two others came: asked, only that one answers.
            if !is_hello {
                return if facts.store.is_some() { Heard::Revenant } else { Heard::Past };
            }
            self.adopt(turn, id, sid, None);
            return Heard::Current;
        }
        if sid.epoch < facts.epoch {
            return Heard::Past;
        }
        if sid.epoch > facts.epoch || (facts.alive && edge.live.session.is_none()) {
            self.adopt(turn, id, sid, None);
            if !is_hello {
                // Its next hello may be a quarter of an hour away, and something may wait for it.
                self.ask_inventory(turn, id);
            }
            return Heard::Current;
        }
        if facts.alive { Heard::Current } else { Heard::Revenant }
    }

    /// A pong of a session that was believed dead or replaced.
    pub(crate) fn revive(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId) {
        if self.edge_mut(id).record.facts.store != Some(sid.store) {
            self.duplicate(turn, id, "two databases alternate under this identity");
        }
        self.adopt(turn, id, sid, None);
        self.ask_inventory(turn, id);
    }

    /// Takes a session as the one that stands.
    fn adopt(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId, boot: Option<u64>) {
        let edge = self.edge_mut(id);
        let facts = &mut edge.record.facts;
        let wiped = facts.store.is_some_and(|store| store != sid.store);
        if wiped {
            facts.previous_store = facts.store;
        }
        facts.store = Some(sid.store);
        facts.epoch = sid.epoch;
        facts.alive = true;
        // The session that is replaced may be the one that stands after all: if a pong shows it, its counters go on.
        let (again, other): (Vec<_>, Vec<_>) = [edge.live.session.take(), edge.live.asleep.take()]
            .into_iter()
            .flatten()
            .partition(|session| session.sid == sid);
        edge.live.asleep = other.into_iter().next();
        let again = again.into_iter().next();
        edge.live.session = Some(again.unwrap_or(Session { sid, boot, up: None, down: 0, question: None }));
        edge.live.collecting = None;
        edge.live.asked_at = None;
        edge.live.wants_inventory = true;
        edge.live.confirmed = false;
        if wiped {
            // What another database said is void: nobody knows what this one holds before it says so.
            edge.live.highest.clear();
            edge.live.unmanaged = None;
            for key in self.keys_of_edge(id) {
                self.placement_mut(&key).record.reported = None;
                turn.touch(&key);
            }
        }
        // They are no part of what the roots compare: a session that begins tells them anew.
        for key in self.keys_of_edge(id) {
            let Placement { record, .. } = self.placement_mut(&key);
            let run = record.reported.as_ref().map(|reported| &reported.run);
            if run.is_some_and(|run| run.queue_full.is_some() || run.flapping.is_some()) {
                let run = &mut record.reported.as_mut().expect("it was there above").run;
                (run.queue_full, run.flapping) = (None, None);
                turn.touch(&key);
            }
        }
        turn.touch_edge(id);
        self.mark_online(turn, id);
    }

    /// Something came from the session that stands.
    pub(crate) fn mark_online(&mut self, turn: &mut Turn, id: &EdgeId) {
        let edge = self.edge_mut(id);
        edge.record.facts.last_seen = Some(turn.now.wall);
        // Its timer is not moved with each message: when it comes, it is looked at when the last one was.
        edge.live.heard = turn.now.monotonic;
        if edge.live.link != Link::Online {
            edge.live.link = Link::Online;
            let due = self.silent_from(turn.now.monotonic);
            self.timers.set(TimerKey::Silence(id.clone()), due);
            turn.touch_edge(id);
            turn.tell_edge(id, format!("edge {id} is online"));
        }
    }

    /// When an edge that was heard at this moment, and not since, is silent.
    fn silent_from(&self, heard: Monotonic) -> Monotonic {
        heard.plus_ms(i64::from(self.settings.heartbeat_s) * limits::STALE_AFTER_TENTHS * 100)
    }

    /// If the edge said nothing for too long: ask it; then, without an answer, it is offline.
    pub(crate) fn silence(&mut self, turn: &mut Turn, id: &EdgeId) {
        let Some(edge) = self.edges.get(id) else { return };
        let due = self.silent_from(edge.live.heard);
        let edge = self.edge_mut(id);
        match edge.live.link {
            Link::Online if due > turn.now.monotonic => {
                self.timers.set(TimerKey::Silence(id.clone()), due);
            }
            Link::Online => {
                edge.live.link = Link::Stale;
                let pong = turn.now.monotonic.plus_ms(limits::PONG_TIMEOUT_MS);
                self.timers.set(TimerKey::Silence(id.clone()), pong);
                self.ping(turn, id);
                turn.tell_edge(id, format!("edge {id} is silent; asked it whether it is there"));
            }
            Link::Stale => {
                edge.record.facts.alive = false;
                turn.touch_edge(id);
                self.goes_offline(turn, id, "no answer to a ping");
            }
            Link::Unknown | Link::Offline => {}
        }
    }

    fn goes_offline(&mut self, turn: &mut Turn, id: &EdgeId, why: &str) {
        self.timers.clear(&TimerKey::Silence(id.clone()));
        let edge = self.edge_mut(id);
        if let Some(session) = edge.live.session.take() {
            edge.live.asleep = Some(session);
        }
        edge.live.collecting = None;
        edge.live.confirmed = false;
        if edge.live.link == Link::Offline {
            return;
        }
        edge.live.link = Link::Offline;
        turn.tell_edge(id, format!("edge {id} is offline: {why}"));
        for key in self.keys_of_edge(id) {
            self.wait_offline(turn.now, &key);
        }
    }

    fn count_takeover(&mut self, turn: &mut Turn, id: &EdgeId) {
        let now = turn.now.monotonic;
        let live = &mut self.edge_mut(id).live;
        live.takeovers.retain(|at| at.plus_ms(limits::TAKEOVER_WINDOW_MS) > now);
        live.takeovers.push(now);
        if live.takeovers.len() >= limits::MAX_TAKEOVERS {
            live.takeovers.clear();
            self.duplicate(turn, id, "its connection was taken over again and again");
        }
    }

    /// Two boot numbers in one epoch are two gateways with one disk image.
    pub(crate) fn check_boot(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId, boot: u64) {
        let live = &mut self.edge_mut(id).live;
        let known = [&mut live.session, &mut live.asleep].into_iter().flatten().find(|s| s.sid == sid);
        let Some(session) = known else { return };
        match session.boot {
            None => session.boot = Some(boot),
            Some(known) if known == boot => {}
            Some(_) => {
                // One gateway whose disk was restored to this very epoch shows its new boot once; two go on to
                // alternate, and each change is a new sign. Each counts its messages for itself.
                session.boot = Some(boot);
                session.up = None;
                self.duplicate(turn, id, "two gateways run from copies of one disk");
            }
        }
    }

    fn duplicate(&mut self, turn: &mut Turn, id: &EdgeId, why: &str) {
        let until = turn.now.monotonic.plus_ms(limits::TAKEOVER_WINDOW_MS);
        self.edge_mut(id).live.duplicate_until = Some(until);
        self.timers.set(TimerKey::Hold(id.clone()), until);
        turn.tell_edge(id, format!("actions on edge {id} are held: {why} (DUPLICATE_EDGE)"));
    }

    /// Nothing pointed to a second gateway for a while.
    pub(crate) fn hold_ends(&mut self, turn: &mut Turn, id: &EdgeId) {
        if let Some(edge) = self.edges.get_mut(id) {
            edge.live.duplicate_until = None;
            edge.live.asked_at = None;
            turn.tell_edge(id, format!("actions on edge {id} are no longer held"));
            // What the one that is left holds, and what waited for the hold to end.
            self.ask_inventory(turn, id);
        }
    }

    /// Sorts a message of `up` by its number.
    pub(crate) fn order(&mut self, id: &EdgeId, header: &Header) -> Order {
        let Some(session) = &mut self.edge_mut(id).live.session else { return Order::Copy };
        let (ce, last) = match session.up {
            Some((ce, last)) if ce == header.ce => (ce, last),
            Some((ce, _)) if ce > header.ce => return Order::Copy,
            Some(_) | None => (header.ce, 0),
        };
        if header.sq == 0 {
            // Said aside, outside all counting.
            return Order::Copy;
        }
        // The answer to a question is later than what was heard before the question: with a lower number, the edge counts
        // anew since its disk was restored, and what was heard under the higher one is from before.
        let counts_anew = session
            .question
            .take_if(|(id, heard)| header.re == Some(*id) && *heard >= (header.ce, header.sq))
            .is_some();
        if header.sq <= last && !counts_anew {
            return Order::Copy;
        }
        session.up = Some((ce, header.sq));
        if counts_anew || header.sq == last + 1 { Order::Next } else { Order::Gap }
    }

    /// Sends a message to the session that stands; without one there is nobody to send it to.
    pub(crate) fn send(&mut self, turn: &mut Turn, id: &EdgeId, re: Option<MessageId>, message: &Down) {
        if self.superseded_by.is_some() {
            return;
        }
        let ce = self.meta.epoch;
        let message_id = self.next_message_id(turn.now.wall);
        let Some(session) = &mut self.edge_mut(id).live.session else { return };
        session.down += 1;
        if matches!(message, Down::Welcome(welcome) if welcome.want == Want::Inventory) {
            session.question = session.up.map(|heard| (message_id, heard));
        }
        let header =
            Header { id: message_id, re, sid: session.sid, sq: session.down, ce, ts: turn.now.wall.0 };
        let payload = Envelope::down(header, message).to_bytes();
        turn.effects.push(Effect::Publish { edge: id.clone(), payload });
    }

    /// Sends a message to a session that does not stand, outside all counting: the number 0 tells so.
    pub(crate) fn send_aside(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId, message: &Down) {
        if self.superseded_by.is_some() {
            return;
        }
        let header = Header {
            id: self.next_message_id(turn.now.wall),
            re: None,
            sid,
            sq: 0,
            ce: self.meta.epoch,
            ts: turn.now.wall.0,
        };
        let payload = Envelope::down(header, message).to_bytes();
        turn.effects.push(Effect::Publish { edge: id.clone(), payload });
    }

    fn ping(&mut self, turn: &mut Turn, id: &EdgeId) {
        let nonce = self.meta.epoch;
        self.send(turn, id, None, &Down::Ping(Ping { nonce }));
    }

    /// Asks a session that was believed dead or replaced whether it stands.
    pub(crate) fn ping_revenant(&mut self, turn: &mut Turn, id: &EdgeId, sid: SessionId) {
        let nonce = self.meta.epoch;
        self.send_aside(turn, id, sid, &Down::Ping(Ping { nonce }));
    }
}
