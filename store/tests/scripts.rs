//! Golden scripts: small stories with the answers that etcd gives.
//!
//! A case is some commands, a line of dashes, and what they print; an empty line ends it. A file
//! is one store. `UPDATE_SCRIPTS=1 cargo test -p holdfast-store --test scripts` writes what is
//! printed now; read the difference before you keep it.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//! del KEY [END] [prev]                     END "@" stands for \0: every key from KEY on
//! get KEY [END] [rev=N] [limit=N] [order=1|2] [by=1..4] [keys] [count] [min_mod=N] [max_mod=N]
//!               [min_create=N] [max_create=N]
//! txn TARGET KEY[..END] OP GIVEN & ... ? operation ; operation : operation ; ...
//!               with nested transactions in brackets: [ txn ... ]
//! read txn ...                             the same, by a reader
//! compact N [automatic] | grant ID TTL | revoke ID [term=N] | checkpoint ID N [term=N] | leases | keys ID
//! quota BYTES                              whose alarm is of member 1; 0 for none
//! raise KIND MEMBER [CAUSE] | clear KIND MEMBER [CAUSE] | alarms
//! hash [N] | sweep | restart               sweep tells what is held against the quota
//! auth on|off | auth user add NAME [nopassword] | auth user delete NAME | auth user password NAME HASH
//! auth user grant|revoke NAME ROLE | auth role add|delete NAME
//! auth role grant NAME r|w|rw|N KEY [END] | auth role revoke NAME KEY [END] | auth
//! auth token NAME SECRET [rev=N]           rev is the auth revision, of now unless it is given
//! whose SECRET INDEX
//! as NAME[@N] COMMAND                      in whose name, authenticated at auth revision N
//! ```

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::command::*;
use holdfast_store::files::{Files, MemoryFiles};
use holdfast_store::record::Fields;
use holdfast_store::*;

const DIRECTORY: &str = "/data";
const TERM: u64 = 7;

struct Player {
    files: MemoryFiles,
    opened: Opened,
    index: u64,
}

fn options(files: &MemoryFiles) -> Options {
    let files = Arc::new(files.clone());
    Options { files, backend: BackendKind::Memory, block_bytes: 200, ..Options::new(DIRECTORY) }
}

impl Player {
    fn new() -> Self {
        let files = MemoryFiles::new();
        files.create_directory(Path::new(DIRECTORY)).unwrap();
        Self { opened: open(options(&files)).unwrap(), files, index: 0 }
    }

    fn play(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut words = Words(&words);
        match words.0[0] {
            "get" => {
                words.next();
                self.read(&words.range())
            }
            "read" => {
                words.0 = &words.0[2..];
                let txn = words.txn();
                let (revision, response) = match self.opened.reader.txn(&txn, Effort::Blocking) {
                    Ok(read) => read,
                    Err(error) => return format!("{error}\n"),
                };
                format!("rev={revision} {}", show(&response))
            }
            "leases" => {
                let leases = self.opened.reader.leases();
                let show =
                    |l: &LeaseInfo| format!("{} ttl={} left={}\n", l.id, l.ttl, l.remaining_ttl);
                leases.iter().map(show).collect()
            }
            "alarms" => {
                let alarms = self.opened.reader.alarms();
                alarms.iter().map(|alarm| format!("{} {:?}\n", alarm.member, alarm.kind)).collect()
            }
            "keys" => format!("{:?}\n", self.opened.reader.lease_keys(number(words.0[1]))),
            "hash" => match self.opened.reader.hash_kv(words.0.get(1).map_or(0, |n| number(n))) {
                Ok(hash) => format!("{hash:?}\n"),
                Err(error) => format!("{error}\n"),
            },
            "sweep" => {
                while self.opened.maintainer.step(self.index).unwrap() == Worked::Something {}
                format!("{} bytes in use\n", self.opened.reader.sizes().in_use_bytes)
            }
            "restart" => {
                let frozen = self.opened.state.freeze();
                let taken = self.opened.maintainer.take_manifest(frozen, self.index).unwrap();
                assert!(matches!(taken, Taken::Manifest(_)), "{taken:?}");
                self.opened = open(options(&self.files)).unwrap();
                let reader = &self.opened.reader;
                format!("rev={} compacted={}\n", reader.revision(), reader.compacted())
            }
            "whose" => {
                let found =
                    self.opened.reader.token_user(words.0[1].as_bytes(), number(words.0[2]) as u64);
                format!("{found:?}\n")
            }
            "auth" if words.0.len() == 1 => show_auth(&self.opened.reader.auth()),
            "as" => {
                words.next();
                let revision = self.opened.reader.auth_revision();
                let (user, at) = words.peek().split_once('@').unwrap_or((words.peek(), ""));
                let auth_revision = if at.is_empty() { revision } else { number(at) as u64 };
                words.next();
                let credentials = Some(Credentials { user: user.to_owned(), auth_revision });
                let change = Some(words.change(revision));
                self.apply(Command { change, credentials })
            }
            _ => {
                let change = words.change(self.opened.reader.auth_revision());
                self.apply(Command::from(change))
            }
        }
    }

    fn read(&self, range: &Range) -> String {
        match self.opened.reader.range(range, Effort::Blocking) {
            Ok((revision, result)) => format!("rev={revision} {}", show_range(&result)),
            Err(error) => format!("{error}\n"),
        }
    }

    fn apply(&mut self, command: Command) -> String {
        self.index += 1;
        let position = Position { term: TERM, index: self.index };
        let context = Context { position, level: LEVEL_CURRENT, respond: true };
        let outcome = self.opened.state.apply(&context, &command).unwrap();
        self.opened.state.finish_entry(position);
        self.opened.state.publish().unwrap();
        match outcome.result {
            Ok(response) => format!("rev={} {}", outcome.revision, show(&response)),
            Err(rejected) => format!("rev={} {rejected}\n", outcome.revision),
        }
    }
}

/// The words of a command that are not read yet.
struct Words<'a>(&'a [&'a str]);

impl<'a> Words<'a> {
    fn peek(&self) -> &'a str {
        self.0.first().copied().unwrap_or("")
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.0 = self.0.get(1..).unwrap_or_default();
        word
    }

    fn is_over(&self) -> bool {
        matches!(self.peek(), "" | ";" | ":" | "]")
    }

    fn change(&mut self, auth_revision: u64) -> Change {
        match self.next() {
            "auth" => Change::Auth(AuthChange { kind: Some(self.auth(auth_revision)) }),
            "put" => Change::Put(self.put()),
            "del" => Change::DeleteRange(self.delete()),
            "txn" => Change::Txn(self.txn()),
            "compact" => {
                let (revision, automatic) = (number(self.next()), self.next() == "automatic");
                Change::Compact(Compact { revision, automatic })
            }
            "grant" => {
                let (id, ttl) = (number(self.next()), number(self.next()));
                Change::LeaseGrant(LeaseGrant { id, ttl })
            }
            "revoke" => {
                let id = number(self.next());
                let term = self.next().strip_prefix("term=").map_or(0, number);
                Change::LeaseRevoke(LeaseRevoke { id, decided_in_term: term as u64 })
            }
            "checkpoint" => {
                let (id, remaining_ttl) = (number(self.next()), number(self.next()));
                let remainders = vec![LeaseRemainder { id, remaining_ttl }];
                let term = self.next().strip_prefix("term=").map_or(0, number);
                let decided_in_term = term as u64;
                Change::LeaseCheckpoint(LeaseCheckpoint { remainders, decided_in_term })
            }
            "quota" => Change::SetQuota(SetQuota { bytes: number(self.next()) as u64, member: 1 }),
            "raise" => {
                let (kind, member, cause) = self.alarm();
                Change::RaiseAlarm(RaiseAlarm { kind, member, cause })
            }
            "clear" => {
                let (kind, member, cause) = self.alarm();
                Change::ClearAlarm(ClearAlarm { kind, member, cause })
            }
            other => panic!("no command {other:?}"),
        }
    }

    /// Kind and cause by their numbers.
    fn alarm(&mut self) -> (i32, u64, i32) {
        let (kind, member) = (number(self.next()), number(self.next()));
        let cause = if self.is_over() { 0 } else { number(self.next()) };
        (kind as i32, member as u64, cause as i32)
    }

    fn auth(&mut self, auth_revision: u64) -> AuthChangeKind {
        use AuthChangeKind::*;
        match (self.next(), self.next()) {
            ("on", _) => Enable(true),
            ("off", _) => Enable(false),
            ("user", "add") => {
                let (name, no_password) = (self.name(), self.next() == "nopassword");
                UserAdd(holdfast_store::command::UserAdd {
                    name,
                    no_password,
                    ..Default::default()
                })
            }
            ("user", "delete") => UserDelete(self.name()),
            ("user", "password") => {
                let (name, password_hash) = (self.name(), bytes(self.next()));
                UserChangePassword(holdfast_store::command::UserChangePassword {
                    name,
                    password_hash,
                })
            }
            ("user", "grant") => UserGrantRole(UserRole { user: self.name(), role: self.name() }),
            ("user", "revoke") => UserRevokeRole(UserRole { user: self.name(), role: self.name() }),
            ("role", "add") => RoleAdd(self.name()),
            ("role", "delete") => RoleDelete(self.name()),
            ("role", "grant") => {
                let role = self.name();
                let permission = (!self.is_over()).then(|| self.permission());
                RoleGrantPermission(holdfast_store::command::RoleGrantPermission {
                    role,
                    permission,
                })
            }
            ("role", "revoke") => {
                let (role, key, range_end) = (self.name(), bytes(self.next()), bytes(self.next()));
                RoleRevokePermission(holdfast_store::command::RoleRevokePermission {
                    role,
                    key,
                    range_end,
                })
            }
            ("token", user) => {
                let digest = bytes(self.next());
                let given = self.next().strip_prefix("rev=").map(|n| number(n) as u64);
                let auth_revision = given.unwrap_or(auth_revision);
                AssignToken(holdfast_store::command::AssignToken {
                    user: user.into(),
                    digest,
                    auth_revision,
                })
            }
            other => panic!("no command {other:?}"),
        }
    }

    fn permission(&mut self) -> Permission {
        let kind = match self.next() {
            "r" => 0,
            "w" => 1,
            "rw" => 2,
            other => number(other) as i32,
        };
        Permission { kind, key: bytes(self.next()), range_end: bytes(self.next()) }
    }

    fn name(&mut self) -> String {
        self.next().trim_matches('"').to_owned()
    }

    fn put(&mut self) -> Put {
        let mut put = Put { key: bytes(self.next()), value: bytes(self.next()), ..Put::default() };
        while !self.is_over() {
            match self.next() {
                "prev" => put.prev_kv = true,
                "ignore_value" => put.ignore_value = true,
                "ignore_lease" => put.ignore_lease = true,
                word => put.lease = number(word.strip_prefix("lease=").unwrap()),
            }
        }
        put
    }

    fn delete(&mut self) -> DeleteRange {
        let mut delete = DeleteRange { key: bytes(self.next()), ..DeleteRange::default() };
        while !self.is_over() {
            match self.next() {
                "prev" => delete.prev_kv = true,
                end => delete.range_end = bytes(end),
            }
        }
        delete
    }

    fn range(&mut self) -> Range {
        let mut range = Range { key: bytes(self.next()), ..Range::default() };
        while !self.is_over() {
            let word = self.next();
            match word.split_once('=') {
                Some(("rev", n)) => range.revision = number(n),
                Some(("limit", n)) => range.limit = number(n),
                Some(("order", n)) => range.sort_order = number(n) as i32,
                Some(("by", n)) => range.sort_target = number(n) as i32,
                Some(("min_mod", n)) => range.min_mod_revision = number(n),
                Some(("max_mod", n)) => range.max_mod_revision = number(n),
                Some(("min_create", n)) => range.min_create_revision = number(n),
                Some(("max_create", n)) => range.max_create_revision = number(n),
                _ if word == "keys" => range.keys_only = true,
                _ if word == "count" => range.count_only = true,
                _ => range.range_end = bytes(word),
            }
        }
        range
    }

    fn txn(&mut self) -> Txn {
        let mut txn = Txn::default();
        while self.peek() != "?" {
            txn.compare.push(self.compare());
            if self.peek() == "&" {
                self.next();
            }
        }
        self.next();
        txn.success = self.operations();
        if self.peek() == ":" {
            self.next();
            txn.failure = self.operations();
        }
        txn
    }

    fn operations(&mut self) -> Vec<Operation> {
        let mut operations = Vec::new();
        while !matches!(self.peek(), "" | ":" | "]") {
            let kind = match self.next() {
                "get" => OperationKind::Range(self.range()),
                "put" => OperationKind::Put(self.put()),
                "del" => OperationKind::DeleteRange(self.delete()),
                "[" => {
                    assert_eq!(self.next(), "txn");
                    let txn = self.txn();
                    assert_eq!(self.next(), "]");
                    OperationKind::Txn(txn)
                }
                other => panic!("no operation {other:?}"),
            };
            operations.push(Operation { kind: Some(kind) });
            if self.peek() == ";" {
                self.next();
            }
        }
        operations
    }

    fn compare(&mut self) -> Compare {
        let (target, keys) = (self.next(), self.next());
        let (key, range_end) = keys.split_once("..").unwrap_or((keys, "\"\""));
        let result = match self.next() {
            "=" => 0,
            ">" => 1,
            "<" => 2,
            "!=" => 3,
            _ => 9,
        };
        let given = self.next();
        let target = Some(match target {
            "version" => CompareTarget::Version(number(given)),
            "create" => CompareTarget::CreateRevision(number(given)),
            "mod" => CompareTarget::ModRevision(number(given)),
            "lease" => CompareTarget::Lease(number(given)),
            "value" => CompareTarget::Value(bytes(given)),
            other => panic!("no target {other:?}"),
        });
        Compare { result, key: bytes(key), range_end: bytes(range_end), target }
    }
}

fn bytes(word: &str) -> Bytes {
    match word {
        "@" => Bytes::from_static(b"\0"),
        "\"\"" => Bytes::new(),
        word => Bytes::copy_from_slice(word.as_bytes()),
    }
}

fn number(word: &str) -> i64 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is not a number"))
}

fn show_auth(table: &holdfast_store::auth::AuthTable) -> String {
    let state = if table.is_enabled() { "on" } else { "off" };
    let mut out = format!("auth is {state}, revision {}\n", table.revision());
    for name in table.users() {
        let user = table.user(name).unwrap();
        let password = if user.has_no_password() { " (no password)" } else { "" };
        writeln!(out, "  user {name}{password}: {:?}", user.roles()).unwrap();
    }
    for name in table.roles() {
        writeln!(out, "  role {name}").unwrap();
        for held in table.permissions(name).unwrap() {
            writeln!(out, "    {} {:?} {:?}", held.kind, held.key, held.range_end).unwrap();
        }
    }
    out
}

fn show_record(record: &Bytes) -> String {
    let f = Fields::parse(record).unwrap();
    let (key, value) = (String::from_utf8_lossy(&f.key), String::from_utf8_lossy(&f.value));
    let (create, modified, version) = (f.create_revision, f.mod_revision, f.version);
    let lease = if f.lease == 0 { String::new() } else { format!(" lease={}", f.lease) };
    format!("{key}={value:?} create={create} mod={modified} version={version}{lease}")
}

fn show_range(result: &RangeResult) -> String {
    let more = if result.more { " more" } else { "" };
    let mut out = format!("count={}{more}\n", result.count);
    for record in &result.records {
        writeln!(out, "  {}", show_record(record)).unwrap();
    }
    out
}

fn show(response: &Response) -> String {
    match response {
        Response::Put { prev: None } => "put\n".to_owned(),
        Response::Put { prev: Some(prev) } => format!("put over {}\n", show_record(prev)),
        Response::DeleteRange { deleted, prevs } => {
            let mut out = format!("deleted {deleted}\n");
            prevs.iter().for_each(|prev| writeln!(out, "  {}", show_record(prev)).unwrap());
            out
        }
        Response::Range(result) => show_range(result),
        Response::Txn { succeeded, responses } => {
            let mut out = format!("{}\n", if *succeeded { "success" } else { "failure" });
            for part in responses {
                let inner = format!("rev={} {}", part.revision, show(&part.response));
                inner.lines().for_each(|line| writeln!(out, "  {line}").unwrap());
            }
            out
        }
        Response::LeaseGrant { id, ttl } => format!("granted {id} ttl={ttl}\n"),
        Response::Alarm { changed } => {
            format!("alarm {}\n", if *changed { "changed" } else { "unchanged" })
        }
        Response::Done => "done\n".to_owned(),
    }
}

/// The script with what its commands print now.
fn replay(script: &str) -> (String, usize) {
    let mut player = Player::new();
    let (mut out, mut cases) = (String::new(), 0);
    for case in script.trim().split("\n\n") {
        let commands = case.split("\n----").next().unwrap();
        let mut printed = String::new();
        for line in commands.lines() {
            writeln!(out, "{line}").unwrap();
            if !line.starts_with('#') {
                printed += &player.play(line);
            }
        }
        if !printed.is_empty() {
            write!(out, "----\n{printed}").unwrap();
            cases += 1;
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    (out, cases)
}

#[test]
fn scripts_print_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut cases = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let (now, count) = replay(&script);
        cases += count;
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            std::fs::write(&path, now).unwrap();
        } else {
            assert!(now == script, "{}:\n{}", path.display(), difference(&script, &now));
        }
    }
    assert!(cases >= 60, "only {cases} cases were found");
}

fn difference(expected: &str, now: &str) -> String {
    let lines = expected.lines().zip(now.lines());
    let different = lines.enumerate().find(|(_, (expected, now))| expected != now);
    match different {
        Some((at, (expected, now))) => {
            format!("line {}: expected {expected:?}, printed {now:?}", at + 1)
        }
        None => "one is longer".to_owned(),
    }
}
