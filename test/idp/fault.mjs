// fault.mjs [--stdin]: an HTTPS server that answers what it is told to, on
// loopback only.
//
// Environment: PORT, CONTROL_PORT, CA_DIR (from make-ca.sh).  Prints
// "ready https://localhost:PORT" once both listeners are up; with --stdin it
// exits when its standard input closes.
//
// The control server, plain HTTP on 127.0.0.1:CONTROL_PORT:
//   POST /script   {"path": "/token", "answers": [...]}: queue answers
//   GET  /journal  the requests so far, in order: {method, path, query, headers,
//                  body, at, inFlight, status}; query (without "?") and body as
//                  they were sent; at in ms; inFlight of that path, this one
//                  included; status as answered
//   POST /reset    empty queues and journal
//
// An answer, all members optional:
//   status      200
//   headers     {name: value or array of values}; a content-length given here is
//               sent as it stands, right or wrong
//   body        a string, sent raw, or any other value, sent as JSON
//   bodyBase64  bytes
//   bodySize    a body of that many bytes
//   rawBase64   bytes in place of an HTTP answer; the connection ends after them
//   trickleMs   with rawBase64: one byte at a time, so far apart
//   delayMs     wait first, unless the client leaves
//   drop        "before" the answer, in the middle of its body ("mid-body") or
//               "after" it: close the connection
//   repeat      the number of requests that get this answer (1); -1: all further
//   limit       {requests, ms}: who comes as one more in so many ms gets 429 instead
// A path without a queued answer is answered with 404 and a JSON body.
import { readFileSync } from 'node:fs';
import { createServer as createControl } from 'node:http';
import { createServer } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const { PORT, CONTROL_PORT, CA_DIR } = process.env;
if (!PORT || !CONTROL_PORT || !CA_DIR) {
  console.error('fault.mjs: PORT, CONTROL_PORT and CA_DIR must be set');
  process.exit(2);
}

const queues = new Map(); // path -> answers
const journal = [];
const members = ['status', 'headers', 'body', 'bodyBase64', 'bodySize', 'rawBase64', 'trickleMs', 'delayMs', 'drop', 'repeat', 'limit'];
const drops = ['before', 'mid-body', 'after'];

function script({ path, answers }) {
  if (typeof path !== 'string' || !Array.isArray(answers)) throw new Error('path and answers are required');
  for (const answer of answers) {
    const unknown = Object.keys(answer).find((name) => !members.includes(name));
    if (unknown) throw new Error(`unknown member "${unknown}" in an answer`);
    if (answer.drop !== undefined && !drops.includes(answer.drop)) throw new Error(`drop is one of ${drops.join(', ')}`);
  }
  const queue = queues.get(path) ?? [];
  queue.push(...answers.map((answer) => ({ repeat: 1, ...answer })));
  queues.set(path, queue);
  return { queued: queue.length };
}

const unscripted = { status: 404, body: { error: 'not_scripted' } };

function nextAnswer(path) {
  const queue = queues.get(path) ?? [];
  if (queue.length === 0) return unscripted;
  const [answer] = queue;
  if (answer.repeat > 0) {
    answer.repeat -= 1;
    if (answer.repeat === 0) queue.shift();
  }
  return answer;
}

const inFlight = new Map(); // path -> requests without an answer yet

function limited(answer, path, at) {
  if (!answer.limit) return answer;
  const { requests, ms } = answer.limit;
  const seen = journal.filter((e) => e.path === path && e.at > at - ms).length;
  return seen > requests ? { status: 429, body: { error: 'slow_down' } } : answer;
}

async function readBody(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// True after ms; false as soon as the client is gone.
function hold(res, ms = 0) {
  if (ms <= 0) return !res.destroyed;
  return new Promise((resolve) => {
    const left = () => { clearTimeout(timer); resolve(false); };
    const timer = setTimeout(() => { res.off('close', left); resolve(true); }, ms);
    res.once('close', left);
    if (res.destroyed) left();
  });
}

function* filler(size) {
  const block = Buffer.alloc(64 * 1024, 'x');
  for (let left = size; left > 0; left -= block.length) {
    yield left >= block.length ? block : block.subarray(0, left);
  }
}

function content({ body = '', bodyBase64, bodySize }) {
  if (bodySize !== undefined) return { size: bodySize, chunks: (n) => filler(n) };
  const bytes = bodyBase64 !== undefined ? Buffer.from(bodyBase64, 'base64')
    : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  return { size: bytes.length, chunks: (n) => [bytes.subarray(0, n)] };
}

async function send(res, answer) {
  const { size, chunks } = content(answer);
  const headers = { ...answer.headers };
  const names = new Set(Object.keys(headers).map((name) => name.toLowerCase()));
  if (!names.has('content-type')) headers['content-type'] = 'application/json';
  if (!names.has('content-length') && !names.has('transfer-encoding')) headers['content-length'] = size;
  res.writeHead(answer.status ?? 200, headers);
  res.flushHeaders();

  const cut = answer.drop === 'mid-body';
  const part = cut ? Math.floor(size / 2) : size;
  if (part > 0) await pipeline(Readable.from(chunks(part), { objectMode: false }), res, { end: false });
  if (cut) {
    // After what was written has left, not instead of it.
    res.socket.end(() => res.socket?.destroy());
    return;
  }
  res.end();
  if (answer.drop === 'after') res.socket?.end();
}

// Whatever is wanted on the wire, HTTP or not
async function sendRaw(res, { rawBase64, trickleMs = 0 }) {
  const bytes = Buffer.from(rawBase64, 'base64');
  const { socket } = res;
  for (let i = 0; trickleMs > 0 && i < bytes.length; i += 1) {
    socket.write(bytes.subarray(i, i + 1));
    if (!await hold(res, trickleMs)) return;
  }
  socket.end(trickleMs > 0 ? '' : bytes);
}

async function handle(req, res) {
  const [path, query = ''] = req.url.split(/\?(.*)/s);
  const body = await readBody(req);
  const at = Date.now();
  inFlight.set(path, (inFlight.get(path) ?? 0) + 1);
  res.once('close', () => inFlight.set(path, inFlight.get(path) - 1));
  const entry = { method: req.method, path, query, headers: req.headers, body, at, inFlight: inFlight.get(path), status: null };
  journal.push(entry);
  const answer = limited(nextAnswer(path), path, at);
  entry.status = answer.status ?? 200;
  if (!await hold(res, answer.delayMs)) return;
  if (answer.drop === 'before') req.socket.destroy();
  else if (answer.rawBase64 !== undefined) await sendRaw(res, answer);
  else await send(res, answer);
}

const server = createServer({
  cert: readFileSync(`${CA_DIR}/server.pem`),
  key: readFileSync(`${CA_DIR}/server-key.pem`),
}, (req, res) => {
  // A client that gives up on an answer is what this server is for.
  handle(req, res).catch((error) => {
    if (!['ERR_STREAM_PREMATURE_CLOSE', 'ECONNRESET', 'EPIPE'].includes(error.code)) console.error(error);
    req.socket.destroy();
  });
});
// Clients keep connections; closing an idle one must not race with their next request.
server.keepAliveTimeout = 10 * 60 * 1000;

const commands = {
  'POST /script': script,
  'GET /journal': () => journal,
  'POST /reset': () => {
    queues.clear();
    journal.length = 0;
    return {};
  },
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

if (process.argv.includes('--stdin')) {
  process.stdin.on('close', () => process.exit(0)).resume();
}
const listening = (s, port) => new Promise((resolve, reject) => {
  s.once('error', reject).listen(Number(port), '127.0.0.1', resolve);
});
await Promise.all([listening(server, PORT), listening(control, CONTROL_PORT)]);
console.log(`ready https://localhost:${PORT}`);
