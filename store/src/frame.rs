//! The envelope of everything the store writes to its own files: what it is, how new, and whole.
//!
//! ```text
//! magic (4) | format (u32) | length (u32) | crc32c (u32) | message (length bytes, prost)
//! ```
//!
//! Little-endian. The checksum covers the three fields before it and the message, so a flipped
//! length is damage like any other. What a message means is its owner's business.

use std::fmt;

/// The bytes before the message.
pub(crate) const PREFIX: usize = 16;

/// What a kind of frame looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) magic: [u8; 4],
    /// The newest format that this code writes; it reads that and every older one.
    pub(crate) format: u32,
    /// No message is longer.
    pub(crate) length_max: u32,
}

/// Why a frame cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not such a frame at all.
    #[error("it does not begin as it should")]
    Foreign,
    /// The file ends inside.
    #[error("it ends too early")]
    Short,
    /// A newer version wrote it.
    #[error("it has format {found}, and this version knows formats up to {known}")]
    Newer {
        /// What stands in the file.
        found: u32,
        /// What this version can read.
        known: u32,
    },
    /// The checksum does not match.
    #[error("its checksum is {found:08x}, and its bytes make {computed:08x}")]
    Damaged {
        /// What stands in the file.
        found: u32,
        /// What the bytes make.
        computed: u32,
    },
    /// The checksum matches, but the contents make no sense.
    #[error("its contents are inconsistent")]
    Inconsistent,
}

impl Kind {
    /// Wraps a message.
    pub(crate) fn wrap(&self, message: &impl prost::Message) -> Vec<u8> {
        let length = u32::try_from(message.encoded_len()).expect("messages are bounded");
        assert!(length <= self.length_max, "{self:?} holds at most {}", self.length_max);
        let mut out = Vec::with_capacity(PREFIX + length as usize);
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&self.format.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        message.encode(&mut out).expect("a vector grows");
        let checksum = checksum(&out);
        out[12..16].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// The message's length, from the prefix alone. The checksum is not looked at yet.
    pub(crate) fn message_length(&self, bytes: &[u8]) -> Result<usize, FrameError> {
        if bytes.len() < PREFIX {
            return Err(FrameError::Short);
        }
        if bytes[..4] != self.magic {
            return Err(FrameError::Foreign);
        }
        let length = word(bytes, 8);
        if length > self.length_max {
            return Err(FrameError::Inconsistent);
        }
        Ok(length as usize)
    }

    /// Checks a frame at the beginning of `bytes`, and gives its message and its whole length.
    pub(crate) fn unwrap<M: prost::Message + Default>(
        &self,
        bytes: &[u8],
    ) -> Result<(M, usize), FrameError> {
        let length = self.message_length(bytes)?;
        let whole = bytes.get(..PREFIX + length).ok_or(FrameError::Short)?;
        let (found, computed) = (word(whole, 12), checksum(whole));
        if found != computed {
            return Err(FrameError::Damaged { found, computed });
        }
        // Only a frame that is whole can be believed to be newer.
        let format = word(whole, 4);
        if format > self.format {
            return Err(FrameError::Newer { found: format, known: self.format });
        }
        let message = M::decode(&whole[PREFIX..]).map_err(|_| FrameError::Inconsistent)?;
        Ok((message, whole.len()))
    }
}

fn checksum(whole: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&whole[..12]), &whole[PREFIX..])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.magic))
    }
}
