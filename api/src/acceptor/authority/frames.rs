//! Follows the frames of an HTTP/2 client, as far as is needed to find its header blocks.
//!
//! ```text
//! preface (24 bytes), then frames:  length (3) | kind (1) | flags (1) | stream (4) | payload
//! payload of HEADERS:               [padding length (1)] [priority (5)] header block [padding]
//! ```
//!
//! Bytes may come split anywhere. A HEADERS frame passes as a whole, everything else as it comes.
//! CONTINUATION frames are not looked into: `:authority` stands at the front of a header block.

use super::header_block::{self, Verdict};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_LENGTH: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The longest frame that a peer may send unasked, and this server asks for none longer.
const PAYLOAD_MAX: usize = 1 << 14;

/// How far a client's bytes have been followed.
pub(super) struct Frames {
    stage: Stage,
    /// A request on this connection had to be mended.
    mended: bool,
}

enum Stage {
    /// What is still missing of the preface.
    Preface(&'static [u8]),
    /// Bytes to come of a payload that is of no interest; at 0 a frame begins.
    Payload(usize),
    /// Nothing is looked at any more.
    Done,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Preface(PREFACE), mended: false }
    }

    pub(super) fn are_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whatever comes or came, it passes.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Done;
    }

    /// Takes what follows the bytes that passed so far, mends it, and tells how much of it may pass;
    /// the rest is to be shown again, with more behind it.
    pub(super) fn follow(&mut self, bytes: &mut [u8]) -> usize {
        let mut passed = 0;
        loop {
            let length = self.step(&mut bytes[passed..]);
            if length == 0 {
                return passed;
            }
            passed += length;
        }
    }

    /// One step; its length is 0 when there are too few bytes for one.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        match self.stage {
            Stage::Preface(missing) => self.preface(missing, bytes),
            Stage::Payload(0) => self.frame(bytes),
            Stage::Payload(left) => {
                let length = left.min(bytes.len());
                self.stage = Stage::Payload(left - length);
                length
            }
            Stage::Done => bytes.len(),
        }
    }

    fn preface(&mut self, missing: &'static [u8], bytes: &[u8]) -> usize {
        let length = missing.len().min(bytes.len());
        let (expected, rest) = missing.split_at(length);
        self.stage = match rest {
            _ if bytes[..length] != *expected => Stage::Done,
            [] => Stage::Payload(0),
            rest => Stage::Preface(rest),
        };
        length
    }

    fn frame(&mut self, bytes: &mut [u8]) -> usize {
        let Some((&mut [high, middle, low, kind, flags, ..], payload)) =
            bytes.split_first_chunk_mut::<HEAD_LENGTH>()
        else {
            return 0;
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if kind != HEADERS {
            self.stage = Stage::Payload(length);
            return HEAD_LENGTH;
        }
        if length > PAYLOAD_MAX {
            self.end();
            return bytes.len();
        }
        let Some(payload) = payload.get_mut(..length) else { return 0 };
        match block_of(payload, flags).map(header_block::mend) {
            Some(Verdict::Mended) => self.mended = true,
            Some(Verdict::Sound) if self.mended => {}
            Some(Verdict::Sound | Verdict::Unclear) | None => self.end(),
        }
        HEAD_LENGTH + length
    }
}

/// The header block, or what the frame has of it, without padding and priority.
fn block_of(mut payload: &mut [u8], flags: u8) -> Option<&mut [u8]> {
    if flags & PADDED != 0 {
        let (&mut padding, rest) = payload.split_first_mut()?;
        let end = rest.len().checked_sub(padding.into())?;
        payload = &mut rest[..end];
    }
    if flags & PRIORITY != 0 {
        payload = payload.get_mut(5..)?;
    }
    Some(payload)
}
