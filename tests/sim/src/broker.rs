//! The controller's broker, as the edges meet it: sessions, Last Wills, retained presence.

use tidegate_model::ids::SessionId;

/// What the broker holds of one edge.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    /// The session that stands and its will.
    pub session: Option<(SessionId, Vec<u8>)>,
    /// The retained payload on the edge's presence topic.
    pub retained: Option<Vec<u8>>,
    /// Until when nothing passes between the edge and the broker, in ms of virtual time.
    pub cut_until: i64,
}

impl Seat {
    /// The client connects: the will of the session that it takes over is to be published.
    pub fn connect(&mut self, sid: SessionId, will: Vec<u8>) -> Option<Vec<u8>> {
        self.session.replace((sid, will)).map(|(_, will)| will)
    }

    /// The broker notices that this session is gone: its will is to be published, unless another stands by now.
    pub fn notice_loss(&mut self, sid: SessionId) -> Option<Vec<u8>> {
        self.session.take_if(|(standing, _)| *standing == sid).map(|(_, will)| will)
    }

    /// The client said goodbye: no will.
    pub fn leave(&mut self, sid: SessionId) {
        self.session.take_if(|(standing, _)| *standing == sid);
    }

    /// Whether this session stands and messages pass.
    #[must_use]
    pub fn carries(&self, sid: SessionId, now: i64) -> bool {
        self.cut_until <= now && self.session.as_ref().is_some_and(|(standing, _)| *standing == sid)
    }
}
