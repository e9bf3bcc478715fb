// The library etcd3 for Node: gRPC in JavaScript, watches that resume, leases that keep themselves
// alive.
'use strict';

const etcd3 = require('etcd3');
const { access, equal, eventually, fails, holds, next, options, restart, run } = require('./cases');

const client = new etcd3.Etcd3(options(access.user));
const root = new etcd3.Etcd3(options(access.root));
const space = client.namespace('app/node/');

async function put_and_get() {
  equal(await space.get('missing'), null);
  const first = await space.put('a').value('1');
  const previous = await space.put('a').value(Buffer.from([0, 255])).getPrevious();
  equal(previous.value.toString(), '1');
  const found = await space.get('a').exec();
  equal(found.kvs[0].value, Buffer.from([0, 255]));
  equal([found.kvs[0].create_revision, found.kvs[0].version], [first.header.revision, '2']);
  equal(await space.get('a').revision(first.header.revision).serializable(true).string(), '1');
  await space.put('a').touch();
  equal(await space.get('a').buffer(), Buffer.from([0, 255]));
  await fails(client.kv.put({ key: Buffer.alloc(0), value: Buffer.from('x') }), etcd3.GRPCInvalidArgumentError, 'etcdserver: key is not provided');
}

async function large_value() {
  const large = Buffer.alloc(1 << 20, 'abc');
  await space.put('large').value(large);
  equal(await space.get('large').buffer(), large);
  await fails(space.put('large').value(Buffer.alloc(1_750_000)).exec(), etcd3.GRPCInvalidArgumentError, 'etcdserver: request is too large');
}

async function ranges() {
  for (const [name, value] of [['r/1', 'c'], ['r/2', 'b'], ['r/3', 'a'], ['s', 'x']]) {
    await space.put(name).value(value);
  }
  equal(await space.getAll().prefix('r/').strings(), { 'r/1': 'c', 'r/2': 'b', 'r/3': 'a' });
  equal(await space.getAll().inRange({ start: 'r/2', end: 's' }).keys(), ['r/2', 'r/3']);
  equal(await space.getAll().prefix('r/').sort('Value', 'Ascend').limit(2).keys(), ['r/3', 'r/2']);
  equal(await space.getAll().prefix('r/').count(), 3);
  const { mod_revision: revision } = (await space.get('r/2').exec()).kvs[0];
  equal(await space.getAll().prefix('r/').minModRevision(revision).keys(), ['r/2', 'r/3']);
  equal(await space.getAll().prefix('r/').maxCreateRevision(revision).keys(), ['r/1', 'r/2']);
  holds('root sees all', (await root.getAll().keys()).length >= 4);
}

async function deletes() {
  for (const name of ['d/1', 'd/2', 'd/3']) {
    await space.put(name).value(name);
  }
  equal((await space.delete().key('d/1').getPrevious()).map(kv => kv.value.toString()), ['d/1']);
  equal((await space.delete().key('d/1').exec()).deleted, '0');
  equal((await space.delete().prefix('d/').exec()).deleted, '2');
}

async function transactions() {
  await space.put('t').value('old');
  const done = await space
    .if('t', 'Value', '==', 'old').and('none', 'Create', '==', 0).and('t', 'Version', '>', 0)
    .then(space.put('t').value('new'), space.get('t'))
    .else(space.delete().key('t'))
    .commit();
  equal([done.succeeded, done.responses[1].response_range.kvs[0].value.toString()], [true, 'new']);
  const other = await space.if('t', 'Value', '!=', 'new').then(space.put('t').value('never')).else(space.get('t'), space.delete().key('t')).commit();
  equal([other.succeeded, other.responses[1].response_delete_range.deleted], [false, '1']);
  await fails(space.if('t', 'Create', '==', 0).then(space.put('t').value('1'), space.put('t').value('2')).commit(),
    etcd3.GRPCInvalidArgumentError, 'etcdserver: duplicate key given in txn request');
}

// Ten transfers at once leave the sum as it was; those that conflict are tried again. The library
// takes it for a conflict if two keys that are read and written are not of one revision. After the
// first it reads without asking the other members, so it must stay with one.
async function software_transactions() {
  const lone = new etcd3.Etcd3(options(access.user, { endpoints: access.endpoints.slice(0, 1) }));
  await space.if('account/a', 'Create', '==', 0).then(space.put('account/a').value(100), space.put('account/b').value(0)).commit();
  await Promise.all(Array.from({ length: 10 }, () => lone.namespace('app/node/').stm({ retries: 50 }).transact(async transaction => {
    const a = Number(await transaction.get('account/a'));
    const b = Number(await transaction.get('account/b'));
    await transaction.put('account/a').value(a - 1);
    await transaction.put('account/b').value(b + 1);
  })));
  equal([await space.get('account/a').number(), await space.get('account/b').number()], [90, 10]);
  lone.close();
}

async function watches() {
  const watcher = await space.watch().prefix('w/').withPreviousKV().create();
  const deletesOnly = await space.watch().prefix('w/').only('delete').create();
  const deleted = next(watcher, 'delete');
  let others = 0;
  deletesOnly.on('put', () => { others += 1; });
  const deletedOnly = next(deletesOnly, 'delete');
  const created = next(watcher, 'put');
  await space.put('w/1').value('a');
  equal((await created).map(kv => kv && kv.value.toString()), ['a', null]);
  const changed = next(watcher, 'put');
  await space.put('w/1').value('b');
  equal((await changed).map(kv => kv.value.toString()), ['b', 'a']);
  await space.delete().key('w/1');
  const [kv, before] = await deleted;
  equal([kv.key.toString(), before.value.toString()], ['w/1', 'b']);
  equal([(await deletedOnly)[0].key.toString(), others], ['w/1', 0]);
  await watcher.cancel();
  await deletesOnly.cancel();
}

async function watch_of_the_past() {
  const { header } = await space.put('past').value('1');
  await space.put('past').value('2');
  const watcher = space.watch().key('past').startRevision(header.revision).watcher();
  equal((await next(watcher, 'data'))[0].events.map(event => event.kv.value.toString()), ['1', '2']);
  await watcher.cancel();
  const last = (await space.put('past').value('3')).header.revision;
  await root.kv.compact({ revision: last, physical: true });
  const late = space.watch().key('past').startRevision(header.revision).watcher();
  const error = next(late, 'error');
  holds('a compacted past is an error', String((await error)[0]).includes('Watcher canceled'));
}

async function watch_progress() {
  const { header } = await space.put('elsewhere').value('');
  const watcher = await space.watch().key('quiet').create();
  const [progress] = await next(watcher, 'data');
  equal(progress.events, []);
  holds('progress is not behind', BigInt(progress.header.revision) >= BigInt(header.revision));
  await watcher.cancel();
}

async function watch_resumes() {
  const lone = new etcd3.Etcd3(options(access.user, { endpoints: access.endpoints.slice(0, 1) }));
  const watched = lone.namespace('app/node/resume/');
  let watcher = await watched.watch().prefix('').create();
  const before = next(watcher, 'put');
  await watched.put('1').value('');
  equal((await before)[0].key.toString(), '1');
  const lost = next(watcher, 'disconnected');
  const error = next(watcher, 'error').catch(() => {});
  const after = next(watcher, 'put').catch(() => {});
  await restart();
  await lost;
  await eventually('a write after the restart', () => watched.put('2').value('').exec().catch(() => false));
  let [kv] = (await Promise.race([after, error]));
  if (kv instanceof Error) {
    // Its token ended with the member; the library logs in again for requests, but not for watches.
    holds('only a token ends a watch', access.users && kv.message.includes('invalid auth token'));
    watcher = watched.watch().prefix('').startRevision(watcher.lastRevision()).watcher();
    [kv] = await next(watcher, 'put');
  }
  equal(kv.key.toString(), '2');
  await watcher.cancel();
  lone.close();
}

async function leases() {
  const lease = space.lease(30, { autoKeepAlive: false });
  const id = await lease.grant();
  await lease.put('leased').value('');
  const { TTL, grantedTTL, keys } = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  equal([grantedTTL, keys.map(String)], ['30', ['app/node/leased']]);
  holds('time is left', Number(TTL) > 0 && Number(TTL) <= 30);
  equal((await lease.keepaliveOnce()).TTL, '30');
  holds('it is listed', (await client.leaseClient.leaseLeases()).leases.some(({ ID }) => ID === id));
  await lease.revoke();
  equal(await space.get('leased'), null);
  await fails(space.put('leased').value('').lease(id).exec(), etcd3.EtcdLeaseInvalidError);
}

async function lease_expiry() {
  const kept = space.lease(4);
  const lost = space.lease(4, { autoKeepAlive: false });
  await kept.put('kept').value('');
  const watcher = await space.watch().key('lost').create();
  const gone = next(watcher, 'delete');
  await lost.put('lost').value('');
  await next(kept, 'keepaliveSucceeded');
  await gone;
  await next(kept, 'keepaliveSucceeded');
  equal([await space.get('lost'), await space.get('kept')], [null, '']);
  await fails(lost.keepaliveOnce(), etcd3.EtcdLeaseInvalidError);
  await watcher.cancel();
  await kept.revoke();
}

async function locks() {
  const held = await space.lock('lock').ttl(20).acquire();
  await fails(space.lock('lock').acquire(), etcd3.EtcdLockFailedError);
  await held.release();
  equal(await space.lock('lock').do(async () => 'done'), 'done');
}

async function elections() {
  const election = space.election('election', 20);
  const first = election.campaign('first');
  await first.wait();
  equal(await election.leader(), 'first');
  const observer = await election.observe();
  await eventually('the observer sees the leader', () => observer.leader() === 'first');
  const changed = next(observer, 'change');
  await first.proclaim('still first');
  equal(await changed, ['still first']);
  const second = election.campaign('second');
  const elected = second.wait();
  const handed = eventually('the observer sees the next leader', () => observer.leader() === 'second');
  await first.resign();
  await elected;
  await handed;
  await observer.cancel();
  await second.resign();
}

async function cluster() {
  const { members } = await client.cluster.memberList({});
  equal(members.map(member => member.name).sort(), Array.from({ length: access.members }, (_, index) => `m${index + 1}`));
  const status = await client.maintenance.status();
  holds('a version of etcd\'s', status.version.startsWith('3.'));
  holds('a leader among them', members.some(member => member.ID === status.leader));
}

async function maintenance() {
  await root.maintenance.defragment();
  equal((await client.maintenance.alarm({ action: 'Get' })).alarms, []);
  holds('a hash', Number((await root.maintenance.hash()).hash) > 0);
  if (access.users) {
    // The library sends no token with a request for a snapshot.
    return;
  }
  const stream = await root.maintenance.snapshot();
  let size = 0;
  stream.on('data', ({ blob }) => { size += blob.length; });
  await next(stream, 'end');
  // A bbolt file's pages, and a SHA-256 of them.
  equal(size % 512, 32);
}

async function wrong_password() {
  const stranger = new etcd3.Etcd3(options({ username: access.user.username, password: 'wrong' }));
  await fails(stranger.get('app/node/a').exec(), etcd3.EtcdAuthenticationFailedError);
  stranger.close();
}

async function forbidden() {
  await fails(client.put('root-only').value('').exec(), etcd3.EtcdPermissionDeniedError);
  await fails(client.getAll().exec(), etcd3.EtcdPermissionDeniedError);
  const watcher = client.watch().key('root-only').watcher();
  holds('nor is a watch permitted', String((await next(watcher, 'error'))[0]).includes('permission denied'));
  await root.put('root-only').value('');
}

async function no_login() {
  const nobody = new etcd3.Etcd3(options(undefined, { bare: true }));
  // A certificate without a name is nobody's, or in etcd's words of a user that there is not.
  const expected = ['etcdserver: user name is empty', ...(access.tls ? ['etcdserver: permission denied'] : [])];
  const error = await fails(nobody.put('app/node/a').value('').exec(), Error);
  holds(`${error} is a refusal`, expected.some(text => error.message.includes(text)));
  nobody.close();
}

async function users_and_roles() {
  const role = await root.role('visitor').create();
  await fails(root.role('visitor').create(), etcd3.EtcdRoleExistsError);
  await role.grant({ permission: 'Read', range: root.range({ prefix: 'app/node/' }) });
  const user = await root.user('eve').create('eve-pw');
  await fails(root.user('eve').create('eve-pw'), etcd3.EtcdUserExistsError);
  await user.addRole('visitor');
  equal((await user.roles()).map(({ name }) => name), ['visitor']);
  equal((await role.permissions()).map(({ permission }) => permission), ['Read']);
  const eve = new etcd3.Etcd3(options({ username: 'eve', password: 'eve-pw' }));
  await space.put('shown').value('to eve');
  equal(await eve.get('app/node/shown'), 'to eve');
  await fails(eve.put('app/node/shown').value('').exec(), etcd3.EtcdPermissionDeniedError);
  await user.removeRole('visitor');
  await fails(eve.get('app/node/shown').exec(), etcd3.EtcdPermissionDeniedError);
  await user.setPassword('other');
  await user.delete();
  await role.delete();
  await fails(root.role('visitor').permissions(), etcd3.EtcdRoleNotFoundError);
  eve.close();
}

async function certificate_is_a_login() {
  const named = new etcd3.Etcd3(options());
  await named.put('app/node/by-certificate').value('1');
  equal(await space.get('by-certificate'), '1');
  await fails(named.put('root-only').value('').exec(), etcd3.EtcdPermissionDeniedError);
  named.close();
}

run(
  [put_and_get, large_value, ranges, deletes, transactions, software_transactions, watches, watch_of_the_past, watch_progress,
    leases, lease_expiry, locks, elections, cluster, maintenance, watch_resumes],
  [wrong_password, forbidden, no_login, users_and_roles],
  [certificate_is_a_login],
).then(() => {
  client.close();
  root.close();
  process.exit(0);
});
