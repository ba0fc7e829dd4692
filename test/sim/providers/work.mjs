// work.mjs: messages, documents, meetings, boards.
import { bearer, jwt, scoped } from '../engine.mjs';

// Errors are 200 with ok false; the bot's chain belongs to workspace and app.
const slackError = (error) => [200, { ok: false, error }];

const monday = {
  sources: ['https://developer.monday.com/apps/docs/migrating-to-the-new-oauth-flow'],
  authorize: { at: 'https://auth.monday.com/oauth2/authorize' },
  api: { hosts: ['api.monday.com'], need: { 'api-version': /^\d{4}-\d\d$/ }, denied: [401, { errors: ['Not Authenticated'] }] },
};

export default [
  {
    id: 'slack', basis: 'prose', sources: ['https://docs.slack.dev/authentication/using-token-rotation', 'slackapi/node-slack-sdk packages/oauth'],
    uncertain: ['PKCE'],
    connect: { scopes: ['team:read', 'users:read', 'channels:read'] },
    authorize: { at: 'https://slack.com/oauth/v2/authorize', responseType: 'any', scope: { separator: ',' } }, pkce: 'refused',
    token: { at: 'https://slack.com/api/oauth.v2.access', auth: ['post', 'basic'], grant: 'optional' },
    tokens: { access: 'xoxe.xoxb-1-', refresh: 'xoxe-1-' }, lifetimes: { access: 43200 }, rotates: 'always',
    shared: () => 'T9TK3CUKW',
    answer: (t, grant) => ({
      ok: true, access_token: t.access, token_type: 'bot', scope: t.scopes.join(','), bot_user_id: 'U0KRQLJ9H', app_id: 'A0KRD7HC3', expires_in: 43200,
      refresh_token: t.refresh, team: { name: 'Slack Softball Team', id: 'T9TK3CUKW' }, enterprise: null, is_enterprise_install: false,
      authed_user: { id: `U-${grant.user}` },
    }),
    renewed: (t) => ({
      ok: true, access_token: t.access, expires_in: 43200, refresh_token: t.refresh, token_type: 'bot', scope: t.scopes.join(','), bot_user_id: 'U0KRQLJ9H',
      app_id: 'A0KRD7HC3', team: { name: 'Slack Softball Team', id: 'T9TK3CUKW' }, enterprise: null, is_enterprise_install: false,
    }),
    error: (code) => slackError({ invalid_grant: 'invalid_code', invalid_client: 'bad_client_secret', redirect_uri_mismatch: 'bad_redirect_uri' }[code] ?? code),
    dead: slackError('invalid_refresh_token'),
    api: { hosts: ['slack.com', 'files.slack.com'], denied: slackError('token_revoked') },
    revoke: {
      at: 'https://slack.com/api/auth.revoke', method: ['POST', 'GET'], auth: ['none'], anonymous: true, format: ['none', 'form'], kinds: ['access'], bearer: {},
      answer: [200, { ok: true, revoked: true }], gone: slackError('token_revoked'), kills: 'token',
    },
  },
  {
    id: 'notion', basis: 'prose', sources: ['makenotion/notion-sdk-js src/api-endpoints/oauth.ts', 'https://developers.notion.com/reference/refresh-a-token'],
    uncertain: ['the access token\'s life', 'whether every workspace gets a refresh token'],
    authorize: { at: 'https://api.notion.com/v1/oauth/authorize', need: { owner: 'user' }, scope: null }, pkce: 'ignored',
    token: { at: 'https://api.notion.com/v1/oauth/token', auth: ['basic'], format: ['json'] },
    tokens: { access: 'ntn_', refresh: 'nrt_' }, rotates: 'always',
    answer: (t, grant) => ({
      access_token: t.access, token_type: 'bearer', refresh_token: t.refresh, bot_id: `bot-of-${grant.user}`, workspace_name: 'Maple', workspace_icon: null,
      workspace_id: 'ws-1', owner: { type: 'user', user: { object: 'user', id: grant.user } }, duplicated_template_id: null, request_id: 'r-1',
    }),
    api: { hosts: ['api.notion.com'], need: { 'notion-version': /^\d{4}-\d\d-\d\d$/ }, denied: [401, { object: 'error', status: 401, code: 'unauthorized', message: 'API token is invalid.' }] },
    revoke: { at: 'https://api.notion.com/v1/oauth/revoke', auth: ['basic'], format: ['json'], kinds: ['access'], answer: [200, { request_id: 'r-2' }] },
  },
  {
    id: 'zoom', basis: 'prose', sources: ['https://developers.zoom.us/docs/integrations/oauth/'],
    uncertain: ['the HTTP status for a dead refresh token', 'the names of two scopes'],
    connect: { granted: ['user:read:user', 'meeting:read:list_meetings'] },
    authorize: { at: 'https://zoom.us/oauth/authorize', scope: null },
    token: { at: 'https://zoom.us/oauth/token', auth: ['basic', 'post'] },
    lifetimes: { access: 3599, refresh: 7776000 }, rotates: 'always',
    answer: (t) => ({ ...bearer(t), token_type: 'bearer', scope: t.scopes.join(' '), api_url: 'https://api-us.zoom.us' }),
    error: (code, why) => [400, { reason: why, error: code }],
    dead: [401, { reason: 'Invalid Token!', error: 'invalid_request' }],
    api: { hosts: ['api.zoom.us', 'api-us.zoom.us'], denied: [401, { code: 124, message: 'Invalid access token.' }] },
    revoke: { at: 'https://zoom.us/oauth/revoke', auth: ['basic', 'post'], kinds: ['access'], answer: [200, { status: 'success' }] },
  },
  {
    id: 'dropbox', basis: 'prose', sources: ['dropbox/dropbox-sdk-python oauth.py'], uncertain: ['lifetimes', 'the shape of revocation', 'the text of errors'],
    connect: { scopes: ['account_info.read', 'files.metadata.read', 'files.content.read'] },
    authorize: { at: 'https://www.dropbox.com/oauth2/authorize', need: { token_access_type: 'offline' } },
    token: { at: 'https://api.dropboxapi.com/oauth2/token', auth: ['post', 'basic'] },
    tokens: { access: 'sl.' }, lifetimes: { access: 14400 },
    answer: (t) => ({ ...bearer(t), token_type: 'bearer', scope: t.scopes.join(' '), uid: '12345', account_id: 'dbid:AAH4f99' }),
    renewed: bearer,
    dead: [400, { error: 'invalid_grant', error_description: 'refresh token is invalid or revoked' }],
    api: { hosts: ['api.dropboxapi.com', 'content.dropboxapi.com'], denied: [401, { error_summary: 'invalid_access_token/.', error: { '.tag': 'invalid_access_token' } }] },
    revoke: {
      at: 'https://api.dropboxapi.com/2/auth/token/revoke', auth: ['none'], anonymous: true, format: ['none'], kinds: ['access'], bearer: {}, answer: [200, 'null'],
    },
  },
  {
    id: 'box', basis: 'prose', sources: ['box/developer.box.com content/guides/authentication'],
    connect: { scopes: ['root_readonly'] },
    authorize: { at: 'https://account.box.com/api/oauth2/authorize' }, pkce: 'refused',
    token: { at: 'https://api.box.com/oauth2/token' },
    lifetimes: { access: 4129, refresh: 5184000 }, rotates: 'always',
    answer: (t) => ({ ...bearer(t), token_type: 'bearer', restricted_to: [] }),
    dead: [400, { error: 'invalid_grant', error_description: 'Invalid refresh token' }],
    api: { hosts: ['api.box.com', 'upload.box.com'], denied: [401, ''] },
    revoke: { at: 'https://api.box.com/oauth2/revoke' },
  },
  {
    id: 'asana', basis: 'prose', sources: ['https://developers.asana.com/docs/oauth', 'https://developers.asana.com/docs/oauth-scopes'],
    uncertain: ['whether a refresh ever replaces the refresh token'],
    connect: { scopes: ['users:read', 'tasks:read', 'projects:read', 'workspaces:read'] },
    authorize: { at: 'https://app.asana.com/-/oauth_authorize' },
    token: { at: 'https://app.asana.com/-/oauth_token', auth: ['post', 'basic'] },
    lifetimes: { access: 3600 },
    answer: (t, grant) => ({ ...bearer(t), token_type: 'bearer', data: { id: 4673218951, gid: '4673218951', name: grant.user, email: `${grant.user}@work.example` } }),
    api: { hosts: ['app.asana.com'], denied: [401, { errors: [{ message: 'Not Authorized' }] }] },
    revoke: { at: 'https://app.asana.com/-/oauth_revoke', kinds: ['refresh'], answer: [200, {}] },
  },
  {
    id: 'airtable', basis: 'prose', sources: ['https://airtable.com/developers/web/api/oauth-reference', 'Airtable/oauth-example'],
    uncertain: ['a revocation endpoint is seen in third-party code only'],
    connect: { scopes: ['data.records:read', 'schema.bases:read'] },
    authorize: { at: 'https://airtable.com/oauth2/v1/authorize' }, pkce: 'required',
    token: { at: 'https://airtable.com/oauth2/v1/token', auth: ['basic'] },
    tokens: { access: 'oaa', refresh: 'oar' }, lifetimes: { access: 3600, refresh: 5184000 }, rotates: 'always', accessDies: true, reuseKills: true,
    answer: (t) => ({ ...bearer(t), refresh_expires_in: 5184000, scope: t.scopes.join(' ') }),
    api: { hosts: ['api.airtable.com', 'content.airtable.com'], denied: [401, { error: { type: 'AUTHENTICATION_REQUIRED', message: 'Authentication required' } }] },
  },
  {
    id: 'docusign', basis: 'prose', sources: ['https://developers.docusign.com/platform/auth/reference/obtain-access-token'],
    uncertain: ['revocation is seen in third-party code only'],
    connect: { scopes: ['signature'], params: { auth_host: 'account-d.docusign.com' } },
    authorize: { at: 'https://account-d.docusign.com/oauth/auth' },
    token: { at: 'https://account-d.docusign.com/oauth/token', auth: ['basic'] },
    lifetimes: { access: 28800, refresh: 2592000 }, rotates: 'always', answer: bearer,
    dead: [400, { error: 'invalid_grant', error_description: 'expired_client_token' }],
    lookups: [{
      at: 'https://account-d.docusign.com/oauth/userinfo',
      answer: (grant) => ({
        sub: grant.user, accounts: [
          { account_id: 'a-0', is_default: false, account_name: 'Old', base_uri: 'https://eu.docusign.net' },
          { account_id: 'a-1', is_default: true, account_name: 'Maple', base_uri: 'https://demo.docusign.net' },
        ],
      }),
    }],
    api: { hosts: ['demo.docusign.net'], path: () => 'demo.docusign.net' },
  },
  {
    ...monday, id: 'monday', basis: 'prose', uncertain: ['the access token\'s life', 'when the legacy flow ends'],
    connect: { scopes: ['me:read', 'boards:read', 'users:read'], params: { api_version: '2026-10' } }, pkce: 'required',
    token: { at: 'https://auth.monday.com/oauth_ms/oauth/token', auth: ['post', 'basic'], format: ['form', 'json'] },
    tokens: { access: (grant, n, p) => jwt({ sub: grant.user, n, exp: p.now() + 1800 }), refresh: 'mrt_' }, lifetimes: { access: 1800 }, rotates: 'always',
    answer: (t) => ({ access_token: t.access, refresh_token: t.refresh, token_type: 'Bearer', scope: t.scopes.join(' ') }),
    revoke: { at: 'https://auth.monday.com/oauth_ms/oauth/revoke' },
  },
  {
    ...monday, id: 'monday_legacy', basis: 'prose', uncertain: ['when it ends'],
    connect: { scopes: ['me:read', 'boards:read', 'users:read'], params: { api_version: '2026-10' } },
    authorize: { ...monday.authorize, responseType: 'any' }, pkce: 'refused',
    token: { at: 'https://auth.monday.com/oauth2/token', auth: ['post', 'basic'], format: ['form', 'json'], grant: 'optional' },
    refresh: null, answer: (t) => ({ access_token: t.access, token_type: 'Bearer', scope: t.scopes.join(' ') }),
  },
  {
    id: 'clickup', basis: 'prose', sources: ['https://developer.clickup.com/docs/authentication.md'],
    authorize: { at: 'https://app.clickup.com/api', responseType: null, scope: null }, pkce: 'ignored',
    token: { at: 'https://api.clickup.com/api/v2/oauth/token', format: ['json', 'form', 'query'], grant: 'optional', redirect: 'optional' },
    refresh: null, tokens: { access: (grant, n) => `${4300000 + grant.number}_${n}${Math.random().toString(36).slice(2)}` },
    answer: (t) => ({ access_token: t.access, token_type: 'Bearer' }),
    api: { hosts: ['api.clickup.com'], scheme: /^(Bearer )?/, denied: [401, { err: 'Token invalid', ECODE: 'OAUTH_025' }] },
  },
  {
    id: 'calendly', basis: 'prose', sources: ['https://developer.calendly.com/docs/authentication/refresh-token-rotation-guide'],
    connect: { scopes: ['users:read', 'event_types:read', 'scheduled_events:read'] },
    authorize: { at: 'https://auth.calendly.com/oauth/authorize' },
    token: { at: 'https://auth.calendly.com/oauth/token', auth: ['basic', 'post'] },
    lifetimes: { access: 7200 }, rotates: 'always',
    answer: (t) => ({
      ...bearer(t), created_at: t.now, scope: t.scopes.join(' '), owner: `https://api.calendly.com/users/${t.user}`, organization: 'https://api.calendly.com/organizations/EBHAAFHDCAEQTSEZ',
    }),
    api: { hosts: ['api.calendly.com'] },
    revoke: { at: 'https://auth.calendly.com/oauth/revoke', answer: [200, {}] },
  },
  {
    id: 'todoist', basis: 'prose', sources: ['Doist/todoist-api-typescript src/authentication.ts'],
    connect: { scopes: ['data:read'] },
    authorize: { at: 'https://todoist.com/oauth/authorize', responseType: 'any', redirect: 'optional', scope: { separator: ',' } },
    token: { at: 'https://todoist.com/oauth/access_token', grant: 'optional', redirect: 'optional' },
    refresh: null, answer: (t) => ({ access_token: t.access, token_type: 'Bearer' }),
    api: { hosts: ['api.todoist.com'], denied: [401, 'Forbidden'] },
    revoke: { at: 'https://api.todoist.com/api/v1/revoke', auth: ['basic'], kinds: ['access'], need: { token_type_hint: 'access_token' } },
  },
  {
    id: 'basecamp', basis: 'uncertain', sources: ['third-party catalogues'], uncertain: ['the refresh token\'s life'],
    connect: { application: { 'user-agent': 'Maple (support@app.example)' } },
    authorize: { at: 'https://launchpad.37signals.com/authorization/new', need: { type: 'web_server' }, responseType: 'any', scope: null }, pkce: 'ignored',
    token: { at: 'https://launchpad.37signals.com/authorization/token', names: { grant_type: 'type' }, grantType: 'web_server', never: ['grant_type'] },
    refresh: { names: { grant_type: 'type' }, is: (sent) => sent.type === 'refresh', never: ['grant_type'] },
    lifetimes: { access: 1209600 }, answer: bearer, renewed: (t) => ({ access_token: t.access, expires_in: 1209600 }),
    lookups: [{ at: 'https://launchpad.37signals.com/authorization.json', answer: () => ({ identity: { id: 9 }, accounts: [{ product: 'bc3', id: 195539477, href: 'https://3.basecampapi.com/195539477' }] }) }],
    api: { hosts: ['3.basecampapi.com'], need: { 'user-agent': /\(.+\)/ } },
  },
  {
    id: 'miro', basis: 'prose', sources: ['https://developers.miro.com/reference/get-new-access-token-using-refresh-token'],
    uncertain: ['revocation: its path is seen in third-party code only, its body is unverified'],
    connect: { scopes: ['boards:read'] },
    authorize: { at: 'https://miro.com/oauth/authorize' }, pkce: 'ignored',
    token: { at: 'https://api.miro.com/v1/oauth/token', format: ['form', 'query'] },
    lifetimes: { access: 3599, refresh: 5184000 }, rotates: 'always',
    answer: (t) => ({ user_id: '3074457345618265000', ...bearer(t), token_type: 'bearer', team_id: '3074457345618263000', scope: t.scopes.join(' ') }),
    api: { hosts: ['api.miro.com'] },
    // Nobody has verified the body's shape: some name for each of three things must be there.
    revoke: {
      at: 'https://api.miro.com/v2/oauth/revoke', auth: 'its own', format: ['json'], kinds: ['access'],
      own(request, demand) {
        const sent = request.parameters();
        const [id, secret, token] = [['client_id', 'clientId'], ['client_secret', 'clientSecret'], ['token', 'access_token', 'accessToken']]
          .map((names) => sent[names.find((name) => name in sent)]);
        demand(id === this.clientId && secret === this.secret, 'invalid_client', 'wrong client or secret');
        const held = this.holders.get(token);
        demand(held?.kind === 'access', 'invalid_token', 'no access token');
        held.grant.dead = true;
        return [204, ''];
      },
    },
  },
];
