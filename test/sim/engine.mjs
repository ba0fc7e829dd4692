// engine.mjs: an authorization server and an API, as strict as a description says.
//
// A description (providers/*.mjs) holds what a provider documents about the wire:
// written from its documentation and from nothing of this project's catalogue.
// What it does not mention is as in RFC 6749 section 4.1 and 6.  A request that
// the provider would refuse is refused here in the provider's own spelling, and
// kept with the reason, so that a test can ask whether anything was refused.
//
// Members of a description, all but id, basis, sources, authorize and token optional:
//   basis        'prose' (documented in words) or 'uncertain'; 'example' for those whose
//                documented requests and answers are replayed (examples.mjs)
//   sources      where it is documented
//   uncertain    what is not certain
//   connect      {provider, params, begin, scopes, issuer, allow, redirect, application}: how a
//                site registers; application: headers that it adds to its API calls itself
//   authorize    {at, need, never, names, responseType, redirect, scope}
//   pkce         'required', 'optional' (default), 'ignored' or 'refused'
//   callback     {code, state, makeCode(user), extra(grant, query), signed(parameters), end}
//   token        {at, method, auth, format, names, grant, need, never, headers, redirect}
//   exchanged    {at, answer}: a second step that makes the token long-lived
//   refresh      null: none; members that differ from token
//   tokens       {access, refresh}: how tokens begin, or functions
//   answer, renewed   (t, grant) => the body of an answer
//   rotates, grace, accessDies, lifetimes {access, refresh, fixed}
//   shared       (grant) => the chain of tokens that it has with others
//   error        (code, description) => [status, body]; dead: [status, body]
//   api          {hosts, path(grant), header, scheme, need, denied}
//   lookups      [{at, scheme, answer(grant)}]
//   revoke       null: none; {at, method, auth, format, names, kinds, need, answer, kills}
import { createHash, createHmac, generateKeyPairSync, randomBytes, sign } from 'node:crypto';

import { examples } from './examples.mjs';

const idKey = generateKeyPairSync('rsa', { modulusLength: 2048 });
const b64 = (value) => Buffer.from(value).toString('base64url');
const sha256 = (text) => createHash('sha256').update(text).digest('base64url');
const random = (bytes = 12) => randomBytes(bytes).toString('hex');

export const jwks = { keys: [{ ...idKey.publicKey.export({ format: 'jwk' }), kid: 'sim', alg: 'RS256', use: 'sig' }] };
export function jwt(claims, header = {}) {
  const input = `${b64(JSON.stringify({ alg: 'RS256', kid: 'sim', ...header }))}.${b64(JSON.stringify(claims))}`;
  return `${input}.${sign('RSA-SHA256', Buffer.from(input), idKey.privateKey).toString('base64url')}`;
}
export const hmac = (key, text) => createHmac('sha256', key).update(text).digest('hex');

// The answer of RFC 6749 section 5.1
export const bearer = (t) => ({
  access_token: t.access, token_type: 'Bearer', ...(t.expiresIn && { expires_in: t.expiresIn }),
  ...(t.refresh && { refresh_token: t.refresh }),
});
// Where an app's settings decide, or nobody knows: every other time
export const sometimes = (grant) => grant.issued % 2 === 1;
export const scoped = (separator = ' ') => (t) => ({ ...bearer(t), scope: t.scopes.join(separator) });

class Refusal extends Error {
  constructor(code, reason, answer) {
    super(reason);
    Object.assign(this, { code, answer });
  }
}
const refuse = (code, reason, answer) => { throw new Refusal(code, reason, answer); };
const demand = (condition, code, reason) => { if (!condition) refuse(code, reason); };

function parameters(text, where) {
  const found = {};
  for (const [name, value] of new URLSearchParams(text)) {
    demand(!(name in found), 'invalid_request', `${name} is in the ${where} twice`);
    found[name] = value;
  }
  return found;
}

const defaults = {
  pkce: 'optional', rotates: 'never', grace: 0, lifetimes: {}, tokens: {}, lookups: [], revoke: null,
  answer: scoped(), error: (error, description) => [400, { error, error_description: description }],
  dead: [400, { error: 'invalid_grant' }],
};

export class Provider {
  constructor(description) {
    Object.assign(this, defaults, description);
    this.example = examples[this.id] ?? {};
    if (examples[this.id]) this.basis = 'example';
    this.clientId = description.connect?.clientId ?? `client-of-${this.id}`;
    this.secret = description.connect?.secret ?? `secret-of-${this.id}`;
    this.redirect = description.connect?.redirect ?? `https://app.example/callback/${this.id}`;
    this.token = { method: 'POST', auth: ['post'], format: ['form'], grant: true, ...this.token };
    if (this.refresh !== null) this.refresh = { ...this.token, need: {}, never: [], redirect: false, ...this.refresh };
    this.dated = 0; // seconds that this provider's clock is ahead
    this.codes = new Map();
    this.holders = new Map(); // token -> {grant, kind, until, ...}
    this.grants = [];
    this.journal = [];
    this.once = [];
  }

  now() { return Math.floor(Date.now() / 1000) + this.dated; }

  // Where its servers are: "host/path" and what is there.
  places() {
    const at = (kind, url, extra) => [url, { provider: this, kind, ...extra }];
    const own = [at('authorize', this.authorize.at), at('token', this.token.at)];
    if (this.exchanged?.at) own.push(at('exchanged', this.exchanged.at));
    if (this.refresh && this.refresh.at !== this.token.at) own.push(at('refresh', this.refresh.at));
    for (const lookup of this.lookups) own.push(at('lookup', lookup.at, { lookup }));
    if (this.revoke) own.push(at('revoke', this.revoke.at));
    const fill = (url) => url.replace(/\{(\w+)\}/g, (_, name) => this.values()[name]);
    return own.map(([url, place]) => [fill(url).replace(/^https:\/\//, ''), place]);
  }

  values() {
    return { client_id: this.clientId, ...this.connect?.params, ...this.connect?.begin };
  }

  hosts() {
    return [...this.places().map(([place]) => place.split('/')[0]), ...(this.api?.hosts ?? [])];
  }

  knows(request) {
    return request.words.some((word) => word === this.clientId || word === this.connect?.applicationId || this.holders.has(word));
  }

  // A test may script the next answer of a kind: another one, one that is held back
  // until it is released, one that is lost on its way.
  async answers(place, request) {
    const kind = place === 'token' && this.isRefresh(request) ? 'refresh' : place;
    const entry = { kind, method: request.method, query: request.query, body: request.body, headers: request.headers };
    this.journal.push(entry);
    const at = this.once.findIndex((script) => script.kind === kind);
    const script = at < 0 ? {} : this.once.splice(at, 1)[0];
    if (script.held) await new Promise((resolve) => { this.release = resolve; });
    if (script.answer) {
      entry.refused = 'as told';
      return script.answer;
    }
    try {
      const answer = this[`${kind}_`](request);
      return script.lost ? undefined : answer;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      entry.refused = error.message;
      return error.answer ?? this.error(error.code, error.message);
    }
  }

  // RFC 6749 section 4.1.1
  authorize_(request) {
    const { need = {}, never = [], names = {}, responseType = 'code', redirect = 'required', scope } = this.authorize;
    const query = parameters(request.query, 'query');
    const named = (name) => query[names[name] ?? name];
    demand(request.method === 'GET', 'invalid_request', 'an authorization request is a GET');
    demand(named('client_id') === (this.connect?.applicationId ?? this.clientId), 'invalid_client', 'unknown client');
    if (responseType === null) demand(query.response_type === undefined, 'invalid_request', 'response_type is not to be sent');
    else if (responseType !== 'any') demand(query.response_type === responseType, 'unsupported_response_type', 'response_type is to be code');
    const target = named('redirect_uri');
    if (redirect === 'required' || target !== undefined) {
      demand(target === (this.connect?.ruName ?? this.redirect), 'redirect_uri_mismatch', 'another redirect_uri is registered');
    }
    for (const [name, value] of Object.entries(need)) demand(query[name] === value, 'invalid_request', `${name} is to be ${value}`);
    for (const name of never) demand(!(name in query), 'invalid_request', `${name} is not known`);
    demand((query.state ?? '').length >= 16, 'invalid_request', 'state is missing or too short');

    const { param = 'scope', separator = ' ', strict = true, known: more = [] } = scope ?? {};
    if (scope === null) demand(!(param in query), 'invalid_scope', 'scopes are configured on the app');
    const scopes = scope === null ? this.connect?.granted ?? [] : (query[param] ?? '').split(separator).filter((s) => s !== '');
    if (scope !== null && strict) {
      const known = [...this.connect?.scopes ?? [], ...more];
      for (const s of scopes) demand(known.includes(s), 'invalid_scope', `unknown scope "${s}"`);
    }
    if (scope?.encoded === '%20') demand(!/[?&]scope=[^&]*\+/.test(`?${request.query}`), 'invalid_scope', 'a blank between scopes is %20');
    for (const [name, values] of Object.entries(this.authorize.also ?? {})) {
      demand(query[name] === undefined || query[name].split(',').every((s) => values.includes(s)), 'invalid_scope', `unknown ${name}`);
    }

    if (this.pkce === 'required') demand(query.code_challenge, 'invalid_request', 'code_challenge is required');
    if (this.pkce === 'refused') demand(!query.code_challenge, 'invalid_request', 'code_challenge is not known');
    if (query.code_challenge) demand(query.code_challenge_method === 'S256', 'invalid_request', 'code_challenge_method is S256');

    const shown = this.codes.size === 0 ? this.example.callback?.query : undefined;
    const code = (shown && new URLSearchParams(shown).get('code')) ?? this.callback?.makeCode?.(request.user) ?? random();
    const grant = {
      provider: this, user: request.user, scopes, query, number: this.grants.length, consented: this.now(), nonce: query.nonce,
      challenge: this.pkce === 'ignored' ? undefined : query.code_challenge, redirect: target,
    };
    this.codes.set(code, { grant, until: this.now() + 60 });
    const { code: name = 'code', state = true, extra = () => ({}), end = '' } = this.callback ?? {};
    if (shown) return [302, '', { location: `${this.redirect}?${shown}` }];
    const given = { ...(name !== null && { [name]: code }), ...(state && { state: query.state }), ...extra(grant, query, code) };
    return [302, '', { location: `${this.redirect}?${new URLSearchParams(this.callback?.signed?.(given, this) ?? given)}${end}` }];
  }

  // What came, under the provider's names for things; which way the client authenticated.
  read(request, rules) {
    const format = request.format;
    demand([].concat(rules.method).includes(request.method), 'invalid_request', `the method is ${rules.method}`);
    demand(rules.format.includes(format), 'invalid_request', `a body in ${rules.format.join(' or ')}, not ${format}`);
    if (format !== 'query' && format !== 'none') demand(request.query === '' || rules.queryToo, 'invalid_request', 'parameters in the URL');
    for (const [name, value] of Object.entries(rules.headers ?? {})) {
      const got = request.headers[name] ?? '';
      demand(value instanceof RegExp ? value.test(got) : got === value, 'invalid_request', `the header ${name} is "${got}"`);
    }
    const sent = request.parameters();
    const named = (name) => sent[rules.names?.[name] ?? name];
    for (const [name, value] of Object.entries(rules.need ?? {})) {
      demand(value instanceof RegExp ? value.test(sent[name] ?? '') : sent[name] === value, 'invalid_request', `${name} is to be ${value}`);
    }
    for (const name of rules.never ?? []) demand(!(name in sent), 'invalid_request', `${name} is not known here`);
    return { sent, named, used: this.authenticated(request, rules, named) };
  }

  authenticated(request, rules, named) {
    const header = request.headers.authorization ?? '';
    const ways = [];
    if (header.startsWith('Basic ')) ways.push('basic');
    if (named('client_secret') !== undefined) ways.push('post');
    demand(ways.length < 2, 'invalid_request', 'more than one way of client authentication');
    const way = ways[0] ?? 'none';
    if (rules.auth === 'its own') return way;
    demand(rules.auth.includes(way) || (way === 'basic' && rules.auth.includes('key')), 'invalid_client', `client authentication by ${way}`);
    if (way === 'basic') {
      const [id, secret] = Buffer.from(header.slice(6), 'base64').toString().split(/:(.*)/s);
      const right = rules.auth.includes('key') ? id === this.secret && secret === ''
        : decodeURIComponent(id) === this.clientId && decodeURIComponent(secret) === this.secret;
      demand(right, 'invalid_client', 'wrong client or secret');
    } else {
      if (way === 'post') demand(named('client_secret') === this.secret, 'invalid_client', 'wrong secret');
      if (!(rules.never ?? []).includes('client_id') && rules.anonymous !== true) {
        demand(named('client_id') === this.clientId, 'invalid_client', 'unknown client');
      }
    }
    return way;
  }

  // Where the documentation shows a request, ours has those parameters and no others.
  asDocumented(which, sent, used) {
    const shown = this.example[which];
    if (!shown) return;
    const own = Object.keys(sent).filter((name) => name !== 'code_verifier' || shown.parameters.includes(name));
    demand(used === shown.way, 'invalid_client', `the client authenticates by ${shown.way} in the documentation, not by ${used}`);
    demand(own.sort().join() === [...shown.parameters].sort().join(), 'invalid_request', `the documentation shows ${shown.parameters.join()}, and not ${own.join()}`);
  }

  // RFC 6749 sections 4.1.3 and 6
  token_(request) {
    const { named, sent, used } = this.read(request, this.token);
    this.asDocumented('exchange', sent, used);
    if (this.token.grant) {
      const wanted = this.token.grantType ?? 'authorization_code';
      const type = named('grant_type');
      demand(type === wanted || (this.token.grant === 'optional' && type === undefined), 'unsupported_grant_type', `grant_type ${type}`);
    }
    const code = named('code');
    const held = this.codes.get(code) ?? refuse('invalid_grant', `unknown code ${code}`, this.badCode);
    const { grant } = held;
    demand(!held.used, 'invalid_grant', 'the code has been used');
    demand(this.now() <= held.until, 'invalid_grant', 'the code has expired');
    held.used = true;
    if (this.token.redirect !== 'none') {
      const target = named('redirect_uri');
      demand(target === grant.redirect || (target === undefined && this.token.redirect === 'optional'), 'invalid_grant', 'another redirect_uri');
    }
    if (this.pkce === 'refused') demand(sent.code_verifier === undefined, 'invalid_request', 'code_verifier is not known');
    if (grant.challenge) demand(sha256(sent.code_verifier ?? '') === grant.challenge, 'invalid_grant', 'code_verifier does not fit');
    this.token.check?.(sent, grant, demand, request);
    grant.number = this.grants.push(grant) - 1;
    return this.given(this.issue(grant, this.exchanged ? { lifetime: this.exchanged.short } : {}), this.answer, 'answer', grant);
  }

  isRefresh(request) {
    if (!this.refresh || this.refresh.at !== this.token.at) return false;
    const sent = request.parameters();
    if (this.refresh.is) return this.refresh.is.call(this, sent);
    return sent[this.refresh.names?.grant_type ?? 'grant_type'] === 'refresh_token';
  }

  // One answer with tokens: the documented one as it stands, if it has not been given yet
  given(t, shape, which, grant) {
    const body = shape.call(this, t, grant);
    const { answer = (b) => [200, b] } = this.token;
    if (!this.example[which] || t.replayed !== which) return answer(body);
    return [200, this.example[which].body.replace(/\{\{(\w+)\}\}/g, (_, name) => t[name])];
  }

  issue(grant, { keep, lifetime = this.lifetimes.access } = {}) {
    const now = this.now();
    const chain = this.shared && !keep && grant.issued === undefined ? this.chainOf(grant) : grant;
    if (chain !== grant) {
      return { now, number: chain.issued, user: grant.user, scopes: grant.scopes, access: chain.access, refresh: chain.refresh, expiresIn: lifetime };
    }
    const number = (grant.issued = (grant.issued ?? 0) + 1);
    const make = (how, kind) => (typeof how === 'function' ? how(grant, number, this) : `${how ?? ''}${this.id}.${kind}${number}.${random()}`);
    const which = ['answer', 'renewed'][number - 1];
    const documented = grant.number === 0 ? this.example[which] : undefined;
    const t = { now, number, user: grant.user, scopes: grant.scopes, expiresIn: lifetime, id: this.id };
    if (documented) t.replayed = which;
    t.access = documented?.access ?? make(this.tokens.access, 'at');
    const life = this.lifetimes.refresh;
    const until = this.lifetimes.fixed ? grant.consented + life : now + life;
    t.refreshExpiresIn = life && until - now;
    const old = this.holders.get(t.access);
    if (old && old.grant !== grant) t.access = make(this.tokens.access, 'at');
    this.holders.set(t.access, { grant, kind: 'access', number, issued: now, until: lifetime ? now + lifetime : Infinity });
    grant.access = t.access;
    if (keep) {
      grant.refresh = keep;
      if (this.repeatsRefresh) t.refresh = keep;
    } else if (this.refresh && !this.refresh.exchange) {
      t.refresh = documented?.refresh ?? make(this.tokens.refresh, 'rt');
      this.holders.set(t.refresh, { grant, kind: 'refresh', number, until: life ? until : Infinity });
      grant.refresh = t.refresh;
    }
    return t;
  }

  // Grants with one chain of tokens: a later one is given what the first has now, and
  // what one of them refreshes is used up for all.
  chainOf(grant) {
    const key = this.shared(grant);
    const live = this.grants.find((g) => g !== grant && !g.dead && g.chainKey === key);
    grant.chainKey = key;
    return live ?? grant;
  }

  refresh_(request) {
    const rules = this.refresh;
    const { sent, named, used } = this.read(request, rules);
    this.asDocumented('refresh', sent, used);
    if (rules.exchange) return rules.exchange.call(this, { sent, request, demand, refuse: (why) => refuse('invalid_grant', why, this.dead) });
    const presented = named('refresh_token');
    const held = this.holders.get(presented);
    const die = (why) => refuse('invalid_grant', why, typeof this.dead === 'function' ? this.dead(why) : this.dead);
    if (!held || held.kind !== 'refresh') die('unknown refresh token');
    const { grant } = held;
    if (grant.dead) die('the grant is gone');
    if (this.now() > held.until) die('the refresh token has expired');
    const late = {
      'until the next is used': () => held.number < (grant.presented ?? 0), 'goes on': () => false,
    }[this.grace] ?? (() => this.now() >= held.used + this.grace);
    if (held.used !== undefined && late()) {
      if (this.reuseKills) grant.dead = true;
      die('the refresh token has been used');
    }
    rules.check?.(sent, grant, demand, request);
    const rotating = typeof this.rotates === 'function' ? this.rotates(grant, this) : this.rotates === 'always';
    if (rotating) held.used ??= this.now();
    grant.presented = Math.max(grant.presented ?? 0, held.number);
    if (this.accessDies) for (const holder of this.holders.values()) if (holder.grant === grant && holder.kind === 'access') holder.dead = true;
    return this.given(this.issue(grant, rotating ? {} : { keep: presented }), this.renewed ?? this.answer, 'renewed', grant);
  }

  // The API, or a lookup: whose token is it?
  bearerOf(request, header = 'authorization', scheme = 'Bearer') {
    const got = request.headers[header] ?? '';
    const prefix = scheme instanceof RegExp ? scheme.exec(got)[0] : scheme && `${scheme} `;
    const token = got.startsWith(prefix) ? got.slice(prefix.length) : '';
    const held = this.holders.get(token);
    const live = held?.kind === 'access' && !held.dead && !held.grant.dead && this.now() <= held.until;
    return live ? held : undefined;
  }

  api_(request) {
    const { header = 'authorization', scheme = 'Bearer', need = {}, path, denied = [401, { error: 'invalid_token' }] } = this.api;
    const held = this.bearerOf(request, header, scheme) ?? refuse('invalid_token', 'no live token', denied);
    for (const [name, wanted] of Object.entries(need)) {
      const value = typeof wanted === 'function' ? wanted(held.grant, this) : wanted;
      const got = request.headers[name] ?? '';
      if (!(value instanceof RegExp ? value.test(got) : got === value)) refuse('invalid_request', `the API wants ${name}, not "${got}"`, [400, { error: name }]);
    }
    const expected = path?.(held.grant, this);
    if (expected && !`${request.host}${request.path}`.startsWith(expected)) refuse('invalid_request', `the API is at ${expected}`, [404, { error: 'not_found' }]);
    return [200, { whoami: held.grant.user, provider: this.id, number: held.number }];
  }

  lookup_(request) {
    const held = this.bearerOf(request, 'authorization', request.place.lookup.scheme ?? 'Bearer');
    if (!held) refuse('invalid_token', 'no live token', [401, { error: 'invalid_token' }]);
    return [200, request.place.lookup.answer(held.grant, this)];
  }

  exchanged_(request) { return this.exchanged.answer.call(this, request, demand, refuse); }

  revoke_(request) {
    const rules = { method: 'POST', auth: ['post'], format: ['form'], kinds: ['refresh', 'access'], kills: 'grant', ...this.revoke };
    const { named } = this.read(request, { ...rules, anonymous: rules.auth.includes('none') });
    if (rules.own) return rules.own.call(this, request, demand, refuse);
    const token = rules.bearer ? (request.headers[rules.bearer.header ?? 'authorization'] ?? '').slice((rules.bearer.scheme ?? 'Bearer ').length) : named('token');
    const held = this.holders.get(token);
    if (!held || held.grant.dead || held.dead) return rules.gone ?? rules.answer ?? [200, ''];
    demand(rules.kinds.includes(held.kind), 'unsupported_token_type', `${held.kind} tokens are not revoked here`);
    if (rules.kills === 'token') held.dead = true;
    else held.grant.dead = true;
    return rules.answer ?? [200, ''];
  }

  // What a test does to it: the person takes the app's access away, time passes, an answer is scripted.
  kill(user) {
    const killed = this.grants.filter((grant) => grant.user === user && !grant.dead);
    for (const grant of killed) grant.dead = true;
    return killed.length;
  }

  idToken(grant, issuer, more = {}) {
    const now = Math.floor(Date.now() / 1000);
    return jwt({
      iss: issuer, aud: this.clientId, sub: grant.user, iat: now, exp: now + 3600, ...(grant.nonce && { nonce: grant.nonce }), ...more,
    });
  }
}
