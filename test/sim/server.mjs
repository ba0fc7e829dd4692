// server.mjs [--stdin | --hosts]: every provider of providers/ at its real host
// names, over TLS, on one port of this machine (see resolve.c).
//
// Environment: PORT, CONTROL_PORT, CA_DIR (make-ca.sh DIR NAME... made it for the
// names that --hosts prints).  Prints "ready" once it listens; with --stdin it
// exits when its standard input closes.
//
// The control server, plain HTTP on 127.0.0.1:CONTROL_PORT:
//   GET  /providers              how each is to be registered, and what it has
//   POST /journal  {id}          its requests in order: {kind, refused, body, ...}
//   POST /kill     {id, user}    the person ends the app's access
//   POST /later    {id, seconds} its clock goes forward
//   POST /next     {id, kind, answer: [status, body, headers], held, lost}  its next answer
//                  of that kind: another; only after /release; or none, the request obeyed
//   POST /release  {id}          what is held
//   POST /live     {id, user}    what of that person's tokens still works
import { readFileSync } from 'node:fs';
import { createServer as createControl } from 'node:http';
import { createServer } from 'node:https';
import { jwks } from './engine.mjs';
import { providers } from './all.mjs';

if (process.argv.includes('--hosts')) {
  console.log([...new Set(providers.flatMap((p) => p.hosts()))].sort().join('\n'));
  process.exit(0);
}

const places = new Map();
const apis = new Map();
const put = (map, key, value) => map.set(key, [...(map.get(key) ?? []), value]);
for (const provider of providers) {
  for (const [place, entry] of provider.places()) put(places, place, entry);
  for (const host of provider.api?.hosts ?? []) put(apis, host, { provider, kind: 'api' });
  if (provider.metadata) put(places, provider.metadata.at.replace('https://', ''), { provider, kind: 'metadata' });
}
const byId = new Map(providers.map((provider) => [provider.id, provider]));

async function readBody(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// How a request carries its parameters, decided by what it says of itself
function formatOf(type, body, query) {
  if (body === '') return query === '' ? 'none' : 'query';
  if (/^application\/x-www-form-urlencoded\b/i.test(type)) return 'form';
  if (/^application\/json\b/i.test(type)) return 'json';
  return `an unknown type "${type}"`;
}

function parametersOf({ format, body, query }) {
  if (format === 'json') return JSON.parse(body);
  const found = {};
  for (const [name, value] of new URLSearchParams(format === 'form' ? body : query)) {
    if (name in found) throw new Error(`${name} is sent twice`);
    found[name] = value;
  }
  return found;
}

// Everything in a request that may be a client's name or a token
function wordsOf({ headers, format, body, query, path }) {
  const words = [...new URLSearchParams(query).values()];
  if (format === 'form') words.push(...new URLSearchParams(body).values());
  if (format === 'json') words.push(...Object.values(JSON.parse(body)).map(String));
  for (const value of Object.values(headers)) words.push(String(value), String(value).split(' ').at(-1));
  const basic = /^Basic (.+)$/.exec(headers.authorization ?? '');
  if (basic) words.push(...Buffer.from(basic[1], 'base64').toString().split(/:(.*)/s).map(decodeURIComponent));
  words.push(...path.split('/'));
  return words;
}

async function understand(req) {
  const [path, query = ''] = req.url.split(/\?(.*)/s);
  const body = await readBody(req);
  const host = (req.headers.host ?? '').replace(/:\d+$/, '');
  const format = formatOf(req.headers['content-type'] ?? '', body, query);
  const request = { method: req.method, host, path, query, body, headers: req.headers, format, user: req.headers['x-sim-user'] ?? 'somebody' };
  request.parameters = () => parametersOf(request);
  request.words = wordsOf(request);
  return request;
}

const strays = []; // requests that nobody here knows
function answer(request) {
  if (request.path.startsWith('/.well-known/') && !places.has(request.host + request.path)) return [404, { error: 'not_found' }];
  const candidates = places.get(request.host + request.path) ?? apis.get(request.host) ?? [];
  const chosen = candidates.find(({ provider }) => provider.knows(request)) ?? (candidates.length === 1 ? candidates[0] : undefined);
  if (!chosen) {
    strays.push({ method: request.method, host: request.host, path: request.path, query: request.query, body: request.body });
    return [404, { error: 'not_found' }];
  }
  if (chosen.kind === 'metadata') {
    return [200, request.path.endsWith('/jwks') ? jwks : chosen.provider.metadata.document(chosen.provider)];
  }
  request.place = chosen;
  return chosen.provider.answers(chosen.kind, request);
}

const server = createServer({
  cert: readFileSync(`${process.env.CA_DIR}/server.pem`),
  key: readFileSync(`${process.env.CA_DIR}/server-key.pem`),
}, async (req, res) => {
  let status; let body; let headers;
  try {
    const found = await answer(await understand(req));
    if (found === undefined) {
      req.socket.destroy();
      return;
    }
    [status, body, headers = {}] = found;
  } catch (error) {
    console.error(error);
    [status, body, headers] = [500, { error: 'server_error' }, {}];
  }
  const raw = typeof body === 'string' ? body : JSON.stringify(body);
  const type = raw === '' ? {} : { 'content-type': 'application/json' };
  res.writeHead(status, { ...type, 'content-length': Buffer.byteLength(raw), ...headers });
  res.end(raw);
});
server.keepAliveTimeout = 10 * 60 * 1000;

// Does a revocation prove who the client is?  Then a refusal says nothing about the token.
const provesClient = ({ revoke }) => revoke && (revoke.auth === 'its own' || !(revoke.auth ?? ['post']).includes('none') || revoke.headers?.authorization);

const describe = (p) => ({
  id: p.id, basis: p.basis, sources: p.sources ?? [], uncertain: p.uncertain ?? [], examples: Object.entries(p.example).map(([what, e]) => `${what}: ${e.source}`),
  connect: { provider: p.id, scopes: [], ...p.connect, redirect: p.redirect, clientId: p.clientId, secret: p.connect?.noSecret ? null : p.secret },
  pkce: p.pkce, refresh: p.refresh === null ? 'none' : p.refresh.exchange ? 'exchange' : 'standard', rotates: typeof p.rotates === 'function' ? 'sometimes' : p.rotates,
  dead: Array.isArray(p.dead) ? p.dead : p.dead('gone'), revoke: p.revoke !== null, wrongSecret: provesClient(p) ? p.error('invalid_client', 'wrong client or secret') : undefined, unnamedState: p.callback?.state === false, api: p.api && { host: p.api.hosts[0], templated: p.api.path !== undefined },
  fixed: p.lifetimes.fixed === true, auth: p.token.auth, format: p.token.format, minAge: p.refresh?.minAge ?? 0,
});

const commands = {
  'GET /providers': () => providers.map(describe),
  'GET /strays': () => strays,
  'POST /journal': ({ id }) => byId.get(id).journal,
  'POST /kill': ({ id, user }) => ({ killed: byId.get(id).kill(user) }),
  'POST /later': ({ id, seconds }) => ({ ahead: byId.get(id).dated += seconds }),
  'POST /next': ({ id, ...script }) => ({ queued: byId.get(id).once.push(script) }),
  'POST /release': ({ id }) => {
    byId.get(id).release();
    return {};
  },
  'POST /live': ({ id, user }) => [...byId.get(id).holders].filter(([, h]) => h.grant.user === user && !h.grant.dead && !h.dead)
    .map(([token, h]) => ({ token, kind: h.kind, number: h.number, used: h.used !== undefined })),
};
const control = createControl(async (req, res) => {
  try {
    const text = await readBody(req);
    const command = commands[`${req.method} ${req.url}`];
    if (!command) throw new Error(`no ${req.method} ${req.url}`);
    const found = command(text === '' ? {} : JSON.parse(text));
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(found));
  } catch (error) {
    res.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ error: error.message }));
  }
});

if (process.argv.includes('--stdin')) {
  process.stdin.on('close', () => process.exit(0)).resume();
}
const listening = (s, port) => new Promise((resolve, reject) => {
  s.once('error', reject).listen(Number(port), '127.0.0.1', resolve);
});
await Promise.all([listening(server, process.env.PORT), listening(control, process.env.CONTROL_PORT)]);
console.log('ready');
