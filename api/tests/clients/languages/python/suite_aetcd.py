"""The library aetcd: gRPC, asyncio.

It has no TLS of its own. Where there is TLS its channel is replaced by a secure one, which is what
its users do.
"""

import asyncio
import io

import aetcd
import grpc

from cases import PATIENCE, Access, equal, failed, passed, restart, true

access = Access()
PREFIX = b"app/python-aetcd/"
NOBODY = ["etcdserver: user name is empty"] + (["etcdserver: permission denied"] if access.tls else [])


pair = access.certificate


def secure_channel(target, options=None):
    def content(path):
        with open(path, "rb") as file:
            return file.read()

    certificate, private_key = pair
    credentials = grpc.ssl_channel_credentials(content(access.authority), content(private_key), content(certificate))
    return grpc.aio.secure_channel(target, credentials, options=list(options or []))


if access.tls:
    aetcd.rpc.insecure_channel = secure_channel

client = root = None


def connect(user=None, password=None):
    return aetcd.Client(host=access.host, port=access.port, timeout=PATIENCE, username=user, password=password)


async def reconnected():
    global client, root
    for old in (client, root):
        if old is not None:
            await old.close()
    client, root = connect(*access.user), connect(*access.root)
    return client


def key(name):
    return PREFIX + name.encode()


async def raises(kind, call, text=""):
    try:
        await call
    except kind as error:
        true(f"{error} has {text}", text in str(error))
        return error
    raise AssertionError(f"no {kind.__name__}")


async def put_and_get():
    equal(await client.get(key("missing")), None)
    first = await client.put(key("a"), b"1")
    second = await client.put(key("a"), b"\x00\xff", prev_kv=True)
    equal(second.prev_kv.value, b"1")
    equal(second.header.revision, first.header.revision + 1)
    found = await client.get(key("a"), serializable=True)
    equal((found.value, found.create_revision, found.mod_revision, found.version),
          (b"\x00\xff", first.header.revision, second.header.revision, 2))
    await raises(aetcd.ClientError, client.put(b"", b"x"), "etcdserver: key is not provided")


async def ranges():
    for name, value in (("r/1", b"c"), ("r/2", b"b"), ("r/3", b"a"), ("s", b"x")):
        await client.put(key(name), value)
    equal([kv.value for kv in await client.get_prefix(key("r/"))], [b"c", b"b", b"a"])
    equal([kv.value for kv in await client.get_range(key("r/2"), key("s"))], [b"b", b"a"])
    equal([kv.value for kv in await client.get_prefix(key("r/"), sort_order="ascend", sort_target="value")], [b"a", b"b", b"c"])
    equal([kv.value for kv in await client.get_prefix(key("r/"), keys_only=True)], [b"", b"", b""])
    true("root sees all", len(list(await root.get_all())) >= 4)


async def deletes():
    for name in ("d/1", "d/2", "d/3", "d/4"):
        await client.put(key(name), name.encode())
    gone = await client.delete(key("d/1"), prev_kv=True)
    equal((gone.deleted, gone.prev_kv.value), (1, b"d/1"))
    equal(await client.delete(key("d/1")), None)
    equal((await client.delete_range(key("d/2"), key("d/3"))).deleted, 1)
    equal((await client.delete_prefix(key("d/"))).deleted, 2)


async def transactions():
    txn = client.transactions
    await client.put(key("t"), b"old")
    done, answers = await client.transaction(
        compare=[txn.value(key("t")) == b"old", txn.version(key("t")) > 0, txn.create(key("none")) == 0],
        success=[txn.put(key("t"), b"new"), txn.get(key("t"))],
        failure=[],
    )
    equal((done, answers[1][0][0]), (True, b"new"))
    done, answers = await client.transaction([txn.value(key("t")) == b"old"], [txn.put(key("t"), b"never")], [txn.get(key("t")), txn.delete(key("t"))])
    equal((done, answers[0][0][0], answers[1].response_delete_range.deleted), (False, b"new", 1))
    await raises(aetcd.ClientError, client.transaction([], [txn.put(key("t"), b"1"), txn.put(key("t"), b"2")], []),
                 "etcdserver: duplicate key given in txn request")


async def watches():
    watch = await client.watch_prefix(key("w/"), prev_kv=True)
    deletes_only = await client.watch_prefix(key("w/"), kind=aetcd.EventKind.DELETE)
    await client.put(key("w/1"), b"a")
    await client.put(key("w/1"), b"b")
    await client.delete(key("w/1"))
    events = aiter(watch)
    created, changed, deleted = [await anext(events) for _ in range(3)]
    equal((created.kind, created.kv.value), (aetcd.EventKind.PUT, b"a"))
    equal((changed.kv.value, changed.prev_kv.value), (b"b", b"a"))
    equal((deleted.kind, deleted.kv.key, deleted.prev_kv.value), (aetcd.EventKind.DELETE, key("w/1"), b"b"))
    equal((await anext(aiter(deletes_only))).kind, aetcd.EventKind.DELETE)
    await watch.cancel()
    await deletes_only.cancel()


async def watch_of_the_past():
    first = (await client.put(key("past"), b"1")).header.revision
    await client.put(key("past"), b"2")
    watch = await client.watch(key("past"), start_revision=first)
    events = aiter(watch)
    equal([(await anext(events)).kv.value, (await anext(events)).kv.value], [b"1", b"2"])
    await watch.cancel()
    last = (await client.put(key("past"), b"3")).header.revision
    await root.compact(last, physical=True)
    watch = await client.watch(key("past"), start_revision=first)
    error = await raises(aetcd.RevisionCompactedError, anext(aiter(watch)))
    equal(error.compacted_revision, last)


async def watch_resumes():
    other = connect(*access.user)
    watch = await other.watch_prefix(key("resume/"))
    revision = (await client.put(key("resume/1"), b"")).header.revision
    events = aiter(watch)
    equal((await anext(events)).kv.key, key("resume/1"))
    await asyncio.to_thread(restart)
    await raises(Exception, anext(events))
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        # A request may fail while the connection comes back; a token may have gone.
        try:
            await (await reconnected()).put(key("resume/2"), b"")
            break
        except aetcd.ClientError:
            true("a write after the restart", asyncio.get_running_loop().time() < deadline)
    watch = await client.watch_prefix(key("resume/"), start_revision=revision + 1)
    equal((await anext(aiter(watch))).kv.key, key("resume/2"))
    await watch.cancel()


async def leases():
    lease = await client.lease(30, lease_id=4712)
    equal((lease.id, lease.ttl, await lease.granted_ttl()), (4712, 30, 30))
    await raises(aetcd.DuplicateLeaseError, client.lease(30, lease_id=4712))
    await client.put(key("leased"), b"", lease=lease)
    equal(list(await lease.keys()), [key("leased")])
    equal((await lease.refresh()).TTL, 30)
    await lease.revoke()
    equal(await client.get(key("leased")), None)
    equal((await lease.remaining_ttl(), (await lease.refresh()).TTL), (-1, 0))


async def lease_expiry():
    kept, lost = await client.lease(4), await client.lease(4)
    await client.put(key("kept"), b"", lease=kept)
    await client.put(key("lost"), b"", lease=lost)
    expired = asyncio.ensure_future(client.watch_once(key("lost"), timeout=PATIENCE, kind=aetcd.EventKind.DELETE))
    while not (await asyncio.wait([expired], timeout=0.3))[0]:
        equal((await kept.refresh()).TTL, 4)
    equal((await expired).kv.key, key("lost"))
    equal((await client.get(key("kept"))).value, b"")
    await kept.revoke()


async def locks():
    name = key("lock")
    first, second = client.lock(name, ttl=20), client.lock(name, ttl=20)
    equal((await first.acquire(), await second.acquire(timeout=0.5)), (True, False))
    equal((await first.is_acquired(), await second.is_acquired()), (True, False))
    equal((await first.refresh()).TTL, 20)
    waiting = asyncio.ensure_future(second.acquire(timeout=PATIENCE))
    await first.release()
    true("the next one has it", await waiting)
    await second.release()
    async with client.lock(name) as held:
        true("as a context", await held.is_acquired())


async def cluster():
    members = [member async for member in client.members()]
    equal(sorted(member.name for member in members), [f"m{i + 1}" for i in range(access.members)])
    status = await client.status()
    true("a version of etcd's", status.version.startswith("3."))
    true("a leader among them", status.leader.name in [member.name for member in members])


async def maintenance():
    await root.defragment()
    equal([alarm async for alarm in client.list_alarms()], [])
    snapshot = io.BytesIO()
    await root.snapshot(snapshot)
    # A bbolt file's pages, and a SHA-256 of them.
    equal(len(snapshot.getvalue()) % 512, 32)


async def many_at_once():
    await asyncio.gather(*(client.put(key(f"many/{i:03}"), str(i).encode()) for i in range(200)))
    equal([kv.value for kv in await client.get_prefix(key("many/"))], [str(i).encode() for i in range(200)])


async def wrong_password():
    await raises(aetcd.ClientError, connect(access.user[0], "wrong").connect(), "etcdserver: authentication failed, invalid user ID or password")


async def forbidden():
    await raises(aetcd.ClientError, client.put(b"root-only", b""), "etcdserver: permission denied")
    await raises(aetcd.ClientError, client.get_all(), "etcdserver: permission denied")
    await root.put(b"root-only", b"")


async def no_login():
    global pair
    pair = access.bare_certificate
    nobody = connect()
    await nobody.connect()
    pair = access.certificate
    # A certificate without a name is nobody's, or in etcd's words of a user that there is not.
    error = await raises(aetcd.ClientError, nobody.put(key("a"), b""))
    true(f"{error} is a refusal", str(error) in NOBODY)
    await nobody.close()


async def certificate_is_a_login():
    named = connect()
    await named.put(key("by-certificate"), b"")
    equal((await client.get(key("by-certificate"))).value, b"")
    await raises(aetcd.ClientError, named.put(b"root-only", b""), "etcdserver: permission denied")
    await named.close()


async def main():
    await reconnected()
    cases = access.chosen(
        [put_and_get, ranges, deletes, transactions, watches, watch_of_the_past, leases, lease_expiry, locks, cluster, maintenance, many_at_once,
         watch_resumes],
        [wrong_password, forbidden, no_login],
        [certificate_is_a_login],
    )
    for case in cases:
        try:
            await asyncio.wait_for(case(), PATIENCE)
        except Exception as error:
            failed(case, error)
        else:
            passed(case)
    print("end")
    await client.close()
    await root.close()


asyncio.run(main())
