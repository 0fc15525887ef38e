//! Messages of the controller: whether they are for us, in order and from the controller of today.

use tidegate_model::wire::{Down, Envelope, Header, Up, WireError};

use crate::agent::{Agent, Turn};

/// Where a message stands in the order of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It must not have any effect.
    Drop,
    /// Said outside all counting (number 0), to a session that the controller believes dead or past.
    Aside,
    /// The next one.
    Next,
    /// Something between it and the last one is missing.
    AfterGap,
}

impl Agent {
    pub(crate) fn on_down(&mut self, payload: &[u8], turn: &mut Turn) {
        match Envelope::read_down(payload) {
            Ok((header, message)) => {
                if self.admit(&header, Some(&message), turn) {
                    self.on_message(&header, message, turn);
                }
            }
            // Its number counts, so that what follows is no gap. There is nothing to answer it with.
            Err(WireError::UnknownKind { header, .. } | WireError::BadBody { header, .. }) => {
                self.drops.unreadable += 1;
                // A higher epoch is obeyed when something of it can be read.
                if header.ce <= self.meta.highest_ce {
                    self.admit(&header, None, turn);
                }
            }
            Err(
                WireError::TooLarge { .. }
                | WireError::NotAnEnvelope { .. }
                | WireError::UnknownFormat { .. },
            ) => self.drops.unreadable += 1,
        }
    }

    /// Takes note of session, epoch and number; false: the message is dropped.
    fn admit(&mut self, header: &Header, message: Option<&Down>, turn: &mut Turn) -> bool {
        let highest = self.meta.highest_ce;
        let Some(online) = self.link.online().filter(|online| online.sid == header.sid) else {
            self.drops.stale_session += 1;
            return false;
        };
        if header.ce < highest {
            self.drops.stale_controller += 1;
            return false;
        }
        let is_new_epoch = header.ce > highest;
        if is_new_epoch {
            // Both sides count anew within a new epoch.
            online.up_sq = 0;
            online.down_sq = 0;
        }
        let place = match header.sq {
            0 if matches!(message, Some(Down::Ping(_) | Down::Welcome(_))) => Place::Aside,
            sq if sq <= online.down_sq => Place::Drop,
            sq if sq == online.down_sq + 1 => Place::Next,
            _ => Place::AfterGap,
        };
        let answers_hello = matches!(message, Some(Down::Welcome(_)))
            && online.greeting.asked.is_some_and(|(id, _)| Some(id) == header.re);
        match place {
            Place::Drop | Place::Aside => {}
            Place::Next => online.down_sq = header.sq,
            Place::AfterGap => {
                online.down_sq = header.sq;
                online.greeting.after_gap(turn.now.monotonic);
                self.drops.gaps += 1;
            }
        }
        if is_new_epoch {
            self.meta.highest_ce = header.ce;
            turn.touch_meta();
            // A welcome to our hello shows that the new controller knows us already.
            if !answers_hello {
                self.hello_within_spread(turn);
            }
        }
        if place == Place::Drop {
            self.drops.repeated += 1;
        }
        place != Place::Drop
    }

    fn on_message(&mut self, header: &Header, message: Down, turn: &mut Turn) {
        match message {
            // Said aside, it tells nothing but the epoch that an edge restored from a backup has to jump above.
            Down::Welcome(welcome) if header.sq == 0 && welcome.epoch <= self.meta.session.epoch => {}
            Down::Welcome(welcome) => self.on_welcome(header, &welcome, turn),
            Down::Set(set) => self.on_set(header, *set, turn),
            Down::Ping(ping) => {
                self.say(Up::Pong(ping), Some(header.id), turn);
            }
        }
    }
}
