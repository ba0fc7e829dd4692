// developer.mjs: code, designs, tickets and sites.
import { bearer, scoped, sometimes } from '../engine.mjs';

// Everything is 200; without "Accept: application/json" the answer is a form.
const github = {
  sources: ['https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/refreshing-user-access-tokens'],
  authorize: { at: 'https://github.com/login/oauth/authorize', responseType: 'any' },
  token: { at: 'https://github.com/login/oauth/access_token', headers: { accept: 'application/json' }, grant: 'optional', redirect: 'optional' },
  error: (code, why) => [200, {
    error: { invalid_grant: 'bad_verification_code', invalid_client: 'incorrect_client_credentials' }[code] ?? code, error_description: why,
  }],
  dead: [200, {
    error: 'bad_refresh_token', error_description: 'The refresh token passed is incorrect or expired.',
    error_uri: 'https://docs.github.com',
  }],
  api: {
    hosts: ['api.github.com'], need: { 'x-github-api-version': '2022-11-28', 'user-agent': /./ },
    denied: [401, { message: 'Bad credentials', documentation_url: 'https://docs.github.com/rest', status: '401' }],
  },
  revoke: {
    at: 'https://api.github.com/applications/{client_id}/token', method: 'DELETE', auth: ['basic'], format: ['json'], kinds: ['access'],
    names: { token: 'access_token' }, answer: [204, ''], gone: [404, { message: 'Not Found' }], kills: 'token',
  },
};

export default [
  {
    ...github, id: 'github_oauth_app', basis: 'prose',
    connect: { scopes: ['read:user', 'user:email'] },
    refresh: null, tokens: { access: 'gho_' },
    answer: (t) => ({ access_token: t.access, token_type: 'bearer', scope: t.scopes.join(',') }),
  },
  {
    ...github, id: 'github_app_user', basis: 'prose',
    authorize: { ...github.authorize, scope: null },
    callback: { extra: () => ({ installation_id: '42', setup_action: 'install' }) },
    tokens: { access: 'ghu_', refresh: 'ghr_' }, lifetimes: { access: 28800, refresh: 15897600 }, rotates: 'always', accessDies: true,
    answer: (t) => ({
      access_token: t.access, expires_in: 28800, refresh_token: t.refresh, refresh_token_expires_in: 15897600, scope: '', token_type: 'bearer',
    }),
  },
  {
    id: 'gitlab', basis: 'prose', sources: ['gitlabhq/gitlabhq doc/api/oauth2.md'],
    connect: { scopes: ['read_user', 'read_api'] },
    authorize: { at: 'https://gitlab.com/oauth/authorize' },
    token: { at: 'https://gitlab.com/oauth/token', auth: ['post', 'basic'] },
    refresh: { need: { redirect_uri: 'https://app.example/callback/gitlab' } },
    lifetimes: { access: 7200 }, rotates: 'always', accessDies: true,
    answer: (t) => ({ ...bearer(t), token_type: 'bearer', scope: t.scopes.join(' '), created_at: t.now }),
    dead: [400, { error: 'invalid_grant', error_description: 'The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued to another client.' }],
    api: { hosts: ['gitlab.com'] },
    revoke: { at: 'https://gitlab.com/oauth/revoke', answer: [200, {}] },
  },
  {
    id: 'bitbucket', basis: 'uncertain', sources: ['third-party code'], uncertain: ['rotation'],
    connect: { granted: ['account', 'repository'] },
    authorize: { at: 'https://bitbucket.org/site/oauth2/authorize', scope: null }, pkce: 'ignored',
    token: { at: 'https://bitbucket.org/site/oauth2/access_token', auth: ['basic', 'post'], redirect: 'optional' },
    lifetimes: { access: 7200 }, rotates: sometimes, repeatsRefresh: true,
    answer: (t) => ({ ...bearer(t), token_type: 'bearer', scopes: t.scopes.join(' '), state: 'authorization_code' }),
    api: { hosts: ['api.bitbucket.org'] },
  },
  {
    id: 'atlassian', basis: 'prose', sources: ['https://developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens'],
    uncertain: ['how long a used refresh token may be sent again', 'the cap of 365 days'],
    connect: { scopes: ['offline_access', 'read:me', 'read:jira-work', 'read:jira-user'] },
    authorize: { at: 'https://auth.atlassian.com/authorize', need: { audience: 'api.atlassian.com', prompt: 'consent' } },
    token: { at: 'https://auth.atlassian.com/oauth/token', format: ['json', 'form'] },
    tokens: { access: 'eyJraWQiOiJhdXRo', refresh: 'eyJhbGciOiJIUzI1' }, lifetimes: { access: 3600, refresh: 7776000 }, rotates: 'always', grace: 600,
    answer: scoped(' '),
    error: (code, why) => (code === 'invalid_client' ? [401, { error: 'access_denied', error_description: 'Unauthorized' }]
      : [400, { error: code, error_description: why }]),
    dead: [403, { error: 'unauthorized_client', error_description: 'Unknown or invalid refresh token.' }],
    lookups: [{
      at: 'https://api.atlassian.com/oauth/token/accessible-resources',
      answer: () => [{ id: '1324a887-45db-1bf4-1e99-ef0ff456d421', name: 'Maple', url: 'https://maple.atlassian.net', scopes: ['read:jira-work'] }],
    }],
    api: { hosts: ['api.atlassian.com'] },
  },
  {
    id: 'linear', basis: 'prose', sources: ['https://linear.app/developers/oauth-2-0-authentication'],
    uncertain: ['how long the previous refresh token works', 'the access token\'s 24 hours'],
    connect: { scopes: ['read'] },
    authorize: { at: 'https://linear.app/oauth/authorize', scope: { separator: ',' } },
    token: { at: 'https://api.linear.app/oauth/token', auth: ['post', 'basic'] },
    tokens: { access: 'lin_oauth_' }, lifetimes: { access: 86399 }, rotates: 'always', grace: 1800,
    answer: scoped(' '),
    api: { hosts: ['api.linear.app'] },
    revoke: { at: 'https://api.linear.app/oauth/revoke', auth: ['none', 'post', 'basic'], anonymous: true },
  },
  {
    id: 'figma', basis: 'prose', sources: ['figma/rest-api-spec openapi.yaml', 'https://developers.figma.com/docs/rest-api/scopes/'],
    connect: { scopes: ['current_user:read', 'file_metadata:read', 'file_content:read'] },
    authorize: { at: 'https://www.figma.com/oauth', scope: { separator: /[ ,]/ } },
    token: { at: 'https://api.figma.com/v1/oauth/token', auth: ['basic'] },
    refresh: { at: 'https://api.figma.com/v1/oauth/refresh' },
    tokens: { access: 'figu_', refresh: 'figur_' }, lifetimes: { access: 7776000 },
    answer: (t) => ({ user_id_string: '1099', access_token: t.access, token_type: 'bearer', expires_in: 7776000, ...(t.refresh && { refresh_token: t.refresh }) }),
    renewed: (t) => ({ access_token: t.access, token_type: 'bearer', expires_in: 7776000 }),
    error: (code, why) => [400, { status: 400, err: why, error: true }],
    dead: [400, { error: true, status: 400, message: 'Invalid refresh token', i18n: null }],
    api: { hosts: ['api.figma.com'], denied: [403, { status: 403, err: 'Invalid token' }] },
  },
  {
    id: 'webflow', basis: 'prose', sources: ['https://developers.webflow.com/reference/authorization', 'webflow/js-webflow-api'],
    uncertain: ['whether 365 days of inactivity end a token'],
    connect: { scopes: ['sites:read', 'cms:read', 'authorized_user:read'] },
    authorize: { at: 'https://webflow.com/oauth/authorize' }, pkce: 'ignored',
    token: { at: 'https://api.webflow.com/oauth/access_token', format: ['form', 'json'], redirect: 'optional' },
    refresh: null, tokens: { access: 'wf_' },
    answer: (t) => ({ token_type: 'bearer', access_token: t.access, scope: t.scopes.join(' ') }),
    api: { hosts: ['api.webflow.com'] },
    revoke: {
      at: 'https://webflow.com/oauth/revoke_authorization', format: ['json'], kinds: ['access'], names: { token: 'access_token' }, answer: [200, { didRevoke: true }],
    },
  },
];
