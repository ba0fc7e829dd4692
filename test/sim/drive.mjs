// drive.mjs: every provider's whole way through the real extension, several at a
// time.  Prints TAP: a line for each step of each provider.
//
// Environment: PGHOST PGPORT; ASSERTION (of the person "ada"); SIM_PORT and
// SIM_CONTROL (server.mjs); CA (file); ONLY (ids, separated by blanks).
import { createRequire } from 'node:module';
import { browse, callApi, control } from './client.mjs';
const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Pool } = require('pg');

const { ASSERTION: assertion, ONLY: only } = process.env;
const user = 'ada';
const app = new Pool({ user: 'app', database: 'postgres', max: 8 });
const dba = new Pool({ database: 'postgres', max: 2 });
let count = 0;
const one = async (pool, text, values) => (await pool.query(text, values)).rows[0];
const vault = (text, values) => one(app, text, [...values, assertion]);
const outcome = (promise) => promise.then(() => ({ code: '00000' }), ({ code, message, detail }) => ({ code, message, detail }));

class Broken extends Error {}
const say = (condition, claim, found) => {
  count += 1;
  console.log(`${condition ? 'ok' : 'not ok'} ${count} - ${claim}`);
  if (!condition) console.log(`# found: ${typeof found === 'string' ? found : JSON.stringify(found)}`);
  return condition;
};

async function until(what, seconds, probe) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Broken(`waited for ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

async function walk(p) {
  const { connect } = p;
  const step = (condition, claim, found) => {
    if (!say(condition, `${p.id}: ${claim}`, found)) throw new Broken(claim);
  };
  const journal = (kind) => control('/journal', { id: p.id }).then((all) => all.filter((entry) => entry.kind === kind));
  const refusals = async () => (await control('/journal', { id: p.id })).filter((entry) => entry.refused);
  const status = () => one(app, 'SELECT c.* FROM oauth_vault.oauth_identify($1) i, LATERAL (SELECT * FROM oauth_vault.oauth_connections WHERE connector = $2) c', [assertion, p.id]);

  async function consent() {
    const begun = await vault('SELECT authorization_url, state FROM oauth_vault.oauth_begin($1, params => $2, assertion => $3)', [p.id, connect.begin ?? {}]);
    const { location, page } = await browse(begun.authorization_url, user);
    step(location?.startsWith(connect.redirect), 'the consent page sends the browser back', `${page} at ${begun.authorization_url}`);
    let done;
    if (p.unnamedState) { // the application remembers whom it sent away
      const { code, ...params } = Object.fromEntries(new URL(location).searchParams);
      done = await vault('SELECT status FROM oauth_vault.oauth_complete($1, $2, params => $3, assertion => $4)', [begun.state, code, params]);
    } else {
      done = await vault('SELECT status FROM oauth_vault.oauth_callback($1, assertion => $2)', [location]);
    }
    step(done.status === 'active', 'the code is exchanged', done);
  }

  async function use(claim) {
    const found = await vault('SELECT * FROM oauth_vault.oauth_credential($1, assertion => $2)', [p.id]);
    if (p.api.templated) step(found.api_base, 'the API\'s address comes with the token', found.api_base);
    const answer = await callApi(found, found.api_base ?? `https://${p.api.host}`);
    step(answer.status === 200 && answer.body.whoami === user, claim, { ...answer, base: found.api_base, headers: found.headers, header: found.header_name });
    return { token: found.access_token, number: answer.body.number, found };
  }

  await consent();
  step((await refusals()).length === 0, 'nothing was refused', await refusals());
  const first = await use('the API takes the credential');

  // As if its time were nearly over: where a live token is exchanged for the next, it
  // must not be over yet.
  const aged = Math.max(3600, p.minAge + 60);
  if (p.minAge) await control('/later', { id: p.id, seconds: aged });
  const before = (await journal('refresh')).length;
  if (p.refresh === 'none') {
    const again = await use('its token is served for as long as it lives');
    step(again.token === first.token && (await journal('refresh')).length === 0, 'and there is nothing to refresh', again.number);
  } else {
    await dba.query(`UPDATE oauth_vault.connection SET issued_at = now() - make_interval(secs => $2), expires_at = now() + interval '4 minutes', refresh_at = NULL
      WHERE connector_id = (SELECT connector_id FROM oauth_vault.connector WHERE name = $1)`, [p.id, aged]);
    await vault("SELECT oauth_vault.oauth_fresh_token($1, min_ttl => '10 minutes', assertion => $2)", [p.id]);
    const sent = (await journal('refresh')).slice(before);
    step(sent.length === 1 && !sent[0].refused, 'refreshed by one request', sent);
    const next = await use('and the API takes the new one');
    step(next.token !== first.token && next.number > first.number, 'which is another', [first.number, next.number]);
  }

  // The person ends the app's access at the provider.
  const { token, found } = await use('before the person leaves');
  const { killed } = await control('/kill', { id: p.id, user });
  const answer = await callApi(found, found.api_base ?? `https://${p.api.host}`);
  step(killed > 0 && answer.body?.whoami === undefined, 'once the person has left, the API says no', answer);
  const attempts = (await journal('refresh')).length;
  const { result } = await vault('SELECT oauth_vault.oauth_report_rejected($1, $2, assertion => $3) AS result', [p.id, token]);
  step(result === 'reauth_required', 'and the provider\'s own words for it are understood', [result, (await refusals()).at(-1)?.refused]);
  const tried = (await journal('refresh')).length - attempts;
  step(tried <= 1 && (p.refresh !== 'standard' || tried === 1), 'after one attempt', tried);
  const refused = await outcome(vault('SELECT oauth_vault.oauth_fresh_token($1, assertion => $2)', [p.id]));
  step(refused.code === 'OV010' && (await journal('refresh')).length - attempts === tried, 'and none after it', refused);

  // And back, and away again, this time from our side.
  await consent();
  const last = await use('a new consent brings it back');
  await vault('SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)', [p.id]);
  const end = await until('the revocation', 20, async () => {
    const row = await status();
    return row.status === 'revoked' ? row : undefined;
  });
  step(end.provider_state === (p.revoke ? 'confirmed' : 'unsupported'), p.revoke ? 'revoked there too' : 'revocation is recorded as unsupported',
    [end.provider_state, (await refusals()).at(-1)?.refused, (await journal('revoke')).at(-1)]);
  const afterwards = await callApi(last.found, last.found.api_base ?? `https://${p.api.host}`);
  step((afterwards.body?.whoami === undefined) === p.revoke, p.revoke ? 'the API no longer takes it' : 'and the token lives until it ends', afterwards);
  step((await refusals()).length === tried + (await journal('api')).filter((e) => e.refused).length, 'nothing else was refused', (await refusals()).map((e) => [e.kind, e.refused]));
}

const { rows: built } = await dba.query('SELECT name FROM oauth_vault.oauth_providers');
const names = new Set(built.map(({ name }) => name));
const all = (await control('/providers')).filter((p) => !only || only.split(' ').includes(p.id));
const there = all.filter((p) => names.has(p.connect.provider));
const absent = all.filter((p) => !names.has(p.connect.provider));
say(built.every(({ name }) => only || all.some((p) => p.connect.provider === name)), 'every provider of the catalogue has a simulator', built);
if (!process.env.PARTIAL) say(absent.length === 0, 'and every simulator a provider', absent.map((p) => p.id));

// One walk at a time for each worker, eight workers
const passed = [];
const waiting = [...there];
async function worker() {
  for (let p = waiting.shift(); p; p = waiting.shift()) {
    try {
      const { connect } = p;
      await dba.query('SELECT oauth_vault.oauth_create_connector($1, $2, $3, $4, $5, scopes => $6, params => $7, issuer => $8)',
        [p.id, connect.provider, connect.clientId, connect.secret, connect.redirect, connect.scopes, connect.params ?? {}, connect.issuer ?? null]);
      await walk(p);
      passed.push(p);
    } catch (error) {
      if (error instanceof Broken) say(false, `${p.id}: stopped`, error.message);
      else say(false, `${p.id}: an error`, { code: error.code, message: error.message, detail: error.detail, hint: error.hint, stack: error.code ? undefined : error.stack });
      const last = (await control('/journal', { id: p.id })).filter((e) => e.refused).at(-1);
      if (last) console.log(`# last refused: ${last.kind}: ${last.refused}: ${last.method} ${last.query} ${last.body}`);
    }
  }
}
await Promise.all(Array.from({ length: 8 }, worker));
const strays = await control('/strays');
say(strays.length === 0, 'no request went where nobody is', strays);
const split = (basis) => passed.filter((p) => p.basis === basis).length;
console.log(`# ${passed.length} of ${all.length} providers pass: ${split('example')} as documented by example, ${split('prose')} as documented in prose, ${split('uncertain')} uncertain`);
console.log(`1..${count}`);
await Promise.all([app.end(), dba.end()]);
