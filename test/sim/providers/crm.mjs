// crm.mjs: customers, mail and support.
import { bearer, scoped, sometimes } from '../engine.mjs';

// No expires_in; errors and moves are its own.  The instance is where the API is.
const salesforce = {
  basis: 'prose',
  sources: ['https://help.salesforce.com/apex/HTViewHelpDoc?id=remoteaccess_oauth_refresh_token_flow.htm'],
  uncertain: ['the exact deadlines for partners'],
  rotates: sometimes,
  tokens: { access: '00D5g00000', refresh: '5Aep861' },
  answer(t) {
    const login = this.authorize.at.split('/')[2];
    return {
      access_token: t.access, ...(t.refresh && { refresh_token: t.refresh }), signature: 'c2lnbmF0dXJl', scope: t.scopes.join(' '),
      instance_url: t.number > 1 ? this.moved : this.instance, id: `https://${login}/id/00D5g000004X/0055g00000B${t.user}`, token_type: 'Bearer',
      issued_at: `${t.now}000`,
    };
  },
  dead: [400, { error: 'invalid_grant', error_description: 'expired access/refresh token' }],
};
const force = (id, login, instance, moved, params = {}) => ({
  ...salesforce, id, instance: `https://${instance}`, moved: `https://${moved}`, connect: { scopes: ['id', 'api', 'refresh_token'], params },
  authorize: { at: `https://${login}/services/oauth2/authorize` },
  token: { at: `https://${login}/services/oauth2/token`, auth: ['post', 'basic'] },
  api: {
    hosts: [instance, moved], path: (grant) => (grant.issued > 1 ? moved : instance),
    denied: [401, [{ message: 'Session expired or invalid', errorCode: 'INVALID_SESSION_ID' }]],
  },
  revoke: { at: `https://${login}/services/oauth2/revoke`, auth: ['none'] },
});

export default [
  force('salesforce', 'login.salesforce.com', 'acme.my.salesforce.com', 'acme-new.my.salesforce.com'),
  force('salesforce_sandbox', 'test.salesforce.com', 'acme--uat.sandbox.my.salesforce.com', 'acme--uat2.sandbox.my.salesforce.com'),
  {
    id: 'hubspot', basis: 'prose',
    sources: ['https://developers.hubspot.com/docs/api-reference/latest/authentication/oauth-tokens/revoke-token',
      'https://developers.hubspot.com/changelog/new-oauth-v3-api-endpoints-and-standardized-error-responses'],
    uncertain: ['regional API hosts'],
    connect: { scopes: ['oauth', 'crm.objects.contacts.read', 'crm.objects.companies.read', 'crm.objects.deals.read'] },
    authorize: { at: 'https://app.hubspot.com/oauth/authorize', responseType: 'any' },
    token: { at: 'https://api.hubapi.com/oauth/2026-03/token' },
    tokens: { refresh: 'na1-' }, lifetimes: { access: 1800 }, repeatsRefresh: true,
    answer: (t) => ({ ...bearer(t), token_type: 'bearer', hub_id: 62515, user_id: 293199, scopes: t.scopes }),
    dead: [400, { error: 'invalid_grant', error_description: 'refresh token is invalid, expired or revoked', status: 'BAD_REFRESH_TOKEN', message: 'missing or invalid refresh token' }],
    lookups: [{ at: 'https://api.hubapi.com/account-info/v3/details', answer: () => ({ portalId: 62515, timeZone: 'UTC' }) }],
    api: { hosts: ['api.hubapi.com'] },
    revoke: { at: 'https://api.hubapi.com/oauth/2026-03/token/revoke', kinds: ['refresh'], need: { token_type_hint: 'refresh_token' } },
  },
  {
    id: 'zoho', basis: 'prose',
    sources: ['https://zoho.com/accounts/protocol/oauth/web-apps/access-token-expiry.html', 'https://www.zoho.com/thrive/resources/api/oauth-step5.html'],
    connect: { scopes: ['ZohoCRM.modules.READ', 'ZohoCRM.users.READ', 'AaaServer.profile.READ'] },
    authorize: {
      at: 'https://accounts.zoho.com/oauth/v2/auth', need: { access_type: 'offline', prompt: 'consent' }, scope: { separator: ',' },
    },
    callback: { extra: () => ({ location: 'eu', 'accounts-server': 'https://accounts.zoho.eu' }) },
    // The person's data centre is in the callback: there, and nowhere else, the code counts.
    token: { at: 'https://accounts.zoho.eu/oauth/v2/token', format: ['form', 'query'] },
    tokens: { access: '1000.', refresh: '1000.' },
    lifetimes: { access: 3600 },
    answer: (t) => ({ ...bearer(t), scope: t.scopes.join(' '), api_domain: 'https://www.zohoapis.eu' }),
    error: (code) => [200, { error: code === 'invalid_grant' ? 'invalid_code' : code }],
    dead: [200, { error: 'invalid_code' }],
    api: {
      hosts: ['www.zohoapis.eu'], scheme: 'Zoho-oauthtoken', path: () => 'www.zohoapis.eu',
      denied: [401, { code: 'INVALID_TOKEN', message: 'invalid oauth token', status: 'error' }],
    },
    revoke: {
      at: 'https://accounts.zoho.eu/oauth/v2/token/revoke', auth: ['none'], anonymous: true, format: ['query'], kinds: ['refresh'],
      answer: [200, { status: 'success' }],
    },
  },
  {
    id: 'pipedrive', basis: 'prose', sources: ['https://pipedrive.readme.io/docs/marketplace-oauth-authorization', 'pipedrive/client-nodejs'],
    uncertain: ['whether refresh tokens are replaced'],
    connect: { granted: ['base', 'deals:read', 'contacts:read'] },
    authorize: { at: 'https://oauth.pipedrive.com/oauth/authorize', scope: null, responseType: 'any' }, pkce: 'refused',
    token: { at: 'https://oauth.pipedrive.com/oauth/token', auth: ['basic'] },
    lifetimes: { access: 3600, refresh: 5184000 }, rotates: sometimes,
    repeatsRefresh: true,
    answer: (t) => ({ ...bearer(t), scope: 'base,deals:read,contacts:read', api_domain: 'https://acme.pipedrive.com' }),
    api: { hosts: ['acme.pipedrive.com'], path: () => 'acme.pipedrive.com' },
    revoke: { at: 'https://oauth.pipedrive.com/oauth/revoke', auth: ['basic'] },
  },
  {
    id: 'mailchimp', basis: 'uncertain', sources: ['third-party catalogues'],
    authorize: { at: 'https://login.mailchimp.com/oauth2/authorize', scope: null }, pkce: 'ignored',
    token: { at: 'https://login.mailchimp.com/oauth2/token' },
    refresh: null,
    answer: (t) => ({ access_token: t.access, expires_in: 0, scope: null }),
    lookups: [{
      at: 'https://login.mailchimp.com/oauth2/metadata', scheme: 'OAuth',
      answer: (grant) => ({ dc: 'us6', role: 'owner', accountname: 'Maple', user_id: 12, login: { login_id: 12, login_name: grant.user }, api_endpoint: 'https://us6.api.mailchimp.com' }),
    }],
    api: { hosts: ['us6.api.mailchimp.com'], path: () => 'us6.api.mailchimp.com', denied: [401, { title: 'API Key Invalid', status: 401 }] },
  },
  {
    id: 'klaviyo', basis: 'prose',
    sources: ['https://developers.klaviyo.com/en/docs/troubleshoot_oauth_errors', 'klaviyo-labs/node-integration-example index.ts'],
    uncertain: ['whether a refresh ever returns another refresh token'],
    connect: { scopes: ['accounts:read', 'profiles:read', 'lists:read', 'metrics:read'], params: { revision: '2026-10-15' } },
    authorize: { at: 'https://www.klaviyo.com/oauth/authorize' }, pkce: 'required',
    token: { at: 'https://a.klaviyo.com/oauth/token', auth: ['basic'] },
    lifetimes: { access: 3600, refresh: 7776000 }, repeatsRefresh: true, answer: scoped(' '),
    api: { hosts: ['a.klaviyo.com'], need: { revision: /^\d{4}-\d\d-\d\d/ } },
    revoke: { at: 'https://a.klaviyo.com/oauth/revoke', auth: ['basic'], kinds: ['refresh'], need: { token_type_hint: 'refresh_token' } },
  },
  {
    id: 'zendesk', basis: 'prose',
    sources: ['https://developer.zendesk.com/api-reference/ticketing/oauth/grant_type_tokens/', 'https://developer.zendesk.com/documentation/api-basics/authentication/refresh-token'],
    uncertain: ['the default and most of the refresh token\'s life'],
    connect: { params: { subdomain: 'acme' }, scopes: ['read', 'tickets:read'] },
    authorize: { at: 'https://{subdomain}.zendesk.com/oauth/authorizations/new' },
    token: { at: 'https://{subdomain}.zendesk.com/oauth/tokens', format: ['json', 'form'], need: { expires_in: /^\d+$/ } },
    lifetimes: { access: 1800, refresh: 2592000 }, rotates: 'always', accessDies: true,
    answer: (t) => ({ ...bearer(t), token_type: 'bearer', scope: t.scopes.join(' '), refresh_token_expires_in: 2592000 }),
    api: { hosts: ['acme.zendesk.com'], denied: [401, { error: 'invalid_token', error_description: 'The access token provided is expired, revoked, malformed or invalid for other reasons.' }] },
    revoke: {
      at: 'https://{subdomain}.zendesk.com/api/v2/oauth/tokens/current.json', method: 'DELETE', auth: ['none'], format: ['none'], kinds: ['access'],
      bearer: {}, answer: [204, ''],
    },
  },
  {
    id: 'intercom', basis: 'prose', sources: ['intercom/Intercom-OpenAPI'],
    authorize: { at: 'https://app.intercom.com/oauth', scope: null, responseType: 'any' }, pkce: 'ignored',
    token: { at: 'https://api.intercom.io/auth/eagle/token', grant: 'optional', redirect: 'optional' },
    refresh: null, tokens: { access: 'dG9r' },
    answer: (t) => ({ token: t.access, access_token: t.access, token_type: 'Bearer' }),
    api: {
      hosts: ['api.intercom.io'], need: { 'intercom-version': /^\d+\.\d+$/ },
      denied: [401, { type: 'error.list', request_id: 'r1', errors: [{ code: 'token_revoked', message: 'Token revoked' }] }],
    },
    revoke: { at: 'https://api.intercom.io/auth/uninstall', auth: ['none'], format: ['json', 'none'], kinds: ['access'], bearer: {}, answer: [200, {}] },
  },
];
