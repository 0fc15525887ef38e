//! The controller's broker, as the edges meet it: sessions, Last Wills, retained presence.

use tidegate_model::ids::SessionId;

/// A connection that the broker keeps.
#[derive(Debug, Clone)]
pub struct Session {
    /// Number of the connection, unique in the world: two clones connect under one session id.
    pub conn: u64,
    /// Which agent has it.
    pub agent: usize,
    /// What it said it is.
    pub sid: SessionId,
    /// What is published when it breaks.
    pub will: Vec<u8>,
}

/// What the broker holds of one client id.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    /// The connection that stands.
    pub session: Option<Session>,
    /// The retained payload on the edge's presence topic.
    pub retained: Option<Vec<u8>>,
    /// Until when nothing passes between the edge and the broker, in ms of virtual time.
    pub cut_until: i64,
}

impl Seat {
    /// The client connects: the will of the connection that it takes over is to be published, and that one is closed.
    pub fn connect(&mut self, session: Session) -> Option<Session> {
        self.session.replace(session)
    }

    /// The broker notices that this connection is gone: its will is to be published, unless another stands by now.
    pub fn notice_loss(&mut self, conn: u64) -> Option<Session> {
        self.session.take_if(|standing| standing.conn == conn)
    }

    /// The client said goodbye: no will.
    pub fn leave(&mut self, conn: u64) {
        self.session.take_if(|standing| standing.conn == conn);
    }

    /// Whether this connection stands and messages pass.
    #[must_use]
    pub fn carries(&self, conn: u64, now: i64) -> bool {
        self.cut_until <= now && self.session.as_ref().is_some_and(|standing| standing.conn == conn)
    }
}
