// meta.mjs: Facebook, Instagram and Threads: no refresh tokens; a live access
// token is exchanged for one that lives longer.
import { bearer } from '../engine.mjs';

const gone = [400, {
  error: { message: 'Error validating access token: The user has not authorized application.', type: 'OAuthException', code: 190, error_subcode: 458, fbtrace_id: 'A1' },
}];
const graph = 'https://graph.facebook.com/{version}';

// The token that is to be exchanged, if it still lives
function live(provider, token, refuse, minAge = 0) {
  const held = provider.holders.get(token);
  if (!held || held.dead || held.grant.dead || provider.now() > held.until) refuse('no live token to exchange');
  if (provider.now() < held.issued + minAge) refuse('the token is too young');
  return held;
}

function gram(id, { authorize, token, graph: host, prefix, scopes, answer, sources, basis, uncertain }) {
  return {
    id, basis, sources, uncertain, connect: { scopes },
    authorize: { at: authorize, scope: { separator: ',' } }, pkce: 'ignored',
    callback: { end: '#_' },
    token: { at: token },
    lifetimes: { access: 5184000 },
    answer,
    error: (code, why) => [400, { error_type: 'OAuthException', code: 400, error_message: why }],
    dead: [400, { error: { message: 'Invalid OAuth access token', type: 'OAuthException', code: 190 } }],
    exchanged: {
      at: `https://${host}/access_token`, short: 3600,
      answer(request, demand, refuse) {
        const sent = request.parameters();
        demand(request.method === 'GET', 'invalid_request', 'the exchange is a GET');
        demand(sent.grant_type === `${prefix}_exchange_token`, 'unsupported_grant_type', `grant_type ${sent.grant_type}`);
        demand(sent.client_secret === this.secret, 'invalid_client', 'wrong secret');
        const { grant } = live(this, sent.access_token, (why) => refuse('invalid_grant', why, this.dead));
        return [200, bearerOnly(this.issue(grant))];
      },
    },
    refresh: {
      at: `https://${host}/refresh_access_token`, method: 'GET', auth: ['none'], anonymous: true, format: ['query'], minAge: 86400,
      exchange({ sent, demand, refuse }) {
        demand(sent.grant_type === `${prefix}_refresh_token`, 'unsupported_grant_type', `grant_type ${sent.grant_type}`);
        demand(sent.client_secret === undefined, 'invalid_request', 'the secret has no place here');
        const { grant } = live(this, sent.access_token, refuse, 86400);
        return [200, bearerOnly(this.issue(grant))];
      },
    },
    api: { hosts: [host], denied: [400, { error: { message: 'Invalid OAuth access token', type: 'OAuthException', code: 190 } }] },
  };
}
const bearerOnly = (t) => ({ access_token: t.access, token_type: 'bearer', expires_in: 5184000 });

export default [
  {
    id: 'facebook', basis: 'uncertain', sources: ['gitroomhq/postiz-app facebook.provider.ts'],
    uncertain: ['error subcodes', 'the shape of debug_token and of the removal of permissions'],
    connect: { params: { version: 'v22.0' }, scopes: ['public_profile', 'email'] },
    authorize: { at: 'https://www.facebook.com/{version}/dialog/oauth', scope: { separator: ',' }, responseType: 'any' },
    token: { at: `${graph}/oauth/access_token`, method: ['POST', 'GET'], format: ['form', 'query'], grant: 'optional' },
    lifetimes: { access: 5184000 },
    tokens: { access: 'EAAB' },
    exchanged: { short: 5000 }, // at the token endpoint, as every renewal
    answer: bearer,
    error: (code, why) => [400, { error: { message: why, type: 'OAuthException', code: 100, fbtrace_id: 'A0' } }],
    dead: gone,
    refresh: {
      is: (sent) => sent.grant_type === 'fb_exchange_token',
      exchange({ sent, refuse }) {
        const { grant } = live(this, sent.fb_exchange_token, refuse);
        return [200, bearerOnly(this.issue(grant))];
      },
    },
    lookups: [{ at: `${graph}/me/accounts`, answer: () => ({ data: [{ id: '177', name: 'A page', access_token: 'EAABpage' }] }) }],
    api: { hosts: ['graph.facebook.com'], denied: gone },
    revoke: {
      at: `${graph}/me/permissions`, method: 'DELETE', auth: ['none'], anonymous: true, format: ['query', 'none'], kinds: ['access'],
      own(request, demand, refuse) {
        const token = request.parameters().access_token ?? (request.headers.authorization ?? '').replace('Bearer ', '');
        const { grant } = live(this, token, (why) => refuse('invalid_token', why, gone));
        grant.dead = true;
        return [200, { success: true }];
      },
    },
  },
  gram('instagram', {
    basis: 'prose', uncertain: ['whether the code\'s answer is wrapped in data[]'],
    sources: ['https://developers.facebook.com/documentation/instagram-platform/reference/access_token',
      'https://developers.facebook.com/documentation/instagram-platform/reference/refresh_access_token',
      'https://developers.facebook.com/documentation/instagram-platform/instagram-api-with-instagram-login/business-login'],
    authorize: 'https://www.instagram.com/oauth/authorize', token: 'https://api.instagram.com/oauth/access_token', graph: 'graph.instagram.com', prefix: 'ig',
    scopes: ['instagram_business_basic'],
    // Documented in both shapes: they take turns.
    answer: (t, grant) => {
      const token = { access_token: t.access, user_id: '17841400000000000', permissions: t.scopes.join(',') };
      return grant.number % 2 === 0 ? { data: [token] } : token;
    },
  }),
  gram('threads', {
    basis: 'uncertain', sources: ['gitroomhq/postiz-app threads.provider.ts'],
    authorize: 'https://threads.net/oauth/authorize', token: 'https://graph.threads.net/oauth/access_token', graph: 'graph.threads.net', prefix: 'th',
    scopes: ['threads_basic'],
    answer: (t) => ({ access_token: t.access, user_id: 178414, permissions: t.scopes }),
  }),
];
