//! The member as production runs it: threads, real files, sled, TCP.

use std::net::TcpListener as StdListener;
use std::path::Path;

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_raft::{Node, NodeConfig, OpenError, Seams, TcpListen};
use holdfast_store::Effort;
use holdfast_store::command::{Change, Command, DeleteRange, Operation, OperationKind, Put, Txn};
use tokio::net::TcpListener;

fn put(key: String) -> Command {
    let put = Put { key: key.into(), value: Bytes::from_static(b"v"), ..Default::default() };
    Command::from(Change::Put(put))
}

async fn start(
    directory: &Path,
    listener: &StdListener,
    name: usize,
    cluster: &[(String, Vec<String>)],
) -> Result<Node, OpenError> {
    let mut config = NodeConfig::new(format!("m{name}"), directory.join(format!("m{name}")));
    config.initial_advertise_peer_urls = cluster[name].1.clone();
    config.initial_cluster = cluster.to_vec();
    let mut seams = Seams::real();
    let listener = listener.try_clone().expect("cloned");
    listener.set_nonblocking(true).expect("a socket");
    let listener = TcpListener::from_std(listener).expect("a runtime");
    seams.listener = Some(Box::new(TcpListen::of(vec![listener])));
    Node::open(config, seams).await
}

fn cluster(members: usize) -> (Vec<StdListener>, Vec<(String, Vec<String>)>) {
    let listeners: Vec<_> =
        (0..members).map(|_| StdListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let url = |l: &StdListener| format!("http://{}", l.local_addr().expect("bound"));
    let members = listeners.iter().enumerate();
    let cluster = members.map(|(i, l)| (format!("m{i}"), vec![url(l)])).collect();
    (listeners, cluster)
}

#[tokio::test]
async fn a_member_on_a_real_disk_finds_its_writes_again_and_shares_its_directory_with_nobody() {
    let directory = tempfile::tempdir().expect("a folder");
    let (listeners, cluster) = cluster(1);
    let node = start(directory.path(), &listeners[0], 0, &cluster).await.expect("starts");
    node.wait_ready().await;
    let before = node.reader().revision();
    let port = node.port();
    let puts = (0..2000).map(|n| port.propose(put(format!("k{n}"))));
    for applied in join_all(puts).await {
        applied.expect("applied");
    }
    assert_eq!(node.reader().revision(), before + 2000);
    let second = start(directory.path(), &listeners[0], 0, &cluster).await;
    assert!(matches!(second.err(), Some(OpenError::DirectoryInUse(_))));
    node.shutdown().await;
    drop(port);
    drop(node);
    let node = start(directory.path(), &listeners[0], 0, &cluster).await.expect("starts again");
    node.wait_ready().await;
    assert_eq!(node.reader().revision(), before + 2000);
    node.shutdown().await;
}

#[tokio::test]
async fn three_members_over_tcp_agree() {
    let directory = tempfile::tempdir().expect("a folder");
    let (listeners, cluster) = cluster(3);
    let starting = (0..3).map(|i| start(directory.path(), &listeners[i], i, &cluster));
    let nodes: Vec<Node> =
        join_all(starting).await.into_iter().map(|node| node.expect("starts")).collect();
    for node in &nodes {
        node.wait_ready().await;
    }
    let ports: Vec<_> = nodes.iter().map(Node::port).collect();
    let puts = (0..600).map(|n| ports[n % 3].propose(put(format!("k{n}"))));
    let applied: Vec<_> = join_all(puts).await;
    let last = applied.into_iter().map(|a| a.expect("applied").outcome.revision).max();
    for (node, port) in nodes.iter().zip(&ports) {
        port.read_barrier().await.expect("a leader answers");
        assert_eq!(Some(node.reader().revision()), last);
    }
    for node in &nodes {
        node.shutdown().await;
    }
}

/// Keys of the long delete.
const MANY: usize = 200_000;

fn puts(range: std::ops::Range<usize>) -> Command {
    let put = |number| {
        let key = format!("many/{number:08}").into();
        let put = Put { key, value: Bytes::from_static(b"v"), ..Default::default() };
        Operation { kind: Some(OperationKind::Put(put)) }
    };
    let success = range.map(put).collect();
    Command::from(Change::Txn(Txn { success, ..Default::default() }))
}

#[tokio::test]
async fn keys_are_read_at_the_revision_of_a_long_delete_while_it_goes_on() {
    let directory = tempfile::tempdir().expect("a folder");
    let (listeners, cluster) = cluster(1);
    let node = start(directory.path(), &listeners[0], 0, &cluster).await.expect("starts");
    node.wait_ready().await;
    let (port, reader) = (node.port(), node.reader());
    port.propose(put("other".to_owned())).await.expect("applied");
    for start in (0..MANY).step_by(2000) {
        port.propose(puts(start..start + 2000)).await.expect("applied");
    }
    let before = reader.revision();
    let range =
        DeleteRange { key: "many/".into(), range_end: "many0".into(), ..Default::default() };
    let delete = Command::from(Change::DeleteRange(range));
    let mut deleting = Box::pin(port.propose(delete));
    let (mut last, mut early) = (before, 0);
    let outcome = loop {
        let barrier = tokio::select! {
            biased;
            outcome = &mut deleting => break outcome.expect("applied").outcome,
            barrier = port.key_barrier() => barrier,
        };
        barrier.expect("a leader answers");
        // A member that is alone answers at once, and the port's driver runs on this thread too.
        tokio::task::yield_now().await;
        let (revision, other) = reader.get(b"other", Effort::Inline).expect("in memory");
        assert!(other.is_some(), "at {revision}");
        let (later, gone) = reader.get(b"many/00150000", Effort::Inline).expect("in memory");
        assert_eq!(gone.is_none(), later == before + 1, "at {later}");
        assert!(last <= revision && revision <= later, "{last}, {revision}, {later}");
        last = later;
        early += usize::from(reader.revision() < later);
    };
    assert_eq!(outcome.revision, before + 1);
    assert!(early > 0, "nothing was read before the delete was carried out");
    port.read_barrier().await.expect("a leader answers");
    assert_eq!(reader.revision(), before + 1);
    node.shutdown().await;
}
