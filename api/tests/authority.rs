//! A member takes requests whose `:authority` is a URL, as etcdctl 3.4 sends them.
//!
//! No client library here can be made to send one, so the client is a socket and hand-made frames.

mod process;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use process::{PATIENCE, Program, free_ports, get, put};
use rustix::process::Signal;

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The first entry of the dynamic table.
const NEWEST: u8 = 0x80 | 62;

struct Client(TcpStream);

impl Client {
    fn connect(port: u16) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the member listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("it can be set");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        let mut client = Self(socket);
        client.send(4, 0, 0, &[]);
        client
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).expect("short");
        self.0.write_all(&[0, 0, length, kind, flags, 0, 0, 0, stream]).expect("sent");
        self.0.write_all(payload).expect("sent");
    }

    /// Asks for the key `key` and gives all data of the answer.
    fn range(&mut self, stream: u8, authority: &[u8]) -> Vec<u8> {
        let path = b"/etcdserverpb.KV/Range";
        let grpc = b"application/grpc";
        let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).expect("short")];
        block.extend(path);
        block.extend(authority);
        block.extend([0x0f, 0x10, u8::try_from(grpc.len()).expect("short")]);
        block.extend(grpc);
        self.send(HEADERS, END_HEADERS, stream, &block);
        self.send(DATA, END_STREAM, stream, &[0, 0, 0, 0, 5, 0x0a, 3, b'k', b'e', b'y']);
        self.answer(stream)
    }

    fn answer(&mut self, stream: u8) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).expect("a frame comes");
            let [high, middle, low, kind, flags, .., of] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.0.read_exact(&mut payload).expect("a payload comes");
            if of != stream {
                continue;
            }
            assert_ne!(kind, RST_STREAM, "the stream was reset: {payload:?}");
            if kind == DATA {
                data.extend(payload);
            }
            if flags & END_STREAM != 0 {
                return data;
            }
        }
    }
}

/// The authority as a new entry of the dynamic table.
fn literal(value: &[u8], huffman: u8) -> Vec<u8> {
    [&[0x41, huffman | u8::try_from(value.len()).expect("short")], value].concat()
}

#[test]
fn a_url_for_an_authority_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(2);
    let (endpoint, peer) =
        (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 1));
    let mut member = Program::start(&[
        format!("--data-dir={}", folder.path().display()),
        format!("--listen-client-urls={endpoint}"),
        format!("--advertise-client-urls={endpoint}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]);
    member.until("ready to serve client requests");
    put(&endpoint, "key", "a value to be found");
    // "http://1" in Huffman's code.
    let coded = literal(&[0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x07], 0x80);
    for authority in [literal(b"http://127.0.0.1:2379", 0), literal(b"127.0.0.1:2379", 0), coded] {
        let mut client = Client::connect(port);
        // The second request names the entry that the first one made.
        for (stream, authority) in [(1, authority.as_slice()), (3, &[NEWEST])] {
            let data = client.range(stream, authority);
            let found = data.windows(19).any(|bytes| bytes == b"a value to be found");
            assert!(found, "stream {stream}: {data:?}");
        }
    }
    assert_eq!(get(&endpoint, "key").as_deref(), Some(&b"a value to be found"[..]));
    member.signal(Signal::TERM);
    let (status, rest) = member.ended();
    assert_eq!(status.code(), Some(0), "{rest:#?}");
}
