// late.mjs: does anybody get a token after a revocation has committed?  Reads one
// JSON document:
//   {"direct": {host, port}, "pooled": {host, port}, "idp": PORT, "revocations": 10000,
//    "people": 8, "seed": 1, "assertions": [one for each person], "ca": DIR}
// and is the token server itself, on that port.  Each person has readers that ask
// without a pause, in every isolation level, directly and through the pooler; a
// writer revokes (or an administrator offboards), rolls back now and then, and
// connects again.  A call that was sent after the commit was acknowledged and
// brings a token is late.  Prints {revocations, offboardings, rolledBack, calls,
// tokens, late: [...], windows: {p50, p95, max}, confirmations: {...}}, in ms.
//
// window: from the acknowledged commit to the last token that a call sent before
// it still brought; 0 if none did.
import { readFileSync } from 'node:fs';
import { get } from 'node:https';
import { createRequire } from 'node:module';
import { RotatingServer } from '../idp/rotate.mjs';

const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Client } = require('pg');
const input = JSON.parse(readFileSync(0, 'utf8'));
const V = 'oauth_vault';
const ca = readFileSync(`${input.ca}/ca.pem`);
const now = () => performance.now();
let seed = input.seed;
const random = () => {
  seed = (seed * 1103515245 + 12345) & 0x7fffffff;
  return (seed >> 8) / 0x800000;
};
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

const server = new RotatingServer({
  port: input.idp,
  pair: { key: readFileSync(`${input.ca}/server-key.pem`), cert: readFileSync(`${input.ca}/server.pem`) },
  random: () => 0.5,
});
await server.listen();

async function open(where, user = 'app') {
  const client = new Client({ ...where, user, database: 'postgres' });
  client.on('error', () => {});
  await client.connect();
  return client;
}

const result = { revocations: 0, offboardings: 0, rolledBack: 0, calls: 0, tokens: 0, late: [], unexpected: [] };
const windows = [];
let left = input.revocations;

// Until something has changed about the person: a round, a call that has ended
const changed = (person) => new Promise((resolve) => { person.watching.push(resolve); });
const tell = (person) => { for (const resolve of person.watching.splice(0)) resolve(); };

// ---- readers ----

const ask = `SELECT ${V}.oauth_fresh_token('strict', assertion => $1) AS token`;
const refusals = new Set(['OV010', 'OV012', 'OV070', '40001']);

// One call; what it brings belongs to the round in which it was sent.
async function call(client, person, how) {
  const { round } = person;
  if (round === null) return false;
  const sent = now();
  result.calls += 1;
  try {
    await client.query(ask, [person.assertion]);
  } catch (error) {
    if (!refusals.has(error.code)) result.unexpected.push(`${how}: ${error.code} ${error.message}`);
    return false;
  }
  result.tokens += 1;
  if (round.over !== null && sent > round.over) {
    result.late.push(`${how}: sent ${(sent - round.over).toFixed(2)} ms after the commit of round ${round.n} of ${person.name}`);
  }
  round.last = now();
  return true;
}

const modes = {
  async autocommit(client, person, how) { await call(client, person, how); },
  async 'read committed'(client, person, how) { await inside(client, person, how, ''); },
  async 'repeatable read'(client, person, how) { await inside(client, person, how, 'ISOLATION LEVEL REPEATABLE READ'); },
  async 'serializable read only'(client, person, how) {
    await inside(client, person, how, 'ISOLATION LEVEL SERIALIZABLE READ ONLY');
  },
};
// Several calls in one transaction, whose snapshot gets old meanwhile.
async function inside(client, person, how, mode) {
  await client.query(`BEGIN ${mode}`);
  await client.query('SELECT count(*) FROM pg_class');
  for (let i = 0; i < 20; i += 1) if (!await call(client, person, how)) break;
  await client.query('ROLLBACK');
}

async function read(person, where, mode) {
  const client = await open(input[where]);
  const how = `${mode}, ${where}`;
  while (!person.done) {
    if (person.round === null) {
      await changed(person); // between two rounds
      continue;
    }
    person.reading += 1;
    await modes[mode](client, person, how);
    person.reading -= 1;
    // enough calls after the commit to see one that is late
    if (person.round?.over) person.after += 1;
    tell(person);
  }
  await client.end();
}

// ---- the person's own rounds ----

// OV021, somebody holds a table or a row (autovacuum, for instance): try again, from the start
async function consent(client, person, tries = 20) {
  try {
    await consentOnce(client, person);
  } catch (error) {
    if (error.code !== 'OV021' || tries === 1) throw error;
    await consent(client, person, tries - 1);
  }
}
async function consentOnce(client, person) {
  const { rows: [{ authorization_url: url }] } = await client.query(
    `SELECT authorization_url FROM ${V}.oauth_begin('strict', login_hint => $1, assertion => $2)`,
    [person.name, person.assertion]);
  const callback = await new Promise((resolve, reject) => {
    get(url, { ca, agent: false }, (response) => resolve(response.headers.location)).on('error', reject);
  });
  await client.query(`SELECT status FROM ${V}.oauth_callback($1, assertion => $2)`, [callback, person.assertion]);
}

async function live(person) {
  const client = await open(input.direct);
  const admin = await open(input.direct, 'dba');
  for (let n = 0; left > 0; n += 1) {
    left -= 1;
    await consent(client, person);
    person.after = 0;
    person.round = { n, over: null, last: 0 };
    tell(person);
    await sleep(random() * 8);
    if (random() < 0.1) {
      await client.query('BEGIN');
      await client.query(`SELECT ${V}.oauth_revoke('strict', assertion => $1)`, [person.assertion]);
      await client.query('ROLLBACK');
      result.rolledBack += 1;
      if (!await call(client, person, 'after a rollback')) result.unexpected.push('a rollback has revoked');
    }
    const offboards = random() < 0.2;
    await (offboards ? admin : client).query('BEGIN');
    if (offboards) await admin.query(`SELECT ${V}.oauth_offboard($1)`, [person.name]);
    else await client.query(`SELECT ${V}.oauth_revoke('strict', assertion => $1)`, [person.assertion]);
    await (offboards ? admin : client).query('COMMIT');
    const { round } = person;
    round.over = now();
    result[offboards ? 'offboardings' : 'revocations'] += 1;
    // until the readers have asked again, each twice on average
    while (person.after < 2 * person.readers) await changed(person);
    person.round = null;
    while (person.reading > 0) await changed(person);
    windows.push(Math.max(0, round.last - round.over));
    if (offboards) await admin.query(`SELECT ${V}.oauth_onboard($1)`, [person.name]);
  }
  person.done = true;
  tell(person);
  await client.end();
  await admin.end();
}

const people = input.assertions.map((assertion, i) => ({
  name: `person-${i}`, assertion, round: null, reading: 0, after: 0, readers: 2 * Object.keys(modes).length, done: false, watching: [],
}));
await Promise.all(people.flatMap((person) => [
  live(person),
  ...['direct', 'pooled'].flatMap((where) => Object.keys(modes).map((mode) => read(person, where, mode))),
]));

// ---- what became of them ----

const watcher = await open(input.direct, 'postgres');
const until = Date.now() + 120_000;
for (;;) {
  const { rows: [{ open: queued }] } = await watcher.query(`SELECT (SELECT count(*) FROM ${V}.revocation WHERE state = 'queued')
    + (SELECT count(*) FROM ${V}.offboarding WHERE completed_at IS NULL) AS open`);
  if (Number(queued) === 0 || Date.now() > until) break;
  await sleep(100);
}
const one = async (sql) => (await watcher.query(sql)).rows[0];
const spread = (of) => `percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM ${of}) * 1000)`;
const numbers = ([p50, p95, max]) => ({ p50: Number(p50), p95: Number(p95), max: Number(max) });
result.states = Object.fromEntries((await watcher.query(
  `SELECT state, count(*)::int AS n FROM ${V}.revocation GROUP BY state`)).rows.map(({ state, n }) => [state, n]));
result.alive = server.grants.filter((grant) => !grant.ended).length; // at the provider
const confirmed = await one(`SELECT ${spread('settled_at - requested_at')} AS t FROM ${V}.revocation`);
result.confirmations = numbers(confirmed.t);
const erased = await one(`SELECT ${spread('completed_at - requested_at')} AS t FROM ${V}.offboarding`);
result.erasures = erased.t ? numbers(erased.t) : null;
await watcher.end();
windows.sort((a, b) => a - b);
const at = (p) => Number(windows[Math.min(windows.length - 1, Math.floor(p * windows.length))].toFixed(2));
result.windows = { p50: at(0.5), p95: at(0.95), max: at(1) };
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
