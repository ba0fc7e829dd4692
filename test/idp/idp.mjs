// idp.mjs [--stdin]: the certified oidc-provider over TLS, on loopback only.
//
// Environment: PORT (the issuer is https://localhost:PORT), CONTROL_PORT,
// CA_DIR (from make-ca.sh), ACCESS_TOKEN_TTL in seconds (600).  Prints
// "ready ISSUER" once both listeners are up; with --stdin it exits when its
// standard input closes.
//
// The control server, plain HTTP on 127.0.0.1:CONTROL_PORT:
//   GET  /counters      requests so far: authorization_code, refresh_token,
//                       revocation, userinfo
//   GET  /secrets       every secret issued or received
//   POST /behavior      merged into the current behavior, see defaultBehavior
//   POST /reset         default behavior, counters at zero
//   POST /revoke-grant  {"sub": "ada"}: ends all grants of that person
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer as createControl } from 'node:http';
import { createServer } from 'node:https';

// The library announces its opinions of the configuration on the console.
console.info = () => {};
console.warn = () => {};
const { default: Provider, errors } = await import('oidc-provider');

const { PORT, CONTROL_PORT, CA_DIR, ACCESS_TOKEN_TTL = '600' } = process.env;
if (!PORT || !CONTROL_PORT || !CA_DIR) {
  console.error('idp.mjs: PORT, CONTROL_PORT and CA_DIR must be set');
  process.exit(2);
}
const issuer = `https://localhost:${PORT}`;

const clientSecret = 'demo: secret/with+signs';
const client = (client_id, token_endpoint_auth_method, more) => ({
  client_id,
  token_endpoint_auth_method,
  redirect_uris: ['https://app.example/callback', 'https://app.example/callback2'],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  ...more,
});
const clients = [
  client('demo', 'client_secret_basic', { client_secret: clientSecret }),
  client('demo-post', 'client_secret_post', { client_secret: clientSecret }),
  client('demo-public', 'none'),
];

const defaultBehavior = {
  delayMs: 0,           // hold token and revocation requests before they are processed
  failNext: 0,          // this many token requests fail, with ...
  failStatus: 503,
  failBody: { error: 'temporarily_unavailable' },
  retryAfter: null,     // ... and this Retry-After
  revocationStatus: 0,  // if not 0: every revocation is answered with it, and with retryAfter
  dropAfterCommit: 0,   // this many token requests are processed but not answered
  accessTokenTtl: Number(ACCESS_TOKEN_TTL),
};
const noCounters = { authorization_code: 0, refresh_token: 0, revocation: 0, userinfo: 0 };
let behavior = { ...defaultBehavior };
let counters = { ...noCounters };

// Whoever searches for these must not trip over a two-letter guess.
const secrets = new Set([clientSecret]);
function remember(...values) {
  for (const value of values) {
    if (typeof value === 'string' && value.length >= 8) secrets.add(value);
  }
}

//
// Storage.  Ids are unguessable, so one map holds all models.
//
const stored = new Map();       // "Model:id" -> payload
const grantMembers = new Map(); // grant id -> keys of what was issued under it
const sessions = new Map();     // session uid -> id
const tokenModels = new Set(['AccessToken', 'RefreshToken', 'AuthorizationCode']);

function forget(key) {
  const payload = stored.get(key);
  stored.delete(key);
  if (payload?.uid) sessions.delete(payload.uid);
  grantMembers.get(payload?.grantId)?.delete(key);
}

function forgetGrant(grantId) {
  for (const key of grantMembers.get(grantId) ?? []) stored.delete(key);
  grantMembers.delete(grantId);
}

class Adapter {
  constructor(model) { this.model = model; }

  async upsert(id, payload) {
    const key = `${this.model}:${id}`;
    stored.set(key, payload);
    if (this.model === 'Session') sessions.set(payload.uid, id);
    if (!tokenModels.has(this.model)) return;
    remember(id); // an opaque token's id is its value
    if (!payload.grantId) return;
    if (!grantMembers.has(payload.grantId)) grantMembers.set(payload.grantId, new Set());
    grantMembers.get(payload.grantId).add(key);
  }

  async find(id) { return stored.get(`${this.model}:${id}`); }

  async findByUid(uid) { return this.find(sessions.get(uid)); }

  async findByUserCode() { return undefined; }

  // The library looks first and consumes later; of two requests that both
  // looked in time, the second counts as reuse.
  async consume(id) {
    const payload = stored.get(`${this.model}:${id}`);
    if (!payload || payload.consumed) {
      if (payload) {
        forgetGrant(payload.grantId);
        forget(`Grant:${payload.grantId}`);
      }
      throw new errors.InvalidGrant(`${this.model} already used`);
    }
    payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) { forget(`${this.model}:${id}`); }

  async revokeByGrantId(grantId) { forgetGrant(grantId); }
}

setInterval(() => {
  const now = Date.now() / 1000;
  for (const [key, payload] of stored) if (payload.exp < now) forget(key);
}, 60_000).unref();

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const day = 24 * 60 * 60;
const provider = new Provider(issuer, {
  adapter: Adapter,
  clients,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  scopes: ['openid', 'offline_access', 'email', 'profile', 'api:read', 'api:write'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  findAccount: (ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, name: sub, email: `${sub}@people.example`, email_verified: true }),
  }),
  features: {
    devInteractions: { enabled: false },
    revocation: { enabled: true },
    introspection: { enabled: true },
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  responseTypes: ['code'],
  pkce: { required: () => true },
  issueRefreshToken: () => true,
  rotateRefreshToken: () => true,
  expiresWithSession: () => false,
  clientBasedCORS: () => false,
  ttl: {
    AccessToken: () => behavior.accessTokenTtl,
    AuthorizationCode: 60,
    IdToken: 60 * 60,
    Interaction: 60 * 60,
    RefreshToken: 14 * day,
    Session: 14 * day,
    Grant: 14 * day,
  },
  renderError: (ctx, out) => {
    page(ctx, 'Error', Object.entries(out).map(([k, v]) => `<p><b>${escape(k)}</b>: ${escape(v)}</p>`).join(''));
  },
});
provider.on('server_error', (ctx, error) => console.error(error));

//
// The endpoints that can be made to misbehave.
//
async function readBody(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// True after ms; false as soon as the client is gone.
function hold(ctx, ms) {
  if (ms <= 0) return !ctx.res.destroyed;
  return new Promise((resolve) => {
    const left = () => { clearTimeout(timer); resolve(false); };
    const timer = setTimeout(() => { ctx.res.off('close', left); resolve(true); }, ms);
    ctx.res.once('close', left);
    if (ctx.res.destroyed) left();
  });
}

function rememberRequest(ctx, params) {
  for (const name of ['client_secret', 'code', 'code_verifier', 'refresh_token', 'token']) {
    remember(params.get(name));
  }
  const [, basic] = /^Basic (\S+)$/i.exec(ctx.get('authorization')) ?? [];
  if (basic) {
    const pair = Buffer.from(basic, 'base64').toString();
    remember(basic, pair.slice(pair.indexOf(':') + 1));
  }
}

provider.use(async (ctx, next) => {
  const endpoint = { 'POST /token': 'token', 'POST /token/revocation': 'revocation' }[`${ctx.method} ${ctx.path}`];
  if (!endpoint) {
    if (ctx.path === '/me') {
      counters.userinfo += 1;
      remember(ctx.get('authorization').split(' ')[1]);
    }
    return next();
  }

  ctx.req.body = await readBody(ctx.req);
  const params = new URLSearchParams(ctx.req.body);
  rememberRequest(ctx, params);
  const counter = endpoint === 'token' ? params.get('grant_type') : endpoint;
  if (Object.hasOwn(counters, counter)) counters[counter] += 1;

  if (!await hold(ctx, behavior.delayMs)) {
    ctx.respond = false;
    return undefined;
  }
  if (endpoint === 'revocation' && behavior.revocationStatus) {
    ctx.status = behavior.revocationStatus;
    if (behavior.retryAfter !== null) ctx.set('retry-after', String(behavior.retryAfter));
    ctx.body = behavior.failBody;
    return undefined;
  }
  if (endpoint !== 'token') return next();

  if (behavior.failNext > 0) {
    behavior.failNext -= 1;
    ctx.status = behavior.failStatus;
    if (behavior.retryAfter !== null) ctx.set('retry-after', String(behavior.retryAfter));
    ctx.body = behavior.failBody;
    return undefined;
  }
  const drop = behavior.dropAfterCommit > 0;
  if (drop) behavior.dropAfterCommit -= 1;
  await next();
  remember(ctx.body?.access_token, ctx.body?.refresh_token, ctx.body?.id_token);
  if (drop) {
    ctx.respond = false;
    ctx.req.socket.destroy();
  }
  return undefined;
});

//
// Login and consent: two pages with one form each.
//
const escape = (value) => String(value).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function page(ctx, title, body) {
  ctx.type = 'html';
  ctx.body = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title></head>
<body><h1>${title}</h1>${body}</body></html>
`;
}

const loginForm = (action) => `
<form id="login" method="post" action="${action}">
<label>Name <input type="text" name="person" required autofocus></label>
<button type="submit">Log in</button>
</form>`;

const consentForm = (action, { client_id, scope = '' }, person) => `
<p>${escape(person)}, <b>${escape(client_id)}</b> asks for: ${escape(scope)}</p>
<form id="consent" method="post" action="${action}">
<button type="submit" name="decision" value="allow">Allow</button>
<button type="submit" name="decision" value="deny">Deny</button>
</form>`;

async function grantFor({ grantId, session, params, prompt: { details } }) {
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (details.missingOIDCScope) grant.addOIDCScope(details.missingOIDCScope.join(' '));
  if (details.missingOIDCClaims) grant.addOIDCClaims(details.missingOIDCClaims);
  return grant.save();
}

async function interactionResult(interaction, form) {
  if (interaction.prompt.name === 'login') {
    const person = form.get('person')?.trim();
    return person ? { login: { accountId: person } } : null;
  }
  switch (form.get('decision')) {
    case 'allow': return { consent: { grantId: await grantFor(interaction) } };
    case 'deny': return { error: 'access_denied', error_description: 'the person denied the request' };
    default: return null;
  }
}

provider.use(async (ctx, next) => {
  if (!/^\/interaction\/[\w-]+$/.test(ctx.path)) return next();
  let interaction;
  try {
    interaction = await provider.interactionDetails(ctx.req, ctx.res);
  } catch (error) {
    ctx.status = 400;
    return page(ctx, 'Error', `<p>${escape(error.message)}</p>`);
  }
  if (ctx.method === 'POST') {
    const result = await interactionResult(interaction, new URLSearchParams(await readBody(ctx.req)));
    if (result) {
      ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result));
      ctx.status = 303;
      return undefined;
    }
  }
  ctx.set('cache-control', 'no-store');
  return interaction.prompt.name === 'login'
    ? page(ctx, 'Log in', loginForm(ctx.path))
    : page(ctx, 'Consent', consentForm(ctx.path, interaction.params, interaction.session.accountId));
});

//
// Control.
//
function setBehavior(changes) {
  for (const name of Object.keys(changes)) {
    if (!Object.hasOwn(defaultBehavior, name)) throw new Error(`unknown behavior "${name}"`);
  }
  behavior = { ...behavior, ...changes };
  return behavior;
}

function revokeGrants(sub) {
  let revoked = 0;
  for (const [key, payload] of stored) {
    if (payload.kind === 'Grant' && payload.accountId === sub) {
      forgetGrant(payload.jti);
      forget(key);
      revoked += 1;
    }
  }
  return { revoked };
}

const commands = {
  'GET /counters': () => counters,
  'GET /secrets': () => [...secrets],
  'POST /behavior': setBehavior,
  'POST /reset': () => {
    behavior = { ...defaultBehavior };
    counters = { ...noCounters };
    return {};
  },
  'POST /revoke-grant': ({ sub }) => revokeGrants(sub),
};

const control = createControl(async (req, res) => {
  const answer = (status, body) => {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(body));
  };
  try {
    const text = await readBody(req);
    const command = commands[`${req.method} ${req.url}`];
    if (!command) return answer(404, { error: `no ${req.method} ${req.url}` });
    return answer(200, command(text === '' ? {} : JSON.parse(text)));
  } catch (error) {
    return answer(400, { error: error.message });
  }
});

const server = createServer({
  cert: readFileSync(`${CA_DIR}/server.pem`),
  key: readFileSync(`${CA_DIR}/server-key.pem`),
}, provider.callback());
// Clients keep connections; closing an idle one must not race with their next request.
server.keepAliveTimeout = 10 * 60 * 1000;

if (process.argv.includes('--stdin')) {
  process.stdin.on('close', () => process.exit(0)).resume();
}
const listening = (s, port) => new Promise((resolve, reject) => {
  s.once('error', reject).listen(Number(port), '127.0.0.1', resolve);
});
await Promise.all([listening(server, PORT), listening(control, CONTROL_PORT)]);
console.log(`ready ${issuer}`);
