"""The library etcd3: gRPC, threads."""

import io
import threading
import time

import etcd3
import grpc

from cases import PATIENCE, Access, equal, eventually, raises, restart, run, true

access = Access()
PREFIX = "app/python-etcd3/"
NOBODY = ["etcdserver: user name is empty"] + (["etcdserver: permission denied"] if access.tls else [])


def connect(user=None, password=None, pair=access.certificate):
    certificate, key = pair
    made = etcd3.client(
        host=access.host, port=access.port, timeout=PATIENCE, user=user, password=password,
        ca_cert=access.authority, cert_cert=certificate, cert_key=key,
    )
    if not access.tls:
        # The library gives the token twice: as metadata, and as credentials that newer versions of
        # gRPC send over TLS only.
        made.call_credentials = made.watcher._credentials = None
    return made


client = connect(*access.user)
root = connect(*access.root)


def key(name):
    return PREFIX + name


def values(answers):
    return [(meta.key.decode()[len(PREFIX):], value.decode()) for value, meta in answers]


def put_and_get():
    equal(client.get(key("missing")), (None, None))
    first = client.put(key("a"), "1")
    second = client.put(key("a"), b"\x00\xff", prev_kv=True)
    equal(second.prev_kv.value, b"1")
    equal(second.header.revision, first.header.revision + 1)
    value, meta = client.get(key("a"))
    equal(value, b"\x00\xff")
    equal((meta.create_revision, meta.mod_revision, meta.version), (first.header.revision, second.header.revision, 2))
    equal(client.get(key("a"), serializable=True)[0], b"\x00\xff")
    raises(grpc.RpcError, lambda: client.put("", "x"), "etcdserver: key is not provided")


def large_value():
    large = bytes(range(256)) * 4096
    client.put(key("large"), large)
    equal(client.get(key("large"))[0], large)
    raises(grpc.RpcError, lambda: client.put(key("large"), large + large[:700_000]), "etcdserver: request is too large")


def ranges():
    for name, value in (("r/1", "c"), ("r/2", "b"), ("r/3", "a"), ("s", "x")):
        client.put(key(name), value)
    equal(values(client.get_prefix(key("r/"))), [("r/1", "c"), ("r/2", "b"), ("r/3", "a")])
    equal(values(client.get_range(key("r/2"), key("s"))), [("r/2", "b"), ("r/3", "a")])
    equal(values(client.get_prefix(key("r/"), sort_order="descend")), [("r/3", "a"), ("r/2", "b"), ("r/1", "c")])
    equal(values(client.get_prefix(key("r/"), sort_order="ascend", sort_target="value")), [("r/3", "a"), ("r/2", "b"), ("r/1", "c")])
    equal(values(client.get_prefix(key("r/"), keys_only=True)), [("r/1", ""), ("r/2", ""), ("r/3", "")])
    true("root sees all", len(list(root.get_all())) >= 4)


def deletes():
    for name in ("d/1", "d/2", "d/3"):
        client.put(key(name), name)
    equal(client.delete(key("d/1")), True)
    equal(client.delete(key("d/1")), False)
    gone = client.delete(key("d/2"), prev_kv=True, return_response=True)
    equal((gone.deleted, gone.prev_kvs[0].value), (1, b"d/2"))
    client.put(key("d/4"), "")
    equal(client.delete_prefix(key("d/")).deleted, 2)
    equal(list(client.get_prefix(key("d/"))), [])


def transactions():
    txn = client.transactions
    client.put(key("t"), "old")
    done, answers = client.transaction(
        compare=[txn.value(key("t")) == "old", txn.version(key("t")) > 0, txn.create(key("none")) == 0, txn.mod(key("t")) > 1],
        success=[txn.put(key("t"), "new"), txn.get(key("t")),
                 txn.txn([txn.version(key("t")) == 1], [txn.put(key("nested"), "yes")], [txn.put(key("nested"), "no")])],
        failure=[],
    )
    equal((done, answers[1][0][0]), (True, b"new"))
    # The comparisons of nested transactions see what was before all of them.
    equal(client.get(key("nested"))[0], b"yes")
    done, answers = client.transaction([txn.value(key("t")) == "old"], [txn.put(key("t"), "never")], [txn.get(key("t")), txn.delete(key("nested"))])
    equal((done, answers[0][0][0], answers[1].response_delete_range.deleted), (False, b"new", 1))
    equal(client.put_if_not_exists(key("t"), "x"), False)
    equal(client.replace(key("t"), "new", "newer"), True)
    raises(grpc.RpcError, lambda: client.transaction([], [txn.put(key("t"), "1"), txn.put(key("t"), "2")], []),
           "etcdserver: duplicate key given in txn request")


def watches():
    events, cancel = client.watch_prefix(key("w/"), prev_kv=True)
    client.put(key("w/1"), "a")
    client.put(key("w/1"), "b")
    client.delete(key("w/1"))
    created, changed, deleted = (next(events) for _ in range(3))
    equal((type(created), created.value, type(changed), changed.prev_value, type(deleted), deleted.prev_value),
          (etcd3.events.PutEvent, b"a", etcd3.events.PutEvent, b"a", etcd3.events.DeleteEvent, b"b"))
    cancel()
    equal(list(events), [])


def watch_of_the_past():
    first = client.put(key("past"), "1").header.revision
    client.put(key("past"), "2")
    events, cancel = client.watch(key("past"), start_revision=first)
    equal([next(events).value, next(events).value], [b"1", b"2"])
    cancel()
    last = client.put(key("past"), "3").header.revision
    root.compact(last, physical=True)
    events, _ = client.watch(key("past"), start_revision=first)
    error = raises(etcd3.exceptions.RevisionCompactedError, lambda: next(events))
    equal(error.compacted_revision, last)


def watch_progress():
    revision = client.put(key("elsewhere"), "").header.revision
    responses, cancel = client.watch_response(key("quiet"), progress_notify=True)
    progress = next(responses)
    equal(progress.events, [])
    true("progress is not behind", progress.header.revision >= revision)
    cancel()


def watch_resumes():
    other = connect(*access.user)
    events, _ = other.watch_prefix(key("resume/"))
    revision = client.put(key("resume/1"), "").header.revision
    equal(next(events).key, key("resume/1").encode())
    restart()
    raises((etcd3.exceptions.Etcd3Exception, grpc.RpcError), lambda: next(events))

    def written():
        # A request may fail while the connection comes back; a token may have gone.
        try:
            return reconnected().put(key("resume/2"), "")
        except (etcd3.exceptions.Etcd3Exception, grpc.RpcError):
            return False

    eventually("a write after the restart", written)
    events, cancel = reconnected().watch_prefix(key("resume/"), start_revision=revision + 1)
    equal(next(events).key, key("resume/2").encode())
    cancel()


def reconnected():
    global client, root
    client, root = connect(*access.user), connect(*access.root)
    return client


def leases():
    lease = client.lease(30, lease_id=4711)
    equal((lease.id, lease.ttl, lease.granted_ttl), (4711, 30, 30))
    raises(etcd3.exceptions.PreconditionFailedError, lambda: client.lease(30, lease_id=4711))
    client.put(key("leased"), "", lease=lease)
    equal(list(lease.keys), [key("leased").encode()])
    equal(lease.refresh()[0].TTL, 30)
    true("time is left", 0 < lease.remaining_ttl <= 30)
    lease.revoke()
    equal(client.get(key("leased")), (None, None))
    raises(grpc.RpcError, lambda: client.put(key("leased"), "", lease=lease), "etcdserver: requested lease not found")
    equal((lease.remaining_ttl, lease.refresh()[0].TTL), (-1, 0))


def lease_expiry():
    kept, lost = client.lease(4), client.lease(4)
    client.put(key("kept"), "", lease=kept)
    client.put(key("lost"), "", lease=lost)
    expired = threading.Event()
    watch = client.add_watch_callback(key("lost"), lambda _: expired.set())
    deadline = time.monotonic() + PATIENCE
    while not expired.wait(0.3):
        equal(kept.refresh()[0].TTL, 4)
        true("the lease expires", time.monotonic() < deadline)
    client.cancel_watch(watch)
    equal(client.get(key("lost")), (None, None))
    equal(client.get(key("kept"))[0], b"")
    kept.revoke()


def locks():
    first, second = client.lock("python-etcd3", ttl=20), client.lock("python-etcd3", ttl=20)
    true("it is free", first.acquire())
    equal(second.acquire(timeout=0.5), False)
    equal((first.is_acquired(), second.is_acquired()), (True, False))
    equal(first.refresh()[0].TTL, 20)
    # The library sees that a lock is taken, and only then begins to watch it: a release in between is
    # not noticed until it tries again.
    tries = int(PATIENCE)
    waiting = threading.Thread(target=lambda: any(second.acquire(timeout=1) for _ in range(tries)))
    waiting.start()
    true("it was held", first.release())
    waiting.join(PATIENCE)
    true("the next one has it", second.is_acquired())
    second.release()
    with client.lock("python-etcd3") as held:
        true("as a context", held.is_acquired())


def cluster():
    members = list(client.members)
    equal(len(members), access.members)
    equal(sorted(member.name for member in members), [f"m{i + 1}" for i in range(access.members)])
    scheme = "https://" if access.tls else "http://"
    true("they have addresses", all(member.client_urls[0].startswith(scheme) for member in members))
    status = client.status()
    true("a version of etcd's", status.version.startswith("3."))
    true("a leader among them", status.leader.name in [member.name for member in members])
    true("sizes and places", status.db_size > 0 and status.raft_index > 0 and status.raft_term > 0)


def maintenance():
    root.defragment()
    equal(list(client.list_alarms()), [])
    snapshot = io.BytesIO()
    root.snapshot(snapshot)
    # A bbolt file's pages, and a SHA-256 of them.
    equal(len(snapshot.getvalue()) % 512, 32)


def wrong_password():
    raises(grpc.RpcError, lambda: connect(access.user[0], "wrong"), "etcdserver: authentication failed, invalid user ID or password")


def forbidden():
    raises(grpc.RpcError, lambda: client.put("root-only", ""), "etcdserver: permission denied")
    raises(grpc.RpcError, lambda: list(client.get_all()), "etcdserver: permission denied")
    raises(grpc.RpcError, lambda: client.compact(1), "etcdserver: permission denied")
    root.put("root-only", "")


def no_login():
    nobody = connect(pair=access.bare_certificate)
    # A certificate without a name is nobody's, or in etcd's words of a user that there is not.
    error = raises(grpc.RpcError, lambda: nobody.put(key("a"), ""))
    true(f"{error} is a refusal", error.details() in NOBODY)


def certificate_is_a_login():
    named = connect()
    named.put(key("by-certificate"), "")
    raises(grpc.RpcError, lambda: named.put("root-only", ""), "etcdserver: permission denied")
    equal(client.get(key("by-certificate"))[0], b"")


run(access.chosen(
    [put_and_get, large_value, ranges, deletes, transactions, watches, watch_of_the_past, watch_progress, leases, lease_expiry, locks,
     cluster, maintenance, watch_resumes],
    [wrong_password, forbidden, no_login],
    [certificate_is_a_login],
))
