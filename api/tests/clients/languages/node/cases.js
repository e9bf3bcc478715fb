// What the suite is built on: how a cluster is reached, how verdicts are said, and how things are
// waited for. Each case is run once and reported on a line of its own; the program that reads the
// lines counts them.
'use strict';

const { readFileSync } = require('node:fs');
const { createInterface } = require('node:readline');
const { inspect, isDeepStrictEqual } = require('node:util');

const PATIENCE = 30_000;
const environment = process.env;

const access = {
  endpoints: environment.ENDPOINTS.split(','),
  members: Number(environment.MEMBERS),
  tls: environment.CA !== undefined,
  users: environment.ROOT_PASSWORD !== undefined,
  user: { username: environment.USER_NAME, password: environment.USER_PASSWORD },
  root: { username: 'root', password: environment.ROOT_PASSWORD },
};

// options are those of the library, for a user, or for nobody if need be without a name.
function options(auth, { endpoints = access.endpoints, bare = false } = {}) {
  const made = { hosts: endpoints.map(endpoint => (access.tls ? 'https://' : 'http://') + endpoint) };
  if (access.tls) {
    made.credentials = {
      rootCertificate: readFileSync(environment.CA),
      privateKey: readFileSync(bare ? environment.BARE_KEY : environment.KEY),
      certChain: readFileSync(bare ? environment.BARE_CERT : environment.CERT),
    };
  }
  if (access.users && auth !== undefined) {
    made.auth = auth;
  }
  return made;
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// restart has the first member killed, and started again.
async function restart() {
  console.log('restart');
  const { value } = await answers.next();
  equal(value, 'done');
}

function equal(got, want) {
  if (!isDeepStrictEqual(got, want)) {
    throw new Error(`got ${inspect(got)}, want ${inspect(want)}`);
  }
}

function holds(what, value) {
  if (!value) {
    throw new Error(`not so: ${what}`);
  }
}

// fails gives the error of a promise that must be rejected with a kind of error and a text.
async function fails(promise, kind, text = '') {
  let error;
  try {
    await promise;
  } catch (thrown) {
    error = thrown;
  }
  holds(`${inspect(error)} is a ${kind.name} with ${text}`, error instanceof kind && error.message.includes(text));
  return error;
}

async function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not end in time`)), PATIENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// next is the arguments of an emitter's next event of a name.
function next(emitter, name) {
  return within(name, new Promise(resolve => emitter.once(name, (...values) => resolve(values))));
}

async function eventually(what, attempt) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const value = await attempt();
    if (value) {
      return value;
    }
    holds(`${what}, in time`, Date.now() < deadline);
    await new Promise(resolve => setTimeout(resolve, 100));
  }
}

// run runs the cases of this setting.
async function run(common, login, named) {
  const cases = [...common, ...(access.users ? login : []), ...(access.users && access.tls ? named : [])];
  for (const each of cases) {
    try {
      await within(each.name, each());
      console.log(`ok ${each.name}`);
    } catch (error) {
      console.error(error);
      console.log(`FAILED ${each.name}: ${String(error).replaceAll('\n', ' ')}`);
    }
  }
  console.log('end');
}

module.exports = { access, equal, eventually, fails, holds, next, options, restart, run };
