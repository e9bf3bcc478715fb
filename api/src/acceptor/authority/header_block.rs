//! Finds `:authority` in a header block and takes the scheme out of its value, in place.
//!
//! The walk knows the shapes of RFC 7541, section 6, and no tables: an authority that comes from the
//! client's dynamic table was a literal before, and was mended then. The new value has the length of
//! the old one, encoded and decoded, so the dynamic tables of both sides evict in step.

/// What a header block turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No authority with a scheme is in it.
    Sound,
    /// There was one, and it was changed.
    Mended,
    /// It breaks off or breaks the rules; nothing was changed.
    Unclear,
}

/// The index of `:authority` in the static table.
const AUTHORITY: usize = 1;
/// The bit of a string literal that says that it is Huffman coded.
const HUFFMAN: u8 = 0x80;
/// Continuation bytes of an integer; 3 reach beyond any frame.
const CONTINUATIONS_MAX: u32 = 3;

/// A beginning that no authority has, and what takes its place.
///
/// In Huffman's code of RFC 7541 `:` and `C` have 7 bits, `/` and `-` have 6. The last byte of each
/// such beginning counts with the bits of `last` alone; the rest belongs to what follows.
struct Scheme {
    wrong: &'static [u8],
    right: &'static [u8],
    last: u8,
}

const RAW: [Scheme; 2] = [
    Scheme { wrong: b"http://", right: b"httpC--", last: 0xff },
    Scheme { wrong: b"https://", right: b"httpsC--", last: 0xff },
];
const CODED: [Scheme; 2] = [
    Scheme {
        wrong: &[0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x00],
        right: &[0x9d, 0x29, 0xae, 0xf2, 0xcb, 0x00],
        last: 0x80,
    },
    Scheme {
        wrong: &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x60],
        right: &[0x9d, 0x29, 0xad, 0x17, 0x96, 0x58],
        last: 0xfc,
    },
];

/// Changes the authority of a header block if it begins with a scheme.
pub(super) fn mend(block: &mut [u8]) -> Verdict {
    let mut walk = Walk { block, at: 0 };
    while walk.at < walk.block.len() {
        match walk.field() {
            None => return Verdict::Unclear,
            Some(Field::Authority { value, huffman }) => return mend_value(value, huffman),
            Some(Field::Other) => {}
        }
    }
    Verdict::Sound
}

fn mend_value(value: &mut [u8], huffman: bool) -> Verdict {
    let schemes = if huffman { &CODED } else { &RAW };
    if schemes.iter().any(|scheme| scheme.replace(value)) {
        return Verdict::Mended;
    }
    Verdict::Sound
}

impl Scheme {
    fn replace(&self, value: &mut [u8]) -> bool {
        let length = self.wrong.len();
        let (Some(beginning), Some((wrong_last, wrong))) =
            (value.get_mut(..length), self.wrong.split_last())
        else {
            return false;
        };
        if beginning[..length - 1] != *wrong || beginning[length - 1] & self.last != *wrong_last {
            return false;
        }
        let following = beginning[length - 1] & !self.last;
        beginning.copy_from_slice(self.right);
        beginning[length - 1] |= following;
        true
    }
}

enum Field<'a> {
    Authority { value: &'a mut [u8], huffman: bool },
    Other,
}

/// A place in a header block.
struct Walk<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl Walk<'_> {
    /// The representation that begins here; none if it breaks off or has too large a number.
    fn field(&mut self) -> Option<Field<'_>> {
        let (is_literal, bits) = match *self.block.get(self.at)? {
            0x80.. => (false, 7),
            0x40.. => (true, 6),
            0x20.. => (false, 5),
            _ => (true, 4),
        };
        let index = self.integer(bits)?;
        if !is_literal {
            return Some(Field::Other);
        }
        if index == 0 {
            self.string()?;
        }
        let (value, huffman) = self.string()?;
        if index != AUTHORITY {
            return Some(Field::Other);
        }
        Some(Field::Authority { value, huffman })
    }

    fn string(&mut self) -> Option<(&mut [u8], bool)> {
        let huffman = self.byte()? & HUFFMAN != 0;
        self.at -= 1;
        let length = self.integer(7)?;
        let begin = self.at;
        self.at = begin.checked_add(length)?;
        Some((self.block.get_mut(begin..self.at)?, huffman))
    }

    /// An integer with a prefix of so many bits (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let prefix_max = (1 << bits) - 1;
        let prefix = usize::from(self.byte()?) & prefix_max;
        if prefix < prefix_max {
            return Some(prefix);
        }
        let mut value = prefix;
        for number in 0..CONTINUATIONS_MAX {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << (7 * number);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.block.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}
