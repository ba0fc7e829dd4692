// races.mjs: moments that chance rarely finds, at the points of a DEBUG_POINTS=1
// build.  Prints TAP.  Environment: DIR, CA_DIR, PORT.
import { readFileSync } from 'node:fs';
import { get } from 'node:https';
import { RotatingServer } from '../idp/rotate.mjs';
import { Cluster, sleep } from './cluster.mjs';

const { DIR, CA_DIR, PORT = '21443' } = process.env;
let tests = 0;
function ok(condition, claim, found = '') {
  tests += 1;
  console.log(`${condition ? 'ok' : 'not ok'} ${tests} - ${claim}`);
  if (condition) return;
  process.exitCode = 1;
  console.log(`# found: ${found}`);
}

async function until(what, ms = 15_000) {
  const end = Date.now() + ms;
  let found;
  do {
    found = await what();
    if (found) return found;
    await sleep(20);
  } while (Date.now() < end);
  return found;
}

const server = new RotatingServer({
  port: Number(PORT),
  pair: { key: readFileSync(`${CA_DIR}/server-key.pem`), cert: readFileSync(`${CA_DIR}/server.pem`) },
  random: () => 0.5,
});
const cluster = new Cluster(DIR, { hosts: [`localhost:${PORT}`], ca: `${CA_DIR}/ca.pem` });
const rules = {
  schema: 1,
  display_name: 'strict',
  issuer: `${server.base}/strict`,
  authorization: { url: `${server.base}/strict/authorize` },
  token: { url: `${server.base}/strict/token` },
  refresh: { rotates: 'always' },
  revocation: { refresh_token: { url: `${server.base}/strict/revoke` }, access_token: { url: `${server.base}/strict/revoke` } },
};

const networkWorker = async () => (await cluster.workers()).find((w) => w.kind === 'network worker')?.pid;
const answered = (promise) => promise.then((rows) => ({ rows }), (error) => ({ error }));
const workersIn = async (database) => cluster.query(`SELECT pid, backend_type FROM pg_stat_activity
  WHERE datname = $1 AND backend_type LIKE 'oauth_vault%'`, [database]);
async function in_(database, sql) {
  const client = await cluster.connect('postgres', database);
  await client.query(sql);
  await client.end();
}

await server.listen();
await cluster.start();
await cluster.query('CREATE EXTENSION oauth_vault');
await cluster.query('CREATE ROLE app LOGIN IN ROLE oauth_vault_user');
await cluster.query('SELECT oauth_vault.oauth_set_provider($1, $2)', ['strict', rules]);
await cluster.query(`SELECT oauth_vault.oauth_create_connector('strict', 'strict', 'client', 'secret',
  'https://app.example/callback', refresh_policy => 'lazy')`);

// ---- a worker that ends before it has looked for the extension ----

await cluster.admin.end();
cluster.admin = null;
await cluster.stop();
const id = cluster.order('error', 0, 'looks for the extension');
await cluster.start();
ok(await cluster.waitFor(id, 15_000), 'the first worker after a start ends before it has looked');
ok(await until(async () => (await workersIn('postgres')).length === 2), 'and is started again: the database is not taken for one without the extension',
  JSON.stringify(await workersIn('postgres')));

// ---- CREATE EXTENSION while a probe is looking ----

const probe = cluster.order('pause', 0, 'has looked for the extension');
await cluster.query('CREATE DATABASE late');
ok(await cluster.waitFor(probe, 15_000), 'a probe has looked and found nothing');
await in_('late', 'CREATE EXTENSION oauth_vault');
cluster.go();
ok(await until(async () => (await workersIn('late')).length === 2), 'an extension that was created meanwhile gets its workers',
  JSON.stringify(await workersIn('late')));

// ---- DROP DATABASE while a worker is starting there ----

cluster.stay();
const [{ pid: there }] = (await workersIn('late')).filter((w) => w.backend_type.endsWith('network worker'));
const starting = cluster.order('pause', 0, 'worker registers');
process.kill(there, 'SIGTERM');
ok(await cluster.waitFor(starting, 15_000), 'a worker is starting');
const dropper = await cluster.connect('postgres');
const dropped = answered(dropper.query('DROP DATABASE late'));
await until(async () => (await cluster.query("SELECT 1 FROM pg_stat_activity WHERE query = 'DROP DATABASE late' AND state = 'active'")).length > 0);
cluster.go();
const drop = await dropped;
ok(!drop.error, 'it does not stay in the way of DROP DATABASE', drop.error?.message);
await dropper.end();

// ---- two network workers for one database ----

async function connect(client, user) {
  const { rows: [{ authorization_url: url }] } = await client.query(
    'SELECT authorization_url FROM oauth_vault.oauth_begin($1, login_hint => $2, assertion => $3)',
    ['strict', user, cluster.assertion(user)]);
  const callback = await new Promise((resolve) => {
    get(url, { ca: readFileSync(`${CA_DIR}/ca.pem`), agent: false }, (response) => resolve(response.headers.location));
  });
  await client.query('SELECT status FROM oauth_vault.oauth_callback($1, assertion => $2)', [callback, cluster.assertion(user)]);
}
async function restartNetworkWorker() {
  const pid = await networkWorker();
  process.kill(pid, 'SIGTERM');
  await until(async () => ![undefined, pid].includes(await networkWorker()));
}

const person = await cluster.connect();
await connect(person, 'ada');

cluster.stay();
const first = cluster.order('pause', 0, 'worker registers');
process.kill(await networkWorker(), 'SIGTERM');
const paused = await cluster.waitFor(first, 15_000);
ok(paused, 'a network worker is starting');
process.kill((await cluster.workers()).find((w) => w.kind === 'launcher').pid, 'SIGTERM');
ok(await until(async () => (await workersIn('postgres')).filter((w) => w.backend_type.endsWith('network worker')).length === 2),
  'a new launcher does not know of it and starts another');
server.latency = [1500, 1500];
await cluster.query("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'");
const call = answered(person.query('SELECT oauth_vault.oauth_fresh_token($1, assertion => $2) AS token', ['strict', cluster.assertion('ada')]));
await until(async () => server.grants[0].uses.length > 0);
cluster.go();
await until(async () => !(await workersIn('postgres')).some((w) => w.pid === paused.pid));
const { rows, error } = await call;
ok(rows?.rows[0].token, 'the one that comes second leaves, and does not answer what the first is working on', error?.message);
ok(server.doubles.length === 0, 'no refresh token is used twice', JSON.stringify(server.doubles));

// ---- a request that comes while the network worker waits for the key worker ----

const bob = await cluster.connect();
await connect(bob, 'bob');
await bob.query('SELECT oauth_vault.oauth_identify($1, true)', [cluster.assertion('bob')]);
await bob.query("SELECT oauth_vault.oauth_fresh_token('strict')");
await person.query('SELECT oauth_vault.oauth_identify($1, true)', [cluster.assertion('ada')]);
server.latency = [0, 0];
await person.query("SELECT oauth_vault.oauth_fresh_token('strict')");
await restartNetworkWorker(); // which forgets the keys
await cluster.query("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE user_id = 'ada'");
await cluster.query(`UPDATE oauth_vault.connection SET issued_at = now() - interval '9 minutes',
  expires_at = now() + interval '1 minute' WHERE user_id = 'bob'`);
server.latency = [6000, 6000];
cluster.stay();
const asked = cluster.order('pause', 0, 'request taken by key worker');
const slow = answered(person.query("SELECT oauth_vault.oauth_fresh_token('strict')"));
ok(await cluster.waitFor(asked, 15_000), 'the network worker asks for a key');
await bob.query("SELECT oauth_vault.oauth_fresh_token('strict')");
cluster.go();
const usesOf = (user) => server.latest.get(`strict/${user}`).uses.length;
ok(await until(() => usesOf('bob') === 1, 4000), 'what somebody posts meanwhile is seen at once, not when the first answer comes');
await slow;

// ---- somebody is offboarded while a consent is being stored ----

server.latency = [0, 0];
const consents = await cluster.connect();
const administrator = await cluster.connect('postgres');
async function offboardedDuring(user) {
  cluster.stay();
  const storing = cluster.order('pause', 0, 'before commit: store a new connection');
  const consent = answered(connect(consents, user));
  ok(await cluster.waitFor(storing, 15_000), `the first consent of ${user} is about to be committed`);
  let decided = false;
  const offboarding = answered(administrator.query('SELECT connections FROM oauth_vault.oauth_offboard($1)', [user]))
    .then((found) => { decided = true; return found; });
  await until(async () => decided || (await cluster.query(
    "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%oauth_offboard%' AND wait_event_type = 'Lock'")).length > 0);
  ok(!decided, 'who offboards that person waits for it');
  cluster.go();
  await consent;
  const { rows: offboarded, error: refused } = await offboarding;
  ok(Number(offboarded?.rows[0]?.connections) === 1, 'and ends what it stored', refused?.message ?? JSON.stringify(offboarded?.rows));
  ok(await until(async () => server.latest.get(`strict/${user}`)?.ended === 'revoked'), 'at the provider too',
    JSON.stringify(server.latest.get(`strict/${user}`)));
}
await offboardedDuring('zoe');
await consents.end();
await administrator.end();

// ---- a provider that falls silent with many requests under way ----

await cluster.query("ALTER SYSTEM SET oauth_vault.http_timeout = '500ms'");
await cluster.query('ALTER SYSTEM SET oauth_vault.max_host_connections = 32');
await cluster.query('SELECT pg_reload_conf()');
server.latency = [0, 0];
const many = await Promise.all(Array.from({ length: 16 }, async (_, i) => {
  const client = await cluster.connect();
  await connect(client, `many-${i}`);
  return { client, user: `many-${i}` };
}));
await cluster.query("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute'");
server.latency = [3000, 3000];
const fresh = ({ client, user }) => answered(client.query(
  'SELECT oauth_vault.oauth_fresh_token($1, assertion => $2)', ['strict', cluster.assertion(user)]));
const silent = await Promise.all(many.map(fresh));
ok(silent.every((a) => a.error), 'sixteen requests find no answer', JSON.stringify(silent));
server.latency = [0, 0];
ok(await until(async () => {
  await cluster.query("UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute', attempts = 0 WHERE user_id = 'bob'");
  return !(await fresh({ client: bob, user: 'bob' })).error;
}, 12_000), 'one pause follows, not one for each of them');
for (const { client } of many) await client.end();

await bob.end();
await person.end();

// ---- a network worker that ends in the middle of an erasure ----

// A process that is killed takes the cluster down with it.
const reconnected = (user) => until(() => cluster.connect(user).catch(() => null), 30_000);

for (const point of ['before commit: settle revocations', 'after commit: settle revocations',
  'before commit: work off offboardings', 'after commit: work off offboardings']) {
  const user = `gone-${point.replace(/\W+/g, '-')}`;
  const session = await reconnected();
  const decides = await reconnected('postgres');
  await until(() => connect(session, user).then(() => true, () => false)); // the workers are starting, too
  const killed = cluster.order('kill', 0, point);
  await decides.query('SELECT oauth_vault.oauth_offboard($1)', [user]).catch(() => {});
  ok(await cluster.waitFor(killed, 15_000), `killed ${point}`);
  const erased = await until(async () => {
    try {
      // what was under way comes up again after its lease, a minute
      await cluster.query("UPDATE oauth_vault.revocation SET next_attempt_at = now() WHERE state = 'queued' AND next_attempt_at > now() + interval '5 seconds'");
      // nobody hears of an UPDATE; a decision wakes the worker
      await cluster.query("SELECT oauth_vault.oauth_alter_connector('strict')");
      const [row] = await cluster.query(`SELECT o.completed_at, o.completed_by, (SELECT count(*) FROM oauth_vault.vault_key k
          WHERE k.user_id = o.user_id AND k.destroyed_at IS NULL) AS keys
        FROM oauth_vault.offboarding o WHERE o.user_id = $1`, [user]);
      await sleep(200);
      return row?.completed_at && row.completed_by === 'outcomes' && Number(row.keys) === 0;
    } catch {
      return false; // the server is starting again
    }
  }, 30_000);
  await session.end().catch(() => {});
  await decides.end().catch(() => {});
  ok(erased && server.latest.get(`strict/${user}`).ended === 'revoked', 'the next one revokes, and erases',
    JSON.stringify(await cluster.query(`SELECT r.state, r.attempts, r.next_attempt_at - now() AS due, r.outcome, o.state AS left, o.completed_by, o.failed
      FROM oauth_vault.revocation r, oauth_vault.oauth_offboarding o WHERE r.offboarding_id = o.offboarding_id AND o.user_id = $1`, [user])));
}

await cluster.stop();
console.log(`1..${tests}`);
process.exit();
