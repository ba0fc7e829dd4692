// torture.mjs: refreshes under fire.  See doc/reliability.md.
//
// A cluster built with DEBUG_POINTS=1, a token server that ends a grant when a
// refresh token is used twice, people who connect, use, lock, revoke and roll
// back, and somebody who kills: workers at named points and at random instants,
// by FATAL and by SIGKILL, and the postmaster.  People leave and come back.  Meanwhile the token server fails
// in every way it knows.  At the end an account; the exit status says whether
// every lost grant is explained and nothing else went wrong.
//
// Environment: DIR (made), CA_DIR and IMPOSTOR_DIR (make-ca.sh), PORT;
// TORTURE_SECONDS (30), SEED, CONNECTIONS (90), and EXITS, KILLS, POSTMASTERS:
// the campaign ends when these many have been done, or when the time is up.  With
// EXITS=0 nobody is killed: then only an answer that was lost explains anything.
import { readFileSync } from 'node:fs';
import { get } from 'node:https';
import { RotatingServer } from '../idp/rotate.mjs';
import { Cluster, isCrash, sleep } from './cluster.mjs';

const env = (name, otherwise) => Number(process.env[name] ?? otherwise);
const { DIR, CA_DIR, IMPOSTOR_DIR } = process.env;
const port = env('PORT', 21443);
const seconds = env('TORTURE_SECONDS', 30);
const seed = env('SEED', 1 + Math.floor(Math.random() * 1e9));
const nconnections = env('CONNECTIONS', 90);
const goals = { terminate: Infinity, kill: Infinity, postmaster: Infinity };
if (process.env.EXITS) {
  goals.kill = env('KILLS', 0);
  goals.postmaster = env('POSTMASTERS', 0);
  goals.terminate = env('EXITS', 0) - goals.kill;
}

// ---- chance ----

function generator(a) { // mulberry32
  let state = a >>> 0;
  return () => {
    state = (state + 0x6D2B79F5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const chance = { server: generator(seed), people: generator(seed + 1), killer: generator(seed + 2), weather: generator(seed + 3) };
const pick = (random, list) => list[Math.floor(random() * list.length)];
function weighted(random, weights) {
  const entries = Object.entries(weights);
  let r = random() * entries.reduce((sum, [, w]) => sum + w, 0);
  for (const [name, w] of entries) {
    if (r < w) return name;
    r -= w;
  }
  return entries.at(-1)[0];
}

// ---- the stage ----

const pairOf = (dir) => ({ key: readFileSync(`${dir}/server-key.pem`), cert: readFileSync(`${dir}/server.pem`) });
const server = new RotatingServer({
  port, pair: pairOf(CA_DIR), impostor: pairOf(IMPOSTOR_DIR), random: chance.server, accessTtl: 8, lateMs: 2500,
});
const ca = readFileSync(`${CA_DIR}/ca.pem`);
const cluster = new Cluster(DIR, {
  hosts: [`localhost:${port}`, `nowhere.invalid:${port}`],
  ca: `${CA_DIR}/ca.pem`,
  settings: `
oauth_vault.http_timeout = 1500
oauth_vault.connect_timeout = 1000
oauth_vault.wait_timeout = 4000
oauth_vault.max_host_connections = 16
oauth_vault.audit = batched`,
});

const kinds = ['strict', 'retry', 'grace'];
const rulesOf = (kind) => ({
  schema: 1,
  display_name: kind,
  issuer: `${server.base}/${kind}`,
  client_auth: ['client_secret_basic'],
  authorization: { url: `${server.base}/${kind}/authorize` },
  token: { url: `${server.base}/${kind}/token` },
  refresh: {
    strict: { rotates: 'always' },
    retry: { rotates: 'always', retry_in_doubt: true },
    grace: { rotates: 'always', grace: 3600 },
    dns: { rotates: 'always', url: `https://nowhere.invalid:${port}/dns/token` },
  }[kind],
  revocation: { refresh_token: { url: `${server.base}/${kind}/revoke` } },
});

// One per person and kind.  what: connected, revoked, offboarded, or unclear after
// a crash.  floor: grants with a lower id are from before the person came back.
const people = [];
for (let i = 0; i < nconnections; i += 1) {
  people.push({ user: `person-${i}`, kind: i < 3 ? 'dns' : kinds[i % kinds.length], what: 'none', busy: false, floor: 0 });
}

const account = {
  calls: 0, tokens: 0, errors: {}, connected: 0, revoked: 0, rolledBack: 0, ended: 0, offboarded: 0, onboarded: 0, blocked: 0,
  crashes: { terminate: 0, kill: 0, postmaster: 0, error: 0 }, byPoint: {}, missed: {}, byKind: {}, weather: {}, lost: [], wrong: [],
};
const exits = []; // times
let over = false;

function wrong(what) {
  account.wrong.push(what);
  console.log(`WRONG: ${what}`);
}
const count = (table, key) => { table[key] = (table[key] ?? 0) + 1; };

// ---- losses, and why ----

const WINDOW_MS = 2500; // request timeout, and a second for storing it
const exitNear = (from, to) => exits.some((t) => t >= from && t <= to);

function explain(person, row) {
  const since = row.status_since.getTime();
  // Tokens of a later consent may have been lost with a crash: the grant in the
  // row is the one that was refreshed last.
  const lastUse = (g) => g.uses.filter((u) => u.at <= since + 50).at(-1)?.at ?? 0;
  const grant = server.grants.filter((g) => g.kind === person.kind && g.user === person.user)
    .reduce((best, g) => (best && lastUse(best) > lastUse(g) ? best : g), null);
  if (!grant) return { why: null, text: 'the server knows no grant' };
  if (row.status_reason === 'invalid_grant' && grant.ended === 'by the person') return { why: 'ended at the provider' };
  if (row.status_reason === 'rejected_by_provider' && person.rejected) return { why: 'rejected by an API' };
  if (row.status_reason !== 'refresh_outcome_unknown') {
    return { why: null, text: `reason ${row.status_reason}, since ${since}: grant ${grant.id} ${grant.ended} ${JSON.stringify(grant.uses.slice(-4))}` };
  }
  const uses = grant.uses.filter((u) => u.at <= since + 50);
  const processed = uses.filter((u) => u.processed);
  const last = processed.at(-1);
  if (last?.lost) return { why: 'the answer was lost on its way' };
  if (last && exitNear(last.at - 200, last.at + WINDOW_MS)) return { why: 'a crash before the answer was stored' };
  // Sent, or only claimed, when we were killed: the provider has not acted on it.
  const unprocessed = uses.at(-1);
  if (unprocessed && !unprocessed.processed && (unprocessed.lost || exitNear(unprocessed.at - 200, unprocessed.at + WINDOW_MS))) {
    return { why: 'a crash or a lost answer; the provider had not rotated' };
  }
  if (exitNear(since - 10_000, since)) return { why: 'a crash between claim and request' };
  return { why: null, text: `no crash near ${row.status_since.toISOString()}, last use ${JSON.stringify(last)}` };
}

const seen = new Set();
async function noteLosses(where = '', values = []) {
  const rows = await cluster.query(`SELECT c.connection_id, c.user_id, k.name AS kind, c.status_reason, c.status_since
    FROM oauth_vault.connection c JOIN oauth_vault.connector k USING (connector_id)
    WHERE c.status = 'reauth_required' ${where}`, values);
  for (const row of rows) {
    const key = `${row.connection_id} ${row.status_since.toISOString()}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const person = people.find((p) => p.user === row.user_id && p.kind === row.kind);
    const { why, text } = explain(person, row);
    account.lost.push({ kind: row.kind, why, reason: row.status_reason });
    if (!why) wrong(`${row.kind} of ${row.user_id} lost without an explanation: ${text}`);
  }
}

// ---- people ----

function consent(url) {
  return new Promise((resolve, reject) => {
    get(url, { ca, agent: false }, (response) => {
      response.resume();
      resolve(response.headers.location);
    }).on('error', () => reject(Object.assign(new Error('the browser sees an error page'), { code: 'no consent' })));
  });
}

async function connectPerson(client, person) {
  const who = cluster.assertion(person.user);
  await noteLosses('AND c.user_id = $1', [person.user]);
  const { rows: [{ authorization_url: url }] } = await client.query(
    'SELECT authorization_url FROM oauth_vault.oauth_begin($1, login_hint => $2, assertion => $3)',
    [person.kind, person.user, who]);
  const callback = await consent(url);
  await client.query('SELECT status FROM oauth_vault.oauth_callback($1, assertion => $2)', [callback, who]);
  person.what = 'connected';
  person.grant = server.latest.get(`${person.kind}/${person.user}`);
  account.connected += 1;
}

const freshToken = 'SELECT oauth_vault.oauth_fresh_token($1, assertion => $2) AS token';

// A busy machine looks at a token some time after it was given.
const GENEROUS_MS = 5000;

function checkToken(person, token) {
  const known = server.accessTokens.get(token);
  account.tokens += 1;
  if (!known) wrong(`${person.user}: a token that was never issued`);
  else if (known.grant.user !== person.user || known.grant.kind !== person.kind) {
    wrong(`${person.user}: a token of ${known.grant.user} at ${known.grant.kind}`);
  } else if (known.expires < Date.now() - GENEROUS_MS) wrong(`${person.user}: a token that has expired`);
  if (person.what === 'revoked') wrong(`${person.user}: a token of a revoked connection`);
  if (person.what === 'offboarded') wrong(`${person.user}: a token of a person who has left`);
  if (known && known.grant.id < person.floor) wrong(`${person.user}: a token from before the person left`);
}

async function useToken(client, person) {
  const { rows: [{ token }] } = await client.query(freshToken, [person.kind, cluster.assertion(person.user)]);
  checkToken(person, token);
  return token;
}

async function inTransaction(client, begin, work, end) {
  await client.query(begin);
  try {
    await work();
    await client.query(end);
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  }
}

const actions = {
  use: useToken,
  rollBack: (client, person) => inTransaction(client, 'BEGIN', () => useToken(client, person), 'ROLLBACK'),
  snapshot: (client, person) => inTransaction(client, 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY', async () => {
    await client.query('SELECT count(*) FROM pg_class');
    await useToken(client, person);
  }, 'ROLLBACK'),
  async hold(client, person) {
    const holder = await cluster.connect('postgres');
    try {
      await holder.query('BEGIN');
      await holder.query('SELECT 1 FROM oauth_vault.connection WHERE user_id = $1 FOR UPDATE', [person.user]);
      await sleep(20 + chance.people() * 400);
      await holder.query(chance.people() < 0.5 ? 'COMMIT' : 'ROLLBACK');
    } finally {
      holder.end().catch(() => {});
    }
  },
  async revoke(client, person) {
    if (person.what !== 'connected') return;
    person.what = 'unclear';
    await client.query('SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)',
      [person.kind, cluster.assertion(person.user)]);
    person.what = 'revoked';
    account.revoked += 1;
  },
  async revokeNot(client, person) {
    if (person.what !== 'connected') return;
    await inTransaction(client, 'BEGIN', () => client.query(
      'SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)',
      [person.kind, cluster.assertion(person.user)]), 'ROLLBACK');
    account.rolledBack += 1;
    const rows = await cluster.query(`SELECT c.status FROM oauth_vault.connection c JOIN oauth_vault.connector k
      USING (connector_id) WHERE user_id = $1 AND k.name = $2 AND c.status IN ('active', 'reauth_required')`,
    [person.user, person.kind]);
    if (rows.length !== 1) wrong(`${person.user}: a revocation that was rolled back has taken effect`);
  },
  // Asked again until the server answers, so that it is known what has happened.
  async offboard(client, person) {
    await cluster.query('SELECT state FROM oauth_vault.oauth_offboard($1)', [person.user]);
    person.what = 'offboarded';
    account.offboarded += 1;
  },
  async onboard(client, person) {
    person.floor = server.grants.length;
    await cluster.query('SELECT oauth_vault.oauth_onboard($1)', [person.user]);
    person.what = 'none';
    account.onboarded += 1;
  },
  async reject(client, person) {
    const token = await useToken(client, person);
    person.rejected = true;
    await client.query('SELECT oauth_vault.oauth_report_rejected($1, $2, assertion => $3)',
      [person.kind, token, cluster.assertion(person.user)]);
  },
  // The person ends the grant in the provider's own settings.
  async endAtProvider(client, person) {
    const grant = server.latest.get(`${person.kind}/${person.user}`);
    if (!grant || grant.ended || person.kind === 'dns') return;
    server.end(grant, 'by the person');
    account.ended += 1;
  },
};
const habits = {
  use: 60, rollBack: 10, snapshot: 6, hold: 6, revoke: 2, revokeNot: 3, reject: 1, endAtProvider: 0.3, offboard: 1,
};
const habitsOutside = { use: 3, onboard: 1 };

async function live() {
  let client = null;
  while (!over) {
    const person = pick(chance.people, people);
    if (person.busy) {
      await sleep(1);
      continue;
    }
    person.busy = true;
    const outside = person.what === 'offboarded';
    const what = person.what === 'none' || person.what === 'revoked' ? 'connect'
      : weighted(chance.people, outside ? habitsOutside : habits);
    account.calls += 1;
    try {
      client ??= await cluster.connect();
      await (what === 'connect' ? connectPerson : actions[what])(client, person);
    } catch (error) {
      count(account.errors, error.code ?? error.message);
      if (isCrash(error)) {
        client?.end().catch(() => {});
        client = null;
        await sleep(50);
      } else if (outside && error.code === 'OV070') account.blocked += 1;
      else if (!outside && (error.code === 'OV010' || (error.code === 'OV012' && person.what !== 'connected'))) {
        await noteLosses('AND c.user_id = $1', [person.user]);
        person.what = 'none';
      } else if (!/^(no consent|OV02[012]|OV03\d|OV04[02]|OV050|40001|55P03)$/.test(error.code)) {
        wrong(`${what} by ${person.user}: ${error.code} ${error.message} ${error.detail ?? ''}`);
      } else if (what === 'revoke') person.what = 'connected';
    }
    person.busy = false;
  }
  client?.end().catch(() => {});
}

// ---- the weather at the token server ----

const weather = {
  fair: { faults: {}, latency: [0, 40] },
  slow: { faults: { slow: 0.3 }, latency: [50, 200] },
  lossy: { faults: { drop: 0.04, cut: 0.02, late: 0.02, 'hang-up': 0.05 }, latency: [0, 60] },
  busy: { faults: { busy: 0.6 }, latency: [0, 10] },
  failing: { faults: { error: 0.25, unavailable: 0.3 }, latency: [0, 30] },
  babbling: { faults: { page: 0.2, nonsense: 0.2 }, latency: [0, 30] },
};

async function weatherChanges() {
  while (!over) {
    const now = weighted(chance.weather, {
      fair: 10, slow: 5, lossy: 4, busy: 2, failing: 2, babbling: 1, restart: 2, impostor: 1,
    });
    count(account.weather, now);
    if (now === 'restart') await server.restart(100 + chance.weather() * 400);
    else if (now === 'impostor') await server.imposed(200 + chance.weather() * 300);
    else {
      Object.assign(server, weather[now]);
      await sleep(300 + chance.weather() * 1500);
    }
  }
  Object.assign(server, weather.fair);
}

// ---- the killer ----

const transactions = [
  'claim refreshes', 'store refreshed tokens', 'complete a flow', 'store a new connection', 'begin a flow',
  'work off revocations', 'settle revocations', 'work off offboardings', 'look for refreshes in doubt', 'apply results that waited for a lock',
];
const points = [
  ...transactions.flatMap((name) => [`before commit: ${name}`, `after commit: ${name}`]),
  'request queued', 'requests sent', 'answer arrived', 'answer read', 'answers to be stored', 'before answers',
  'request taken by network worker', 'request taken by key worker', 'audit append', 'before commit of audit rows', 'after commit of audit rows', 'worker registers',
  'looks for the extension',
];
// where answers are lost, and where most can go wrong
const favourites = [
  'after commit: claim refreshes', 'requests sent', 'answer arrived', 'answers to be stored',
  'before commit: store refreshed tokens', 'after commit: store refreshed tokens', 'before answers',
];

async function gone(pid) {
  for (let i = 0; i < 2000; i += 1) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await sleep(5);
  }
  wrong(`process ${pid} does not end`);
}

async function strike(action) {
  const random = chance.killer;
  if (random() < 0.75) {
    const point = pick(random, random() < 0.5 ? favourites : points);
    const id = cluster.order(action, Math.floor(random() ** 3 * 12), point);
    const done = await cluster.waitFor(id, 1200);
    if (!done) {
      count(account.missed, point);
      return false;
    }
    exits.push(Date.now());
    count(account.byPoint, point);
    if (action === 'terminate') await gone(done.pid);
    return true;
  }
  await sleep(random() * 300);
  if (action === 'postmaster') {
    process.kill(cluster.postmaster, 'SIGKILL');
    count(account.byPoint, 'any instant');
    exits.push(Date.now());
    return true;
  }
  const kind = weighted(random, { 'network worker': 7, 'key worker': 1, 'audit writer': 1, launcher: 1 });
  const victim = (await cluster.workers()).find((w) => w.kind === kind);
  if (!victim) return false;
  try {
    process.kill(victim.pid, action === 'kill' ? 'SIGKILL' : 'SIGTERM');
  } catch {
    return false;
  }
  count(account.byPoint, `any instant (${kind})`);
  exits.push(Date.now());
  if (action === 'terminate') await gone(victim.pid);
  return true;
}

async function kill() {
  const peace = Object.values(goals).every((goal) => goal === 0);
  while (peace && !over) await sleep(100);
  while (!over) {
    const left = Object.fromEntries(Object.entries({ terminate: 30, kill: 6, postmaster: 4 })
      .filter(([action]) => account.crashes[action] < goals[action]));
    if (Object.keys(left).length === 0) break;
    const action = chance.killer() < 0.03 ? 'error' : weighted(chance.killer, left);
    if (action === 'error') {
      const id = cluster.order('error', 0, `before commit: ${pick(chance.killer, transactions)}`);
      if (await cluster.waitFor(id, 1000)) account.crashes.error += 1;
      continue;
    }
    if (!await strike(action)) continue;
    account.crashes[action] += 1;
    if (action === 'postmaster') {
      const pid = cluster.postmaster;
      if (pid) await gone(pid);
      await cluster.start();
      exits.push(Date.now());
    } else if (action === 'kill') {
      await sleep(50);
      await cluster.query('SELECT 1');
      exits.push(Date.now());
    }
    // now and then there is time to work
    if (chance.killer() < 0.15) await sleep(chance.killer() * 1000);
  }
  over = true;
}

async function progress() {
  for (let next = Date.now() + 60_000; !over; await sleep(200)) {
    if (Date.now() < next) continue;
    next += 60_000;
    console.log(`so far: ${JSON.stringify(account.crashes)}, ${account.lost.length} grants lost, ${account.wrong.length} wrong`);
  }
}

// ---- the account ----

async function settle(what, sql, ms = 60_000) {
  const until = Date.now() + ms;
  let rows;
  do {
    rows = await cluster.query(sql);
    if (rows.length === 0) return;
    await sleep(100);
  } while (Date.now() < until);
  wrong(`${what}: ${JSON.stringify(rows.slice(0, 3))} (${rows.length})`);
}

async function finalCheck() {
  await cluster.query('SELECT pg_reload_conf()'); // ends the pauses of hosts that did not answer
  await sleep(200);
  await cluster.query("UPDATE oauth_vault.revocation SET next_attempt_at = now() WHERE state = 'queued'");
  await cluster.query(`UPDATE oauth_vault.connection SET refresh_at = now(), attempts = 0 WHERE status = 'active'
    AND connector_id NOT IN (SELECT connector_id FROM oauth_vault.connector WHERE name = 'dns')`);
  await settle('claims are left open', `SELECT i.* FROM oauth_vault.intent i
    LEFT JOIN oauth_vault.connection USING (connection_id)
    LEFT JOIN oauth_vault.connector k USING (connector_id) WHERE k.name IS DISTINCT FROM 'dns'`);
  await settle('results are left in the inbox', 'SELECT * FROM oauth_vault.grant_inbox');
  await settle('revocations are left', `SELECT revocation_id, state, attempts, outcome FROM oauth_vault.revocation
    WHERE state NOT IN ('confirmed')`);
  await settle('connections are left revoking', "SELECT * FROM oauth_vault.connection WHERE status = 'revoking'");
  await cluster.query('UPDATE oauth_vault.offboarding SET next_look_at = now() WHERE completed_at IS NULL');
  await settle('offboardings are left', `SELECT * FROM oauth_vault.offboarding
    WHERE completed_at IS NULL OR completed_by <> 'outcomes'`, 120_000);
  const past = `WHERE (d.lifted_at IS NULL OR x.key_id < d.lifted_key_id) AND x.user_id = d.user_id`;
  await settle('keys of people who have left', `SELECT x.key_id, x.user_id FROM oauth_vault.vault_key x, oauth_vault.offboarding d
    ${past} AND x.kind = 'user' AND (x.destroyed_at IS NULL OR x.wrapped <> '')`);
  for (const [sealedIn, columns] of [['connection', 'access_token, x.refresh_token, x.id_token, x.superseded'],
    ['revocation', 'access_token, x.refresh_token']]) {
    await settle(`ciphertexts of people who have left, in ${sealedIn}`, `SELECT x.user_id, x.key_id
      FROM oauth_vault.${sealedIn} x, oauth_vault.offboarding d ${past} AND num_nonnulls(x.${columns}) > 0`);
  }
  await noteLosses();

  const client = await cluster.connect();
  for (const person of people) {
    const [row, ...more] = await cluster.query(`SELECT c.status, c.attempts, c.last_error, c.refresh_at IS NOT NULL AS due
      FROM oauth_vault.connection c JOIN oauth_vault.connector k USING (connector_id)
      WHERE user_id = $1 AND k.name = $2 AND c.status NOT IN ('revoking', 'revoked')`, [person.user, person.kind]);
    const { grant } = person;
    if (more.length > 0) wrong(`${person.user} has more than one live connection`);
    if (!row) {
      if (person.what === 'connected') wrong(`${person.user}: the connection is gone`);
      if ((person.what === 'revoked' || person.what === 'offboarded') && grant && !grant.ended) {
        wrong(`${person.user}: ${person.what} here, alive at the provider`);
      }
      continue;
    }
    if (person.what === 'revoked' || person.what === 'offboarded') wrong(`${person.user}: ${person.what}, and back without a consent`);
    if (row.status !== 'active') continue;
    if (!row.due) wrong(`${person.user}: active, and never to be refreshed`);
    if (person.kind === 'dns') continue;
    // With what is stored, can it be refreshed?
    await cluster.query(`UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', refresh_at = now(),
      attempts = 0 WHERE user_id = $1 AND status = 'active'`, [person.user]);
    try {
      await useToken(client, person);
    } catch (error) {
      if (error.code !== 'OV010' || grant.ended !== 'by the person') {
        wrong(`${person.user} at ${person.kind}: active, but ${error.code} ${error.message} ${error.detail}; grant ${
          grant.ended ?? 'alive'}, ${grant.uses.length} uses: ${JSON.stringify(grant.uses.slice(-3))}`);
      }
    }
  }
  await client.end();
  await noteLosses();
  if (server.grants.some((g) => g.kind === 'dns' && g.uses.length > 0)) wrong('a refresh token went to another host');
}

function judgeDoubles() {
  const result = { inWindow: 0, outside: 0 };
  for (const { grant, first, second, times } of server.doubles) {
    const excused = grant.kind !== 'strict' && grant.kind !== 'dns' && (
      first.lost || exitNear(first.at - 200, first.at + WINDOW_MS));
    if (excused) result.inWindow += 1;
    else {
      result.outside += 1;
      wrong(`a refresh token of ${grant.user} at ${grant.kind} was used ${times} times: ${
        JSON.stringify(first)}, then ${JSON.stringify(second)}`);
    }
  }
  return result;
}

const table = (o) => Object.entries(o).sort(([, a], [, b]) => b - a).map(([k, v]) => `${v} ${k}`).join(', ') || 'none';

async function main() {
  const started = Date.now();
  console.log(`torture: seed ${seed}, ${nconnections} connections, ${seconds} s`);
  await server.listen();
  await cluster.start();
  await cluster.query('CREATE EXTENSION oauth_vault');
  await cluster.query('CREATE ROLE app LOGIN IN ROLE oauth_vault_user');
  for (const kind of [...kinds, 'dns']) {
    await cluster.query('SELECT oauth_vault.oauth_set_provider($1, $2)', [kind, rulesOf(kind)]);
    await cluster.query(`SELECT oauth_vault.oauth_create_connector($1, $1, 'client', 'secret', 'https://app.example/callback',
      refresh_policy => 'eager')`, [kind]);
  }
  const end = setTimeout(() => { over = true; }, seconds * 1000);
  await Promise.all([...Array.from({ length: 8 }, live), weatherChanges(), kill(), progress()]);
  clearTimeout(end);
  cluster.withdraw();
  await finalCheck();
  const doubles = judgeDoubles();
  const crashes = account.crashes;
  const dns = people.filter((p) => p.kind === 'dns').map((p) => p.user);
  const [{ attempts }] = await cluster.query(`SELECT count(*) AS attempts FROM oauth_vault.audit
    WHERE user_id = ANY ($1) AND event = 'refresh_failed'`, [dns]);
  const processed = server.grants.reduce((sum, g) => sum + g.uses.filter((u) => u.processed).length, 0);
  const refreshes = server.grants.reduce((sum, g) => sum + g.uses.length, 0);
  const lost = {};
  for (const { kind, why } of account.lost) count(lost, `${kind}: ${why ?? 'UNEXPLAINED'}`);

  console.log(`worker exits      ${crashes.terminate + crashes.kill} (${crashes.terminate} FATAL, ${crashes.kill} kill -9)`);
  console.log(`postmaster kills  ${crashes.postmaster}; errors before a commit ${crashes.error}`);
  console.log(`at                ${table(account.byPoint)}`);
  console.log(`not reached       ${table(account.missed)}`);
  console.log(`token server      ${table(account.weather)}`);
  console.log(`connections       ${account.connected} made, ${account.revoked} revoked, ${account.rolledBack} revocations rolled back, ${
    account.ended} ended at the provider`);
  console.log(`people            ${account.offboarded} left, ${account.onboarded} came back, ${account.blocked} calls refused meanwhile`);
  console.log(`calls             ${account.calls}, ${account.tokens} tokens; errors ${table(account.errors)}`);
  console.log(`refresh requests  ${refreshes}, ${processed} acted on: ${table(server.counts)}`);
  console.log(`DNS failures      ${attempts}; TLS: ${server.refusedHandshakes ?? 0} handshakes refused`);
  console.log(`grants lost       ${account.lost.length}: ${table(lost)}`);
  console.log(`lost silently     ${account.lost.filter((l) => !l.why).length}`);
  console.log(`double uses       ${doubles.inWindow} after a crash or a lost answer, ${doubles.outside} others`);
  console.log(`wrong             ${account.wrong.length}`);
  console.log(`${account.wrong.length === 0 ? 'passed' : 'FAILED'}: seed ${seed}, ${Math.round((Date.now() - started) / 1000)} s`);
  await cluster.stop().catch(() => {});
  process.exit(account.wrong.length === 0 ? 0 : 1);
}

main().catch((error) => {
  console.error(error);
  process.exit(2);
});
