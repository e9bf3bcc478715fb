//! The replicated state: the only writer of the store.

use bytes::Bytes;

use crate::command::Command;
use crate::{Fatal, Outcome, Position};

/// What an entry says of the commands in it.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Where the entry stands in the log.
    pub position: Position,
    /// The semantics level the entry was stamped with.
    pub level: u32,
    /// Whether somebody here waits for the answer; otherwise reads and previous versions are not
    /// built.
    pub respond: bool,
}

/// The replicated state; owned by the apply thread.
#[derive(Debug)]
pub struct State {}

impl State {
    /// The position of the last finished entry.
    pub fn applied(&self) -> Position {
        Position::default()
    }

    /// What [`State::apply_membership`] was given last, and when.
    pub fn membership(&self) -> (Position, Bytes) {
        (Position::default(), Bytes::new())
    }

    /// The semantics level in force.
    pub fn level(&self) -> u32 {
        1
    }

    /// Applies one command; several may share one entry.
    pub fn apply(&mut self, _context: &Context, _command: &Command) -> Result<Outcome, Fatal> {
        Err(Fatal::new("the store does not apply yet"))
    }

    /// Notes the membership in force from `position` on; its bytes mean nothing here.
    pub fn apply_membership(&mut self, _position: Position, _membership: Bytes) {}

    /// The entry at `position` is applied whole.
    pub fn finish_entry(&mut self, _position: Position) {}

    /// Makes everything applied so far visible.
    pub fn publish(&mut self) {}
}
