// h2.mjs [--stdin]: a token endpoint that speaks HTTP/2 to whoever offers it, on
// loopback only.
//
// Environment: PORT, CONTROL_PORT, CA_DIR (from make-ca.sh); DELAY_MS (0) before a
// refresh is answered; MAX_STREAMS (100) at a time on one connection.  Prints
// "ready https://localhost:PORT"; with --stdin it exits when its standard input closes.
//
// The control server, plain HTTP on 127.0.0.1:CONTROL_PORT:
//   GET  /counts   {connections, refreshes, peak, versions, tokens}: since the start or the
//                  last reset; peak: most refreshes under way at once on one
//                  connection; versions: how many came by which version of HTTP.
//                  Client "tick" gets tokens of three seconds, and is not counted.
//   POST /reset    counts begin anew, connections stay
//   POST /goaway   tells each connection that it takes no new streams
import { readFileSync } from 'node:fs';
import { createServer as createControl } from 'node:http';
import { createSecureServer } from 'node:http2';

const { PORT, CONTROL_PORT, CA_DIR, DELAY_MS = '0', MAX_STREAMS = '100' } = process.env;
if (!PORT || !CONTROL_PORT || !CA_DIR) {
  console.error('h2.mjs: PORT, CONTROL_PORT and CA_DIR must be set');
  process.exit(2);
}

const sessions = new Set();
const underWay = new Map(); // socket -> refreshes
let serial = 0;
let counts;
const reset = () => { counts = { connections: 0, refreshes: 0, peak: 0, versions: {}, tokens: {} }; };
reset();

const server = createSecureServer({
  allowHTTP1: true,
  cert: readFileSync(`${CA_DIR}/server.pem`),
  key: readFileSync(`${CA_DIR}/server-key.pem`),
  settings: { maxConcurrentStreams: Number(MAX_STREAMS) },
});
server.on('secureConnection', () => { counts.connections += 1; });
server.on('session', (session) => {
  sessions.add(session);
  session.on('close', () => sessions.delete(session));
});
server.on('request', (request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const form = new URLSearchParams(Buffer.concat(chunks).toString());
    const tick = form.get('client_id') === 'tick';
    const refresh = form.get('grant_type') === 'refresh_token' && !tick;
    const connection = request.httpVersion === '2.0' ? request.stream.session : request.socket;
    const answer = () => {
      if (refresh) underWay.set(connection, underWay.get(connection) - 1);
      serial += 1;
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({
        access_token: `access-${serial}`, refresh_token: `refresh-${serial}`, token_type: 'Bearer', expires_in: tick ? 3 : 86400,
      }));
    };
    if (!refresh) {
      answer();
      return;
    }
    underWay.set(connection, (underWay.get(connection) ?? 0) + 1);
    counts.refreshes += 1;
    counts.tokens[form.get('refresh_token')] = (counts.tokens[form.get('refresh_token')] ?? 0) + 1;
    counts.peak = Math.max(counts.peak, underWay.get(connection));
    counts.versions[request.httpVersion] = (counts.versions[request.httpVersion] ?? 0) + 1;
    setTimeout(answer, Number(DELAY_MS));
  });
});

const control = createControl((request, response) => {
  const json = (value) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  switch (`${request.method} ${request.url}`) {
    case 'GET /counts':
      json(counts);
      break;
    case 'POST /reset':
      reset();
      json({});
      break;
    case 'POST /goaway':
      for (const session of sessions) session.close();
      json({ closed: sessions.size });
      break;
    default:
      response.writeHead(404).end();
  }
});

await new Promise((done) => { server.listen(Number(PORT), 'localhost', done); });
await new Promise((done) => { control.listen(Number(CONTROL_PORT), '127.0.0.1', done); });
console.log(`ready https://localhost:${PORT}`);
if (process.argv.includes('--stdin')) {
  process.stdin.on('close', () => process.exit(0));
  process.stdin.resume();
}
