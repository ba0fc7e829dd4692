// pooled.mjs: many clients, few server connections.  Reads one JSON document:
//   {"host", "port", "user", "people": {"ada": {"assertion", "token"}, ...},
//    "clients": 20, "transactions": 20, "seed": 1}
// Every client runs transactions of random kinds as random people and notes
// whatever it should not have seen.  Prints {counts, wrong, backends, served}.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Client } = require('pg');
const { host, port, user, people, clients, transactions, seed } = JSON.parse(readFileSync(0, 'utf8'));
const names = Object.keys(people);
const counts = {}, wrong = [], backends = new Map(), served = {};
const V = 'oauth_vault';

function randomizer(state) {
  return (n) => {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    return (state >> 8) % n;
  };
}

async function one(client, text, values) {
  const { rows } = await client.query({ text, values, rowMode: 'array' });
  return rows[0]?.[0];
}
async function state(client, text, values) {
  try {
    await client.query({ text, values });
    return 'ok';
  } catch (error) {
    return error.code;
  }
}
function expect(what, got, wanted) {
  if (String(got) !== String(wanted)) wrong.push(`${what}: ${String(got).slice(0, 20)} instead of ${String(wanted).slice(0, 20)}`);
}

// What a stranger sees: nothing.  token: also as an error.
async function nobody(client, what) {
  expect(`${what}: connections`, await one(client, `SELECT count(*) FROM ${V}.oauth_connections`), 0);
}
async function somebody(client, name, what) {
  expect(`${what}: who`, await one(client, `SELECT user_id FROM ${V}.oauth_whoami()`), name);
  expect(`${what}: connections`, await one(client, `SELECT count(*) FROM ${V}.oauth_connections`), 1);
  expect(`${what}: token`, await one(client, `SELECT ${V}.oauth_fresh_token('demo')`), people[name].token);
  served[name] = (served[name] ?? 0) + 1;
}
async function begin(client, name, how) {
  await client.query('BEGIN');
  const pid = await one(client, 'SELECT pg_backend_pid()');
  if (!backends.has(pid)) backends.set(pid, new Set());
  backends.get(pid).add(name);
  await nobody(client, `${how}, before`);
  await client.query(`SELECT ${V}.oauth_identify($1)`, [people[name].assertion]);
}

const kinds = {
  async commit(client, name) {
    await begin(client, name, 'commit');
    await somebody(client, name, 'commit');
    await client.query('COMMIT');
    await nobody(client, 'after commit');
  },
  async rollback(client, name) {
    await begin(client, name, 'rollback');
    await somebody(client, name, 'rollback');
    await client.query('ROLLBACK');
    expect('after rollback', await state(client, `SELECT ${V}.oauth_fresh_token('demo')`), 'OV001');
  },
  async error(client, name) {
    await begin(client, name, 'error');
    await somebody(client, name, 'error');
    expect('the error', await state(client, 'SELECT 1 / 0'), '22012');
    await client.query(random(2) ? 'COMMIT' : 'ROLLBACK');
    await nobody(client, 'after an error');
  },
  async savepoint(client, name, other) {
    await begin(client, name, 'savepoint');
    await client.query('SAVEPOINT s');
    await client.query(`SELECT ${V}.oauth_identify($1)`, [people[other].assertion]);
    await somebody(client, other, 'savepoint');
    await client.query('ROLLBACK TO s');
    expect('after its savepoint', await state(client, `SELECT ${V}.oauth_whoami()`), 'OV001');
    await client.query('ROLLBACK');
  },
  async forged(client, name, other) {
    await begin(client, name, 'forged');
    await client.query('SAVEPOINT s');
    const parts = people[other].assertion.split('.');
    expect('a forged assertion', await state(client, `SELECT ${V}.oauth_identify($1)`,
      [[parts[0], parts[1], people[name].assertion.split('.')[2]].join('.')]), 'OV002');
    await client.query('ROLLBACK TO s');
    expect('after a forged assertion', await state(client, `SELECT ${V}.oauth_whoami()`), 'OV001');
    await client.query('ROLLBACK');
  },
  // the client goes away in the middle; the pooler rolls back or closes
  async vanish(client, name) {
    await begin(client, name, 'vanish');
    await somebody(client, name, 'vanish');
    client.connection.stream.destroy();
    return true;
  },
  async call(client, name) {
    expect('call', await one(client, `SELECT ${V}.oauth_fresh_token('demo', assertion => $1)`, [people[name].assertion]), people[name].token);
    served[name] = (served[name] ?? 0) + 1;
    await nobody(client, 'after a call');
  },
  // two people in one transaction, and the binding between them is neither's to keep
  async calls(client, name, other) {
    await begin(client, name, 'calls');
    expect('the other, by call', await one(client, `SELECT ${V}.oauth_fresh_token('demo', assertion => $1)`, [people[other].assertion]),
      people[other].token);
    served[other] = (served[other] ?? 0) + 1;
    await somebody(client, name, 'calls');
    await client.query('COMMIT');
  },
  async callError(client, name) {
    expect('unknown connector', await state(client, `SELECT ${V}.oauth_fresh_token('nothing', assertion => $1)`, [people[name].assertion]), 'OV012');
    expect('after a failed call', await state(client, `SELECT ${V}.oauth_fresh_token('demo')`), 'OV001');
  },
  async none(client) {
    expect('nobody', await state(client, `SELECT ${V}.oauth_fresh_token('demo')`), 'OV001');
    expect('a bad assertion', await state(client, `SELECT ${V}.oauth_whoami($1)`, ['x.y.z']), 'OV002');
    await nobody(client, 'nobody');
  },
};
// half bind, half pass the assertion in the call
const binding = ['commit', 'rollback', 'error', 'savepoint', 'forged', 'vanish'];
const passing = ['call', 'call', 'calls', 'callError', 'none', 'call'];
let random = randomizer(seed);

async function run(n) {
  const mine = randomizer(seed * 1000 + n);
  let client = null;
  for (let i = 0; i < transactions; i++) {
    if (client === null) {
      client = new Client({ host, port, user, database: 'postgres' });
      client.on('error', () => {});
      await client.connect();
    }
    const kind = (mine(2) ? binding : passing)[mine(6)];
    const name = names[mine(names.length)];
    const other = names[(names.indexOf(name) + 1 + mine(names.length - 1)) % names.length];
    counts[kind] = (counts[kind] ?? 0) + 1;
    try {
      if (await kinds[kind](client, name, other)) client = null;
    } catch (error) {
      wrong.push(`${kind}: ${error.code} ${error.message}`);
      client.end().catch(() => {});
      client = null;
    }
  }
  await client?.end();
}
await Promise.all(Array.from({ length: clients }, (_, n) => run(n)));
console.log(JSON.stringify({
  counts, wrong, served,
  backends: Object.fromEntries([...backends].map(([pid, set]) => [pid, set.size])),
}));
