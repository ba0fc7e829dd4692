// rotate.mjs: a token server with rotating refresh tokens, faults to order, and
// an exact ledger; over TLS on loopback, within the process of whoever imports it.
//
// Kinds of client, by the first part of the path:
//   strict, retry  a refresh token is good once; used again, the whole grant ends
//   grace          the one before the current one brings the current one again
//   never          its refresh tokens never rotate
//
// The ledger: grants -> uses.  A use says what came of it and whether its answer
// left this process whole (lost: it did not).  Whether the answer was read at the
// other end, nobody can know here.
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:https';

const sha256 = (text) => createHash('sha256').update(text).digest('base64url');
const token = (what) => `${what}-${randomBytes(24).toString('base64url')}`;
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class RotatingServer {
  // pair, impostor: {key, cert}; the latter's certificate is nobody's to trust.
  // random: () => [0, 1); faults: {name: probability} for refreshes.
  constructor({ port, pair, impostor, random, accessTtl = 600, lateMs = 3000 }) {
    Object.assign(this, { port, pair, impostor, random, accessTtl, lateMs });
    this.grants = [];
    this.refreshTokens = new Map(); // -> {grant, n}
    this.accessTokens = new Map();  // -> {grant, expires}
    this.codes = new Map();
    this.latest = new Map();        // kind/user -> grant
    this.faults = {};
    this.counts = {};               // of uses, by result
    this.doubles = [];              // {grant, first, second}
    this.latency = [0, 0];          // ms: before a refresh is processed
  }

  get base() { return `https://localhost:${this.port}`; }

  // ---- listening, and ceasing to ----

  listen(pair = this.pair) {
    this.server = createServer(pair, (req, res) => {
      this.handle(req, res).catch((error) => {
        console.error(error);
        res.destroy();
      });
    });
    this.server.keepAliveTimeout = 600_000;
    this.server.on('tlsClientError', () => { this.refusedHandshakes = (this.refusedHandshakes ?? 0) + 1; });
    return new Promise((resolve, reject) => {
      this.server.once('error', reject).listen(this.port, '127.0.0.1', resolve);
    });
  }

  close() {
    return new Promise((resolve) => {
      this.server.close(resolve);
      this.server.closeAllConnections();
    });
  }

  // Every connection breaks, whatever is under way; nobody listens for a while.
  async restart(downMs) {
    await this.close();
    await sleep(downMs);
    await this.listen();
  }

  // The same address, answered by somebody else for a while.
  async imposed(ms) {
    await this.close();
    await this.listen(this.impostor);
    await sleep(ms);
    await this.close();
    await this.listen();
  }

  // ---- requests ----

  async handle(req, res) {
    const url = new URL(req.url, this.base);
    const [, kind, what] = url.pathname.split('/');
    const chunks = [];
    for await (const chunk of req) chunks.push(chunk);
    const form = new URLSearchParams(Buffer.concat(chunks).toString());
    switch (`${req.method} ${what}`) {
      case 'GET authorize': return this.authorize(kind, url.searchParams, res);
      case 'POST revoke': return this.revoke(form, res);
      case 'POST token':
        return form.get('grant_type') === 'refresh_token'
          ? this.refresh(kind, form.get('refresh_token'), res) : this.exchange(kind, form, res);
      default: return this.answer(res, 404, { error: 'not_found' });
    }
  }

  answer(res, status, body, headers = {}) {
    res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers });
    res.end(typeof body === 'string' ? body : JSON.stringify(body));
  }

  // The person (login_hint) consents to everything at once.
  authorize(kind, query, res) {
    const code = token('code');
    this.codes.set(code, {
      kind, user: query.get('login_hint'), challenge: query.get('code_challenge'), redirect: query.get('redirect_uri'),
    });
    const back = new URLSearchParams({ code, state: query.get('state'), iss: `${this.base}/${kind}` });
    res.writeHead(302, { location: `${query.get('redirect_uri')}?${back}` }).end();
  }

  exchange(kind, form, res) {
    const code = this.codes.get(form.get('code'));
    this.codes.delete(form.get('code'));
    if (!code || code.kind !== kind || code.redirect !== form.get('redirect_uri')
      || sha256(form.get('code_verifier') ?? '') !== code.challenge) {
      return this.answer(res, 400, { error: 'invalid_grant' });
    }
    const grant = {
      id: this.grants.length, kind, user: code.user, ended: null, n: 0, current: null, pair: null, uses: [], at: Date.now(),
    };
    this.grants.push(grant);
    this.latest.set(`${kind}/${code.user}`, grant);
    return this.answer(res, 200, this.issue(grant));
  }

  issue(grant) {
    return this.answerFor(grant, grant.kind !== 'never' || grant.current === null);
  }

  // A new access token, and a new refresh token or the current one.
  answerFor(grant, rotates) {
    const refresh = rotates ? token('refresh') : grant.current;
    const access = token('access');
    if (rotates) {
      grant.n += 1;
      grant.current = refresh;
      this.refreshTokens.set(refresh, { grant, n: grant.n });
    }
    this.accessTokens.set(access, { grant, expires: Date.now() + this.accessTtl * 1000 });
    grant.pair = {
      access_token: access, token_type: 'Bearer', expires_in: this.accessTtl, refresh_token: refresh,
    };
    return grant.pair;
  }

  // One of the faults, or none.
  fault() {
    let r = this.random();
    for (const [name, probability] of Object.entries(this.faults)) {
      if (r < probability) return name;
      r -= probability;
    }
    return null;
  }

  async refresh(kind, value, res) {
    const known = this.refreshTokens.get(value);
    const fault = this.fault();
    const grant = known?.grant;
    const use = { at: Date.now(), n: known?.n, result: fault ?? 'unknown', processed: false, lost: false, open: true };
    grant?.uses.push(use);
    res.once('close', () => {
      use.open = false;
      if (!res.writableFinished) use.lost = true;
      this.counts[use.result] = (this.counts[use.result] ?? 0) + 1;
    });
    if (grant) this.note(grant, use);
    const [low, high] = this.latency;
    await sleep(low + this.random() * (high - low) + (fault === 'slow' ? 400 : 0));
    if (res.destroyed && fault !== 'late') use.lost = true; // gone already; the request is acted on all the same
    switch (fault) {
      case 'hang-up': return res.destroy();
      case 'busy': return this.answer(res, 429, { error: 'slow_down' }, { 'retry-after': '1' });
      case 'error': return this.answer(res, 500, '<h1>Internal Server Error</h1>', { 'content-type': 'text/html' });
      case 'unavailable': return this.answer(res, 503, { error: 'temporarily_unavailable' });
      case 'page': return this.answer(res, 200, '<html>Welcome</html>', { 'content-type': 'text/html' });
      case 'nonsense': return this.answer(res, 200, '{"access_token": 7}');
      default:
    }
    use.result = this.process(kind, known);
    if (!['rotated', 'again', 'kept'].includes(use.result)) return this.answer(res, 400, { error: 'invalid_grant' });
    use.processed = true;
    switch (fault) {
      case 'drop':
        use.result = 'rotated, dropped';
        return res.destroy();
      case 'cut': {
        const body = JSON.stringify(grant.pair);
        use.result = 'rotated, cut';
        use.lost = true;
        res.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length });
        res.write(body.slice(0, body.length / 2));
        await sleep(5);
        return res.destroy();
      }
      case 'late':
        use.result = 'rotated, late';
        use.lost = true;
        await sleep(this.lateMs);
        return this.answer(res, 200, grant.pair);
      default:
        return this.answer(res, 200, grant.pair);
    }
  }

  // Was the token used before, or is it being used?
  note(grant, use) {
    const before = grant.uses.filter((u) => u !== use && u.n === use.n && (u.processed || u.open) && grant.kind !== 'never');
    if (before.length > 0) this.doubles.push({ grant, first: before.at(-1), second: use, times: before.length + 1 });
  }

  process(kind, known) {
    if (!known) return 'unknown';
    const { grant, n } = known;
    if (grant.ended) return 'ended';
    if (grant.kind !== kind) return 'of another client';
    if (n === grant.n) {
      this.issue(grant);
      return kind === 'never' ? 'kept' : 'rotated';
    }
    if (kind === 'grace' && n === grant.n - 1) {
      this.answerFor(grant, false);
      return 'again';
    }
    this.end(grant, 'reuse');
    return 'reuse';
  }

  end(grant, why) {
    grant.ended ??= why;
    grant.endedAt ??= Date.now();
  }

  // RFC 7009 section 2.2: 200 for a token that is not known, too
  revoke(form, res) {
    const value = form.get('token');
    const grant = (this.refreshTokens.get(value) ?? this.accessTokens.get(value))?.grant;
    if (grant) this.end(grant, 'revoked');
    this.answer(res, 200, {});
  }
}
