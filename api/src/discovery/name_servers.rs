//! SRV records of DNS, asked of the name servers of this machine (`/etc/resolv.conf`).
//!
//! A question goes to one server after the other, by UDP, and by TCP where the answer does not fit;
//! that is repeated as often, and each answer waited for as long, as the file says. Aliases are
//! followed by the servers, which recurse. Nothing is cached (RFC 1035, 4.2; RFC 2782).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use resolv_conf::Config;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const SETTINGS: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// Longer than any datagram that a server sends to who has not asked for more.
const DATAGRAM_BYTES: usize = 4096;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    /// A name, without the dot at its end.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Whom to ask, and how.
#[derive(Debug)]
pub(super) struct NameServers {
    servers: Vec<SocketAddr>,
    /// What is added to names that have fewer dots than `dots`, or are not found without.
    search: Vec<String>,
    dots: usize,
    timeout: Duration,
    attempts: u32,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// These, or none.
    Services(Vec<Service>),
    /// More than fits a datagram.
    Truncated,
}

impl NameServers {
    /// Those of this machine; the one on it where no other is named.
    pub(super) fn of_this_machine() -> Result<Self, String> {
        let text = match std::fs::read(Path::new(SETTINGS)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(format!("reading {SETTINGS}: {error}")),
        };
        Ok(Self::from_settings(&text, PORT))
    }

    /// What is not understood is passed over, as by libc.
    fn from_settings(text: &[u8], port: u16) -> Self {
        let (config, errors) = Config::parse_with_errors(text);
        for error in errors {
            tracing::warn!(%error, "a line of {SETTINGS} is not understood");
        }
        let servers = config.get_nameservers_or_local();
        let search = config.get_last_search_or_domain().cloned();
        Self {
            servers: servers.iter().map(|ip| SocketAddr::new(ip.into(), port)).collect(),
            search: search.filter(|domain| !domain.is_empty() && domain != ".").collect(),
            dots: config.ndots as usize,
            timeout: Duration::from_secs(config.timeout.max(1).into()),
            attempts: config.attempts.max(1),
        }
    }

    /// The records of a name; none where there is no such name. Only the name itself must be
    /// answered: a domain of the search list that nobody answers for has nothing to do with it.
    pub(super) async fn services(&self, name: &str) -> Result<Vec<Service>, String> {
        let mut unanswered = None;
        for candidate in self.candidates(name) {
            match self.ask_all(&candidate).await {
                Ok(services) if services.is_empty() => {}
                Ok(services) => return Ok(services),
                Err(reason) if candidate == name => unanswered = Some(reason),
                Err(reason) => {
                    tracing::warn!(reason, "a domain of the search list is passed over");
                }
            }
        }
        unanswered.map_or(Ok(Vec::new()), Err)
    }

    /// A name as it may have been meant, likeliest first.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut candidates: Vec<_> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let is_long = name.matches('.').count() >= self.dots;
        let place = if is_long { 0 } else { candidates.len() };
        candidates.insert(place, name.to_owned());
        candidates
    }

    async fn ask_all(&self, name: &str) -> Result<Vec<Service>, String> {
        let mut reason = String::new();
        for _ in 0..self.attempts {
            for server in &self.servers {
                match tokio::time::timeout(self.timeout, ask(*server, name)).await {
                    Ok(Ok(services)) => return Ok(services),
                    Ok(Err(error)) => reason = format!("name server {server}: {error}"),
                    Err(_) => reason = format!("name server {server}: no answer in time"),
                }
            }
        }
        Err(format!("looking up {name}: {reason}"))
    }
}

async fn ask(server: SocketAddr, name: &str) -> io::Result<Vec<Service>> {
    let id = rand::random();
    let question = question(id, name)?;
    if let Answer::Services(services) = ask_by_datagram(server, id, &question).await? {
        return Ok(services);
    }
    match read(id, &ask_by_stream(server, &question).await?)? {
        Some(Answer::Services(services)) => Ok(services),
        Some(Answer::Truncated) => Err(io::Error::other("a truncated answer by TCP")),
        None => Err(io::Error::other("an answer to another question")),
    }
}

async fn ask_by_datagram(server: SocketAddr, id: u16, question: &[u8]) -> io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // From here on nobody else is heard.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut bytes = vec![0; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut bytes).await?;
        if let Some(answer) = read(id, &bytes[..length])? {
            return Ok(answer);
        }
    }
}

/// The answer, of 64 KiB at most: its length is two bytes in front of it.
async fn ask_by_stream(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).expect("names have 255 bytes at most");
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn question(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let name = Name::new(name.trim_end_matches('.')).map_err(io::Error::other)?;
    let (kind, class) = (QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN));
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name, kind, class, false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

/// What these bytes answer; nothing if they belong to another question.
fn read(id: u16, bytes: &[u8]) -> io::Result<Option<Answer>> {
    let packet = Packet::parse(bytes).map_err(io::Error::other)?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return Ok(None);
    }
    match packet.rcode() {
        RCODE::NoError if packet.has_flags(PacketFlag::TRUNCATION) => Ok(Some(Answer::Truncated)),
        RCODE::NoError | RCODE::NameError => {
            let services = packet.answers.iter().filter_map(|record| match &record.rdata {
                RData::SRV(srv) => Some(Service { host: srv.target.to_string(), port: srv.port }),
                _ => None,
            });
            // The root for a target says that there is no such service.
            let services = services.filter(|service| !service.host.is_empty());
            Ok(Some(Answer::Services(services.collect())))
        }
        code => Err(io::Error::other(format!("it answers {code:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;
    use tokio::net::TcpListener;

    use super::*;

    fn service(host: &str, port: u16) -> Service {
        Service { host: host.to_owned(), port }
    }

    /// A server's answer to these bytes.
    fn answer(question: &[u8], code: RCODE, flags: PacketFlag, services: &[Service]) -> Vec<u8> {
        let mut packet = Packet::parse(question).expect("a question").into_reply();
        packet.set_flags(flags);
        *packet.rcode_mut() = code;
        let name = packet.questions[0].qname.clone();
        for Service { host, port } in services {
            let target = Name::new(host).expect("valid");
            let srv = SRV { priority: 0, weight: 0, port: *port, target };
            let record = ResourceRecord::new(name.clone(), CLASS::IN, 60, RData::SRV(srv));
            packet.answers.push(record);
        }
        packet.build_bytes_vec_compressed().expect("valid")
    }

    #[test]
    fn the_settings_of_the_machine_are_followed() {
        let text = b"search a.example b.example\nnameserver 10.0.0.1\nnameserver ::1\noptions ndots:2 news timeout:3 attempts:4\nnameserver nonsense\n";
        let servers = NameServers::from_settings(text, 53);
        assert_eq!(servers.servers, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!((servers.timeout, servers.attempts), (Duration::from_secs(3), 4));
        assert_eq!(servers.candidates("x.y"), ["x.y.a.example", "x.y.b.example", "x.y"]);
        assert_eq!(servers.candidates("x.y.z"), ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"]);
        assert_eq!(servers.candidates("x."), ["x."]);
    }

    #[test]
    fn answers_are_told_from_what_is_none() {
        let question = question(7, "_etcd-server._tcp.example.com").expect("valid");
        let say = |code, flags, services: &[Service]| answer(&question, code, flags, services);
        let none = PacketFlag::empty();
        let two = [service("a.example.com", 2380), service("b.example.com", 2381)];
        let bytes = say(RCODE::NoError, none, &two);
        assert_eq!(read(7, &bytes).unwrap(), Some(Answer::Services(two.to_vec())));
        assert_eq!(read(8, &bytes).unwrap(), None, "another question's");
        assert_eq!(read(7, &question).unwrap(), None, "no answer at all");
        let unknown = say(RCODE::NameError, none, &[]);
        assert_eq!(read(7, &unknown).unwrap(), Some(Answer::Services(Vec::new())));
        let part = say(RCODE::NoError, PacketFlag::TRUNCATION, &[]);
        assert_eq!(read(7, &part).unwrap(), Some(Answer::Truncated));
        let root = say(RCODE::NoError, none, &[service("", 0), two[0].clone()]);
        assert_eq!(read(7, &root).unwrap(), Some(Answer::Services(vec![two[0].clone()])));
        assert!(read(7, &say(RCODE::ServerFailure, none, &[])).is_err());
        assert!(read(7, &bytes[..bytes.len() - 1]).is_err(), "cut short");
    }

    /// A name server for the name of the services and two domains of the search list.
    async fn searched(dots: u32, own: RCODE, suffixed: RCODE) -> Result<Vec<Service>, String> {
        let datagrams = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let port = datagrams.local_addr().expect("bound").port();
        let serve = tokio::spawn(async move {
            let mut bytes = [0; 512];
            loop {
                let (length, from) = datagrams.recv_from(&mut bytes).await.expect("a question");
                let question = Packet::parse(&bytes[..length]).expect("a question");
                let is_own = question.questions[0].qname.to_string() == "_s._tcp.example.com";
                let code = if is_own { own } else { suffixed };
                let found = [service("a.example.com", 2380)];
                let found = if code == RCODE::NoError { &found[..] } else { &[] };
                let answer = answer(&bytes[..length], code, PacketFlag::empty(), found);
                datagrams.send_to(&answer, from).await.expect("sent");
            }
        });
        let text = format!(
            "search a.test b.test\nnameserver 127.0.0.1\noptions attempts:1 ndots:{dots}\n"
        );
        let servers = NameServers::from_settings(text.as_bytes(), port);
        let found = servers.services("_s._tcp.example.com").await;
        serve.abort();
        found
    }

    /// The name has three dots: with five asked for, the domains of the search list come first.
    #[tokio::test]
    async fn only_the_name_itself_must_be_answered() {
        let found = Ok(vec![service("a.example.com", 2380)]);
        for dots in [1, 5] {
            let searched = |own, suffixed| searched(dots, own, suffixed);
            assert_eq!(searched(RCODE::NoError, RCODE::ServerFailure).await, found);
            assert_eq!(searched(RCODE::NameError, RCODE::ServerFailure).await, Ok(Vec::new()));
            assert_eq!(searched(RCODE::ServerFailure, RCODE::NoError).await, found);
            for suffixed in [RCODE::NameError, RCODE::Refused] {
                let error = searched(RCODE::ServerFailure, suffixed).await.expect_err("no answer");
                assert!(error.starts_with("looking up _s._tcp.example.com:"), "{error}");
            }
        }
    }

    /// A port of both kinds: whoever has taken the number of the one may be there for the other.
    async fn port_of_both_kinds() -> (TcpListener, UdpSocket) {
        for _ in 0..50 {
            let stream = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = stream.local_addr().expect("bound");
            if let Ok(datagrams) = UdpSocket::bind(address).await {
                return (stream, datagrams);
            }
        }
        panic!("no port is free for both TCP and UDP");
    }

    #[tokio::test]
    async fn what_does_not_fit_a_datagram_comes_by_tcp() {
        let (stream, datagrams) = port_of_both_kinds().await;
        let address = stream.local_addr().expect("bound");
        let all: Vec<_> = (0..100).map(|n| service(&format!("m{n}.example.com"), 2380)).collect();
        let expected = all.clone();
        let serve = tokio::spawn(async move {
            let mut bytes = [0; 512];
            let (length, from) = datagrams.recv_from(&mut bytes).await.expect("a question");
            let part = answer(&bytes[..length], RCODE::NoError, PacketFlag::TRUNCATION, &[]);
            datagrams.send_to(&part, from).await.expect("sent");
            let (mut stream, _) = stream.accept().await.expect("a connection");
            let length = stream.read_u16().await.expect("a length");
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.expect("a question");
            let whole = answer(&question, RCODE::NoError, PacketFlag::empty(), &all);
            stream.write_u16(whole.len() as u16).await.expect("sent");
            stream.write_all(&whole).await.expect("sent");
        });
        let text = b"nameserver 127.0.0.1\noptions attempts:1\n";
        let servers = NameServers::from_settings(text, address.port());
        assert_eq!(servers.services("_etcd-server._tcp.example.com").await, Ok(expected));
        serve.await.expect("no panic");
    }
}
