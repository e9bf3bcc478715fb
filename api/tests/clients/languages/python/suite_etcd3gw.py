"""The library etcd3gw: the JSON gateway, by HTTP/1.1.

It knows nothing of logins: a token goes into its session's headers. Nor does the gateway take a
certificate's name for a user's; where there are users, a certificate that has a name is refused.
"""

import threading
import time

import etcd3gw
from etcd3gw.exceptions import Etcd3Exception

from cases import PATIENCE, Access, equal, eventually, raises, restart, run, true

access = Access()
PREFIX = "app/python-etcd3gw/"


def anonymous(pair=None):
    certificate, key = pair or (access.bare_certificate if access.users else access.certificate)
    made = etcd3gw.client(
        host=access.host, port=access.port, timeout=PATIENCE, protocol="https" if access.tls else "http",
        ca_cert=access.authority, cert_cert=certificate, cert_key=key,
    )
    # Else a proxy or an authority of this machine's would come before what stands here.
    made.session.trust_env = False
    return made


def connect(user=None, password=None):
    made = anonymous()
    if user is not None:
        answer = made.post(made.get_url("/auth/authenticate"), json={"name": user, "password": password})
        made.session.headers["Authorization"] = answer["token"]
    return made


client = connect(*access.user)
root = connect(*access.root)


def refuses(call, text):
    error = raises(Etcd3Exception, call)
    true(f"{error.detail_text} has {text}", text in error.detail_text)


def key(name):
    return PREFIX + name


def put_and_get():
    equal(client.get(key("missing")), [])
    client.put(key("a"), "1")
    client.put(key("a"), b"\x00\xff")
    [(value, meta)] = client.get(key("a"), metadata=True)
    equal((value, meta["key"], meta["version"]), (b"\x00\xff", key("a").encode(), "2"))
    true("revisions in order", int(meta["create_revision"]) < int(meta["mod_revision"]))
    equal(client.get(key("a"), revision=int(meta["create_revision"]), serializable=True), [b"1"])
    refuses(lambda: client.put("", "x"), "etcdserver: key is not provided")


def large_value():
    large = bytes(range(256)) * 4096
    client.put(key("large"), large)
    equal(client.get(key("large")), [large])
    refuses(lambda: client.put(key("large"), large + large[:700_000]), "etcdserver: request is too large")


def ranges():
    for name, value in (("r/1", "c"), ("r/2", "b"), ("r/3", "a"), ("s", "x")):
        client.put(key(name), value)
    equal([value for value, _ in client.get_prefix(key("r/"))], [b"c", b"b", b"a"])
    equal(client.get(key("r/2"), range_end=key("s")), [b"b", b"a"])
    equal([value for value, _ in client.get_prefix(key("r/"), sort_order="ascend", sort_target="value")], [b"a", b"b", b"c"])
    equal(client.get(key("r/"), range_end=key("r0"), limit=1, sort_order="descend", sort_target="key"), [b"a"])
    equal(client.get(key("r/"), range_end=key("r0"), keys_only=True), [b"", b"", b""])
    equal(client.get(key("r/"), range_end=key("r0"), count_only=True), [])
    true("root sees all", len(root.get_all()) >= 4)


def deletes():
    for name in ("d/1", "d/2", "d/3"):
        client.put(key(name), name)
    equal((client.delete(key("d/1"), prev_kv=True), client.delete(key("d/1"))), (True, False))
    equal(client.delete_prefix(key("d/")), True)
    equal(client.get_prefix(key("d/")), [])


def transactions():
    equal((client.create(key("t"), "old"), client.create(key("t"), "never")), (True, False))
    equal((client.replace(key("t"), "old", "new"), client.replace(key("t"), "old", "never")), (True, False))
    encoded = etcd3gw.utils._encode(key("t"))
    get, put = {"request_range": {"key": encoded}}, {"request_put": {"key": encoded, "value": etcd3gw.utils._encode("2")}}
    nested = {"request_txn": {"compare": [{"key": encoded, "target": "VERSION", "result": "GREATER", "version": 1}], "success": [put, get]}}
    answer = client.transaction({"success": [nested, get]})
    equal(answer["succeeded"], True)
    equal(answer["responses"][0]["response_txn"]["succeeded"], True)
    equal(answer["responses"][1]["response_range"]["kvs"][0]["value"], etcd3gw.utils._encode("2"))
    refuses(lambda: client.transaction({"success": [put, put]}), "etcdserver: duplicate key given in txn request")


def watches():
    # The library gives no sign that a watch has begun: it begins in the past.
    begin = revision() + 1
    events, cancel = client.watch_prefix(key("w/"), prev_kv=True, start_revision=begin)
    deletes_only, cancel_deletes = client.watch_prefix(key("w/"), filters=["NOPUT"], start_revision=begin)
    client.put(key("w/1"), "a")
    client.put(key("w/1"), "b")
    client.delete(key("w/1"))
    created, changed, deleted = (next(events) for _ in range(3))
    equal((created.get("type"), created["kv"]["value"], "prev_kv" in created), (None, b"a", False))
    equal((changed["kv"]["value"], changed["prev_kv"]["value"]), (b"b", etcd3gw.utils._encode("a")))
    equal((deleted["type"], deleted["kv"]["key"]), ("DELETE", key("w/1").encode()))
    equal(next(deletes_only)["type"], "DELETE")
    cancel()
    cancel_deletes()
    raises(etcd3gw.exceptions.WatchTimedOut, lambda: client.watch_once(key("w/1"), timeout=0.2))


def revision():
    client.put(key("revision"), "")
    [(_, meta)] = client.get(key("revision"), metadata=True)
    return int(meta["mod_revision"])


def watch_resumes():
    other = connect(*access.user)
    begin = revision() + 1
    events, cancel = other.watch_prefix(key("resume/"), start_revision=begin)
    client.put(key("resume/1"), "")
    last = int(next(events)["kv"]["mod_revision"])
    cancel()
    restart()

    def written():
        # A request may fail while the connection comes back; a token may have gone.
        try:
            return reconnected().put(key("resume/2"), "")
        except Etcd3Exception:
            return False

    eventually("a write after the restart", written)
    events, cancel = client.watch_prefix(key("resume/"), start_revision=last + 1)
    equal(next(events)["kv"]["key"], key("resume/2").encode())
    cancel()


def reconnected():
    global client, root
    client, root = connect(*access.user), connect(*access.root)
    return client


def leases():
    lease = client.lease(30)
    client.put(key("leased"), "", lease=lease)
    equal(lease.keys(), [key("leased").encode()])
    equal(lease.refresh(), 30)
    true("time is left", 0 < lease.ttl() <= 30)
    lease.revoke()
    equal(client.get(key("leased")), [])
    equal((lease.ttl(), lease.refresh()), (-1, -1))
    refuses(lambda: client.put(key("leased"), "", lease=lease), "etcdserver: requested lease not found")


def lease_expiry():
    kept, lost = client.lease(4), client.lease(4)
    client.put(key("kept"), "", lease=kept)
    client.put(key("lost"), "", lease=lost)
    deadline = time.monotonic() + PATIENCE
    while client.get(key("lost")):
        equal(kept.refresh(), 4)
        true("the lease expires", time.monotonic() < deadline)
        time.sleep(0.3)
    equal(client.get(key("kept")), [b""])
    kept.revoke()


def locks():
    first, second = client.lock("python-etcd3gw", ttl=20), client.lock("python-etcd3gw", ttl=20)
    equal((first.acquire(), second.acquire()), (True, False))
    equal((first.is_acquired(), second.is_acquired()), (True, False))
    equal(first.refresh(), 20)
    equal((second.release(), first.release()), (False, True))
    with client.lock("python-etcd3gw") as held:
        true("as a context", held.is_acquired())


def cluster():
    members = client.members()
    equal(sorted(member["name"] for member in members), [f"m{i + 1}" for i in range(access.members)])
    scheme = "https://" if access.tls else "http://"
    true("they have addresses", all(member["clientURLs"][0].startswith(scheme) for member in members))
    status = client.status()
    true("a version of etcd's", status["version"].startswith("3."))
    true("a leader among them", status["leader"] in [member["ID"] for member in members])


def wrong_password():
    refuses(lambda: connect(access.user[0], "wrong"), "etcdserver: authentication failed, invalid user ID or password")


def forbidden():
    refuses(lambda: client.put("root-only", ""), "etcdserver: permission denied")
    refuses(lambda: client.get_all(), "etcdserver: permission denied")
    root.put("root-only", "")


def no_login():
    refuses(lambda: anonymous().put("root-only", ""), "etcdserver: user name is empty")


def certificate_is_no_login():
    refuses(lambda: anonymous(access.certificate).get(key("a")), "CommonName of client sending a request against gateway will be ignored")


run(access.chosen(
    [put_and_get, large_value, ranges, deletes, transactions, watches, leases, lease_expiry, locks, cluster, watch_resumes],
    [wrong_password, forbidden, no_login],
    [certificate_is_no_login],
))
