// identity.mjs: Microsoft and authorization servers that anybody runs.
import { bearer, scoped, sometimes } from '../engine.mjs';

// Issuers also publish metadata; a site may go by them or by the rules.
const document = (issuer, at) => (p) => ({
  issuer, authorization_endpoint: at(p.authorize.at), token_endpoint: at(p.token.at), jwks_uri: `${issuer.replace(/\/$/, '')}/jwks`,
  ...(p.revoke && { revocation_endpoint: at(p.revoke.at) }), response_types_supported: ['code'], subject_types_supported: ['public'],
  id_token_signing_alg_values_supported: ['RS256'], code_challenge_methods_supported: ['S256'],
  token_endpoint_auth_methods_supported: p.token.auth.map((way) => `client_secret_${way}`), scopes_supported: p.connect.scopes,
});
const oidc = ['openid', 'profile', 'email', 'offline_access'];
const withId = (issuer, separator = ' ') => function answer(t, grant) {
  return { ...bearer(t), scope: t.scopes.join(separator), ...(t.scopes.includes('openid') && { id_token: this.idToken(grant, issuer) }) };
};

export default [
  {
    id: 'microsoft', basis: 'prose', sources: ['MicrosoftDocs/entra-docs docs/identity-platform/refresh-tokens.md'],
    connect: { scopes: ['offline_access', 'User.Read'], params: { tenant: 'organizations' } },
    // What it has granted may be asked for again under the names that it answered with.
    authorize: {
      at: 'https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize', need: { response_mode: 'query' },
      scope: { known: ['https://graph.microsoft.com/User.Read', 'openid', 'profile', 'email'] },
    },
    callback: { makeCode: () => `0.AXYA${Math.random()}`, extra: () => ({ session_state: '5e6f' }) },
    token: { at: 'https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token', auth: ['post', 'basic'] },
    tokens: { access: 'eyJ0eXAiOiJKV1Qi', refresh: '0.AR' },
    // The old refresh token goes on working, yet the new one is to be kept.
    lifetimes: { access: 4263, refresh: 7776000 }, rotates: 'always', grace: 'goes on',
    answer(t, grant) {
      return {
        token_type: 'Bearer', scope: 'https://graph.microsoft.com/User.Read profile openid email', expires_in: 4263, ext_expires_in: 4263,
        access_token: t.access, ...(t.refresh && t.scopes.includes('offline_access') && { refresh_token: t.refresh }),
        ...(t.scopes.includes('openid') && { id_token: this.idToken(grant, 'https://login.microsoftonline.com/4f6c7d2e-0b1a-4c57-9b1f-2f1f5a6f7c11/v2.0') }),
      };
    },
    error: (code, why) => [code === 'invalid_client' ? 401 : 400, { error: code, error_description: `AADSTS900144: ${why}`, error_codes: [900144], trace_id: 't', correlation_id: 'c' }],
    dead: [400, {
      error: 'invalid_grant', error_description: 'AADSTS50173: The provided grant has expired due to it being revoked, a fresh auth token is needed.',
      error_codes: [50173], timestamp: '2026-11-25 00:00:00Z', suberror: 'bad_token',
    }],
    api: { hosts: ['graph.microsoft.com'], denied: [401, { error: { code: 'InvalidAuthenticationToken', message: 'Access token has expired or is not yet valid.' } }] },
  },
  {
    id: 'okta', basis: 'prose', sources: ['okta/okta-developer-docs guides/refresh-tokens, revoke-tokens'], uncertain: ['default lifetimes'],
    connect: { params: { domain: 'acme.okta.com' }, scopes: oidc },
    authorize: { at: 'https://{domain}/oauth2/v1/authorize' },
    token: { at: 'https://{domain}/oauth2/v1/token', auth: ['basic', 'post'] },
    lifetimes: { access: 3600, refresh: 604800 }, rotates: sometimes, grace: 30,
    answer: withId('https://acme.okta.com'),
    dead: [400, { error: 'invalid_grant', error_description: 'The refresh token is invalid or expired.' }],
    api: { hosts: ['acme.okta.com'] },
    revoke: { at: 'https://{domain}/oauth2/v1/revoke', auth: ['basic', 'post'] },
    metadata: { at: 'https://acme.okta.com/.well-known/openid-configuration', document: document('https://acme.okta.com', (u) => u.replace('{domain}', 'acme.okta.com')) },
  },
  {
    id: 'auth0', basis: 'uncertain', sources: ['third-party code'], uncertain: ['default lifetimes'],
    connect: { params: { domain: 'acme.eu.auth0.com' }, scopes: oidc, allow: ['acme.eu.auth0.com'] },
    authorize: { at: 'https://{domain}/authorize' },
    token: { at: 'https://{domain}/oauth/token', auth: ['post', 'basic'], format: ['form', 'json'] },
    lifetimes: { access: 86400, refresh: 2592000 }, rotates: sometimes, reuseKills: true,
    answer: withId('https://acme.eu.auth0.com/'),
    error: (code, why) => [code === 'invalid_client' ? 401 : 403, { error: code === 'invalid_client' ? 'access_denied' : code, error_description: why }],
    dead: [403, { error: 'invalid_grant', error_description: 'Unknown or invalid refresh token.' }],
    api: { hosts: ['acme.eu.auth0.com'] },
    revoke: { at: 'https://{domain}/oauth/revoke', format: ['form', 'json'], kinds: ['refresh'] },
    metadata: { at: 'https://acme.eu.auth0.com/.well-known/openid-configuration', document: document('https://acme.eu.auth0.com/', (u) => u.replace('{domain}', 'acme.eu.auth0.com')) },
  },
  {
    id: 'keycloak', basis: 'uncertain', sources: ['stock defaults'], uncertain: ['nothing was looked up: stock defaults; prefer discovery'],
    connect: { issuer: 'https://sso.acme.example/realms/staff', scopes: oidc, allow: ['sso.acme.example'] },
    authorize: { at: 'https://sso.acme.example/realms/staff/protocol/openid-connect/auth' },
    token: { at: 'https://sso.acme.example/realms/staff/protocol/openid-connect/token', auth: ['basic', 'post'] },
    // offline_access: the refresh token does not expire, and says so with 0.
    lifetimes: { access: 300 }, rotates: 'always', grace: 'goes on',
    answer(t, grant) {
      return { ...withId('https://sso.acme.example/realms/staff').call(this, t, grant), refresh_expires_in: 0, 'not-before-policy': 0, session_state: 's1' };
    },
    dead: [400, { error: 'invalid_grant', error_description: 'Session not active' }],
    api: { hosts: ['sso.acme.example'] },
    revoke: { at: 'https://sso.acme.example/realms/staff/protocol/openid-connect/revoke', auth: ['basic', 'post'] },
    metadata: { at: 'https://sso.acme.example/realms/staff/.well-known/openid-configuration', document: document('https://sso.acme.example/realms/staff', (u) => u) },
  },
  {
    id: 'cognito', basis: 'uncertain', sources: ['better-auth cognito.ts'], uncertain: ['since when rotation can be switched on'],
    connect: { params: { domain: 'acme.auth.eu-west-1.amazoncognito.com', region: 'eu-west-1', user_pool_id: 'eu-west-1_a1B2' }, scopes: ['openid', 'email', 'profile'] },
    authorize: { at: 'https://{domain}/oauth2/authorize', scope: { encoded: '%20' } },
    token: { at: 'https://{domain}/oauth2/token', auth: ['basic', 'post'] },
    lifetimes: { access: 3600, refresh: 2592000, fixed: true }, rotates: sometimes,
    answer(t, grant) {
      return { ...bearer(t), id_token: this.idToken(grant, 'https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a1B2', { token_use: 'id' }) };
    },
    api: { hosts: ['acme.auth.eu-west-1.amazoncognito.com'] },
    revoke: { at: 'https://{domain}/oauth2/revoke', auth: ['basic', 'post'], kinds: ['refresh'] },
    metadata: {
      at: 'https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a1B2/.well-known/openid-configuration',
      document: document('https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_a1B2', (u) => u.replace('{domain}', 'acme.auth.eu-west-1.amazoncognito.com')),
    },
  },
  {
    id: 'servicenow', basis: 'prose', sources: ['https://www.servicenow.com/docs/r/zurich/platform-security/authentication/t_ManageTokens.html'], uncertain: ['the HTTP status of errors'],
    connect: { params: { instance: 'dev12345.service-now.com' }, scopes: ['useraccount'] },
    authorize: { at: 'https://{instance}/oauth_auth.do' },
    token: { at: 'https://{instance}/oauth_token.do', auth: ['post', 'basic'] },
    lifetimes: { access: 1799, refresh: 8640000, fixed: true }, repeatsRefresh: true, answer: scoped(' '),
    error: (code, why) => [401, { error: code, error_description: why }],
    dead: [401, { error_description: 'access_denied', error: 'access_denied' }],
    api: { hosts: ['dev12345.service-now.com'], denied: [401, { error: { message: 'User Not Authenticated', detail: 'Required to provide Auth information' }, status: 'failure' }] },
    revoke: { at: 'https://{instance}/oauth_revoke_token.do', method: ['GET', 'POST'], auth: ['none'], anonymous: true, format: ['form', 'query'] },
  },
  {
    id: 'oidc_generic', basis: 'prose', sources: ['RFC 6749, 7009, 7636, 8414; OpenID Connect Core and Discovery'],
    connect: { provider: 'oidc', issuer: 'https://login.issuer.example', scopes: ['openid', 'offline_access'], allow: ['login.issuer.example'] },
    authorize: { at: 'https://login.issuer.example/authorize' }, pkce: 'required',
    callback: { extra: () => ({ iss: 'https://login.issuer.example' }) },
    token: { at: 'https://login.issuer.example/token', auth: ['basic', 'post'] },
    lifetimes: { access: 3600 }, rotates: 'always', answer: withId('https://login.issuer.example'),
    api: { hosts: ['login.issuer.example'] },
    revoke: { at: 'https://login.issuer.example/revoke', auth: ['basic', 'post'] },
    metadata: {
      at: 'https://login.issuer.example/.well-known/openid-configuration',
      document: (p) => ({ ...document('https://login.issuer.example', (u) => u)(p), authorization_response_iss_parameter_supported: true }),
    },
  },
];
