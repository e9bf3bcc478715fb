//! Whole client streams, split everywhere: what must change changes, and nothing else.

use http::uri::Authority;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What a server reads of `client` when it comes in the two pieces before and after `split`.
fn read(client: &[u8], split: usize) -> Vec<u8> {
    let (first, second) = client.split_at(split);
    let mut socket = MendedAuthority::new(first.chain(second));
    let mut bytes = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(socket.read_to_end(&mut bytes)).expect("slices do not fail");
    bytes
}

fn assert_reads(client: &[u8], expected: &[u8]) {
    for split in 0..=client.len() {
        assert!(read(client, split) == expected, "split at {split}");
    }
    let mut one_by_one = Frames::new();
    let (mut held, mut passed) = (Vec::new(), Vec::new());
    for byte in client {
        held.push(*byte);
        let passable = one_by_one.follow(&mut held);
        passed.extend(held.drain(..passable));
    }
    passed.extend(held);
    assert!(passed == expected, "byte by byte");
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [head.as_slice(), payload].concat()
}

fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(1, 4, stream, block)
}

/// A string literal with a length of one byte.
fn string(huffman: bool, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    assert!(length < 127);
    [&[length | u8::from(huffman) << 7], bytes].concat()
}

/// Codes and their lengths in bits, from RFC 7541, appendix B, as far as these tests need them.
const CODES: [(char, u16, u32); 18] = [
    ('/', 0b01_1000, 6),
    ('-', 0b01_0110, 6),
    (':', 0b101_1100, 7),
    ('C', 0b101_1110, 7),
    ('.', 0b01_0111, 6),
    ('[', 0x1ffb, 13),
    (']', 0x3ffc, 14),
    ('0', 0b0_0000, 5),
    ('1', 0b0_0001, 5),
    ('2', 0b0_0010, 5),
    ('3', 0b01_1001, 6),
    ('7', 0b01_1101, 6),
    ('9', 0b01_1111, 6),
    ('h', 0b10_0111, 6),
    ('k', 0b111_0101, 7),
    ('p', 0b10_1011, 6),
    ('s', 0b0_1000, 5),
    ('t', 0b0_1001, 5),
];

fn huffman(text: &str) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    for wanted in text.chars() {
        let (_, code, length) =
            CODES.iter().find(|(character, ..)| *character == wanted).expect("its code is here");
        bits.extend((0..*length).rev().map(|place| code >> place & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}

/// `:method: POST`, `:scheme: http`, a path and `first`, the byte of the authority's name.
fn block(first: u8, authority: &[u8]) -> Vec<u8> {
    [&[0x83, 0x86, 0x04, 2, b'/', b'x', first][..], authority, &[0x0f, 0x10, 1, b'g']].concat()
}

/// Authorities as they come, and as they are read.
const ROWS: [(&str, &str); 7] = [
    ("http://127.0.0.1:2379", "httpC--127.0.0.1:2379"),
    ("https://127.0.0.1:2379", "httpsC--127.0.0.1:2379"),
    ("http://[2001::1]:2379", "httpC--[2001::1]:2379"),
    ("http://", "httpC--"),
    ("http://s", "httpC--s"),
    ("127.0.0.1:2379", "127.0.0.1:2379"),
    ("http:7999", "http:7999"),
];

#[test]
fn a_scheme_is_taken_out_of_an_authority_however_it_is_coded() {
    for (wrong, right) in ROWS {
        right.parse::<Authority>().expect("the server's library takes it");
        assert_eq!(wrong.len(), right.len(), "the dynamic tables would part");
        for first in [0x41, 0x01, 0x11] {
            for (is_huffman, wrong, right) in [
                (false, wrong.as_bytes().to_vec(), right.as_bytes().to_vec()),
                (true, huffman(wrong), huffman(right)),
            ] {
                let connection = |authority: &[u8]| {
                    let block = block(first, &string(is_huffman, authority));
                    [PREFACE, &frame(4, 0, 0, &[0; 6]), &headers(1, &block)].concat()
                };
                assert_reads(&connection(&wrong), &connection(&right));
            }
        }
    }
}

fn plain(authority: &str) -> Vec<u8> {
    block(0x41, &string(false, authority.as_bytes()))
}

#[test]
fn padding_and_priority_are_stepped_over() {
    let connection = |authority| {
        let block = plain(authority);
        let padded = [&[3], block.as_slice(), &[0; 3]].concat();
        let weighted = [&[0x80, 0, 0, 0, 7], block.as_slice()].concat();
        let both = [&[2, 0x80, 0, 0, 0, 7], block.as_slice(), &[0; 2]].concat();
        [
            PREFACE.to_vec(),
            frame(1, 4 | PADDED, 1, &padded),
            frame(1, 4 | PRIORITY, 3, &weighted),
            frame(1, 4 | PADDED | PRIORITY, 5, &both),
        ]
        .concat()
    };
    assert_reads(&connection("http://a"), &connection("httpC--a"));
}

#[test]
fn fields_before_the_authority_may_have_any_shape() {
    let long = [b'v'; 300];
    let before = [
        &[0x3f, 0xe1, 0x1f][..],            // a table of 4096 bytes
        &[0xff, 0x00],                      // indexed: 127
        &[0x40, 1, b'a', 1, b'b'],          // a new name, indexed from now on
        &[0x00, 0x82, 0xff, 0xff, 1, b'b'], // a new name, coded, not indexed
        &[0x7f, 0x00, 0x7f, 0xad, 0x01],    // index 63, a value of 300 bytes
        &long,
    ]
    .concat();
    let connection = |authority| {
        let block = [before.clone(), plain(authority)].concat();
        [PREFACE.to_vec(), headers(1, &block)].concat()
    };
    assert_reads(&connection("http://a"), &connection("httpC--a"));
}

#[test]
fn requests_after_a_mended_one_are_mended_too() {
    let data = [b"http://".as_slice(); 3].concat();
    let connection = |authority| {
        [
            PREFACE.to_vec(),
            headers(1, &plain(authority)),
            frame(0, 1, 1, &data),
            headers(3, &[0x83, 0x86, 0xbe]),
            frame(0, 1, 3, &[]),
            frame(8, 0, 0, &[0, 0, 1, 0]),
            headers(5, &plain(authority)),
        ]
        .concat()
    };
    assert_reads(&connection("http://a"), &connection("httpC--a"));
}

#[test]
fn requests_after_a_sound_one_are_not_looked_at() {
    let sound = [PREFACE, &headers(1, &plain("a:1")), &headers(3, &plain("http://a"))].concat();
    assert_reads(&sound, &sound);
}

#[test]
fn what_is_not_understood_passes_as_it_came() {
    let wrong = headers(3, &plain("http://a"));
    let too_long = vec![0; (1 << 14) + 1];
    for first in [
        b"GET /health HTTP/1.1\r\nHost: http://a\r\n\r\n".to_vec(),
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSN".to_vec(),
        Vec::new(),
        [PREFACE, &frame(1, 4 | PADDED, 1, &[])].concat(),
        [PREFACE, &frame(1, 4 | PADDED, 1, &[2, 0x83])].concat(),
        [PREFACE, &frame(1, 4 | PRIORITY, 1, &[0; 4])].concat(),
        // A string that ends beyond the block, and a number without an end.
        [PREFACE, &headers(1, &[0x41, 8, b'h', b't', b't', b'p', b':', b'/', b'/'])].concat(),
        [PREFACE, &headers(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])].concat(),
    ] {
        let connection = [first, wrong.clone()].concat();
        assert_reads(&connection, &connection);
    }
    let connection = [PREFACE, &headers(1, &too_long), &wrong].concat();
    assert!(read(&connection, 30) == connection);
}

#[test]
fn a_stream_that_ends_within_a_frame_is_read_to_its_end() {
    let whole = [PREFACE, &headers(1, &plain("http://a"))].concat();
    for length in 0..whole.len() {
        assert_reads(&whole[..length], &whole[..length]);
    }
}

#[test]
fn any_bytes_pass_with_their_number_unchanged() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..2000 {
        let mut noise = vec![0_u8; random.random_range(0..200)];
        random.fill(noise.as_mut_slice());
        let flags = random.random();
        let begin = [PREFACE, &frame(1, flags, 1, &noise), &frame(1, flags, 3, &noise)].concat();
        for client in [noise.clone(), [PREFACE, &noise].concat(), begin] {
            let split = random.random_range(0..=client.len());
            assert_eq!(read(&client, split).len(), client.len());
        }
    }
}

#[test]
fn nothing_is_held_once_all_is_clear() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut server = MendedAuthority::new(server);
        let block = [plain("a:1"), vec![0x83; 10_000]].concat();
        let begin = [PREFACE, &headers(1, &block)].concat();
        client.write_all(&begin).await.expect("there is room");
        let mut bytes = vec![0; begin.len()];
        server.read_exact(&mut bytes).await.expect("all of it comes");
        assert!(bytes == begin);
        assert_eq!(server.held.capacity(), 0);
        assert!(server.frames.are_done());
        // Both directions go straight through from here.
        client.write_all(b"more").await.expect("there is room");
        server.read_exact(&mut bytes[..4]).await.expect("it comes");
        server.write_all(b"back").await.expect("there is room");
        client.read_exact(&mut bytes[4..8]).await.expect("it comes");
        assert_eq!(&bytes[..8], b"moreback");
    });
}
