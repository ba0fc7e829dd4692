// server.mjs: a small backend that connects a person end to end.
//
//   GET /login?user=NAME      stands in for your own login
//   GET /connect/CONNECTOR    sends the person to the provider's consent page
//   GET /callback?...         where the provider sends them back
//   GET /userinfo/CONNECTOR   calls the provider's API for them, with a live token
//   GET /disconnect/CONNECTOR revokes
//
// Environment: PORT; PG* of the database, role with oauth_vault_user; PUBLIC_URL,
// the address that is registered as redirect URI less "/callback"; SIGNING_KEY,
// the file that oauth-vault-keyring init made; USERINFO_URL, the API to call.
import { createPrivateKey, randomBytes, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import pg from 'pg';

const { PORT, PUBLIC_URL, SIGNING_KEY, USERINFO_URL } = process.env;
const key = JSON.parse(readFileSync(SIGNING_KEY));
const privateKey = createPrivateKey({ key: key.jwk, format: 'jwk' });
const pool = new pg.Pool({ max: 5 });
const sessions = new Map(); // cookie -> user; yours lives in a store

// Who the person is, proved to the database: one short-lived assertion a request.
function assertionFor(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const body = `${part({ alg: 'EdDSA', typ: 'JWT', kid: key.jwk.kid })}.${part({
    iss: key.issuer, aud: key.audience, sub: user, iat: now, exp: now + 60, act: { sub: 'example-backend' } })}`;
  return `${body}.${sign(null, Buffer.from(body), privateKey).toString('base64url')}`;
}

// One statement, one round trip; safe in a pool because nothing stays in the session.
async function vault(text, ...values) {
  const { rows: [row] } = await pool.query(text, values);
  return row;
}

const json = (status, value) => ({ status, headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) });
const redirect = (location, headers = {}) => ({ status: 303, headers: { location, ...headers }, body: '' });

const routes = {
  login(url) {
    const id = randomBytes(16).toString('hex');
    sessions.set(id, url.searchParams.get('user') ?? 'nobody');
    return redirect('/', { 'set-cookie': `session=${id}; HttpOnly; SameSite=Lax; Path=/` });
  },

  async connect(url, user, connector) {
    const flow = await vault(
      'SELECT authorization_url FROM oauth_vault.oauth_begin($1, return_to => $2, assertion => $3)',
      connector, `/userinfo/${connector}`, assertionFor(user));
    return redirect(flow.authorization_url);
  },

  // The whole address goes in: state, code, iss, errors are the vault's to judge.
  async callback(url, user) {
    const done = await vault(
      'SELECT return_to FROM oauth_vault.oauth_callback($1, assertion => $2)',
      `${PUBLIC_URL}/callback${url.search}`, assertionFor(user));
    return redirect(done.return_to ?? '/');
  },

  async userinfo(url, user, connector) {
    const { token } = await vault(
      'SELECT oauth_vault.oauth_fresh_token($1, purpose => $2, assertion => $3) AS token',
      connector, 'show who they are', assertionFor(user));
    const answer = await fetch(USERINFO_URL, { headers: { authorization: `Bearer ${token}` } });
    // 401: the provider has ended the grant, whatever the clock says.
    if (answer.status === 401) {
      const { outcome } = await vault(
        'SELECT oauth_vault.oauth_report_rejected($1, $2, assertion => $3) AS outcome',
        connector, token, assertionFor(user));
      return json(409, { outcome });
    }
    return json(answer.status, await answer.json());
  },

  async disconnect(url, user, connector) {
    return json(200, await vault(
      'SELECT local_state, provider_state FROM oauth_vault.oauth_revoke($1, assertion => $2)',
      connector, assertionFor(user)));
  },
};

// SQLSTATEs that a person or a caller can do something about.
const statusOf = { OV001: 401, OV002: 401, OV010: 409, OV011: 409, OV012: 404, OV014: 403, OV020: 503, OV021: 503,
  OV030: 400, OV031: 403, OV050: 503 };

async function handle(request) {
  const url = new URL(request.url, PUBLIC_URL);
  const [, name, argument] = url.pathname.split('/');
  const user = sessions.get(/(?:^|; )session=(\w+)/.exec(request.headers.cookie ?? '')?.[1]);
  if (!Object.hasOwn(routes, name)) return json(404, { error: 'not found' });
  if (!user && name !== 'login') return json(401, { error: 'log in first' });
  try {
    return await routes[name](url, user, argument);
  } catch (error) {
    if (!/^OV/.test(error.code ?? '')) throw error;
    return json(statusOf[error.code] ?? 500,
      { error: error.message, code: error.code, detail: JSON.parse(error.detail ?? '{}'), hint: error.hint });
  }
}

const server = createServer(async (request, response) => {
  const { status, headers, body } = await handle(request).catch((error) => {
    console.error(error.code ?? error.name); // never the parameters
    return json(500, { error: 'internal error' });
  });
  response.writeHead(status, headers).end(body);
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${PORT}`));
