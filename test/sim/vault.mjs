// vault.mjs: what the tests with simulated providers do to the extension, and how
// they say what they found (TAP).
//
// Environment: PGHOST PGPORT PGUSER (a superuser); ASSERTIONS (JSON: person ->
// assertion); SIM_PORT and SIM_CONTROL (server.mjs); CA (file).
import { createRequire } from 'node:module';
import { browse, callApi, control } from './client.mjs';
const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Pool } = require('pg');

export { control };
const assertions = JSON.parse(process.env.ASSERTIONS);
const app = new Pool({ user: 'app', database: 'postgres', max: 8 });
export const dba = new Pool({ database: 'postgres', max: 4 });
export const finish = () => Promise.all([app.end(), dba.end()]);

export class Broken extends Error {}
let count = 0;
export function say(condition, claim, found) {
  count += 1;
  console.log(`${condition ? 'ok' : 'not ok'} ${count} - ${claim}`);
  if (!condition) console.log(`# found: ${typeof found === 'string' ? found : JSON.stringify(found)}`);
  return condition;
}
export const plan = () => console.log(`1..${count}`);

export async function until(what, probe, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Broken(`waited for ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

// What a call ends with: the row, or the SQLSTATE in code
export const ending = (promise) => promise.then((row) => ({ code: '00000', ...row }),
  ({ code, message, detail }) => ({ code, message, detail: detail && JSON.parse(detail) }));

// One person at one provider, whose description is p (GET /providers)
export class Person {
  constructor(p, user = 'ada') {
    Object.assign(this, { p, user, connector: p.id });
  }

  // OV021 says: try again (the audit writer may have held the row for a moment)
  async ask(text, values = [], tries = 5) {
    try {
      return (await app.query(text, [...values, assertions[this.user]])).rows[0];
    } catch (error) {
      if (error.code !== 'OV021' || tries === 1) throw error;
      return this.ask(text, values, tries - 1);
    }
  }

  static register(p) {
    const c = p.connect;
    return dba.query('SELECT oauth_vault.oauth_create_connector($1, $2, $3, $4, $5, scopes => $6, params => $7, issuer => $8)',
      [p.id, c.provider, c.clientId, c.secret, c.redirect, c.scopes, c.params ?? {}, c.issuer ?? null]);
  }

  begin(params = this.p.connect.begin ?? {}, scopes = null) {
    return this.ask('SELECT authorization_url, state FROM oauth_vault.oauth_begin($1, params => $2, scopes => $3, assertion => $4)', [this.connector, params, scopes]);
  }

  // The browser's way: where the provider sends it back to
  async away() {
    const begun = await this.begin();
    const { location, page } = await browse(begun.authorization_url, this.user);
    return { ...begun, location, page };
  }

  back({ location, state }) {
    const columns = 'connection_id, status, provider_subject, scopes, expires_at';
    if (!this.p.unnamedState) return this.ask(`SELECT ${columns} FROM oauth_vault.oauth_callback($1, assertion => $2)`, [location]);
    // the application remembers whom it sent away
    const { code, ...params } = Object.fromEntries(new URL(location).searchParams);
    return this.ask(`SELECT ${columns} FROM oauth_vault.oauth_complete($1, $2, params => $3, assertion => $4)`, [state, code, params]);
  }

  async consent() {
    const sent = await this.away();
    if (!sent.location) throw new Broken(`${sent.page} at ${sent.authorization_url}`);
    return this.back(sent);
  }

  token(minTtl = null, scopes = null) {
    return this.ask('SELECT oauth_vault.oauth_fresh_token($1, min_ttl => $2, scopes => $3, assertion => $4) AS token', [this.connector, minTtl, scopes]);
  }

  async credential() {
    const found = await this.ask('SELECT * FROM oauth_vault.oauth_credential($1, assertion => $2)', [this.connector]);
    found.headers = { ...this.p.connect.application, ...found.headers };
    return found;
  }

  use(credential) { return callApi(credential, credential.api_base ?? `https://${this.p.api.host}`); }

  connection() {
    return this.ask(`SELECT c.* FROM oauth_vault.oauth_identify($2) i,
      LATERAL (SELECT * FROM oauth_vault.oauth_connections WHERE connector = $1) c`, [this.connector]);
  }

  // As if the token had been issued long ago and its time were nearly over, yet not
  // over: where a live token is exchanged for the next, it must be alive.
  async age(seconds = 3600) {
    const { rowCount } = await dba.query(`UPDATE oauth_vault.connection c SET issued_at = now() - make_interval(secs => $2),
        expires_at = now() + interval '4 minutes', refresh_at = NULL, attempts = 0
      FROM oauth_vault.connector k WHERE k.connector_id = c.connector_id AND k.name = $1 AND c.user_id = $3 AND c.status = 'active'`,
    [this.connector, seconds, this.user]);
    if (rowCount !== 1) throw new Broken(`${rowCount} connections of ${this.user} to age`);
  }

  // A refresh that must be: the token that there is does not live long enough.
  async renew() {
    await this.age();
    return this.token('10 minutes');
  }

  async journal(kind) { return (await control('/journal', { id: this.p.id })).filter((entry) => !kind || entry.kind === kind); }

  async refusals() { return (await this.journal()).filter((entry) => entry.refused); }
}
