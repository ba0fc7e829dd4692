// accounting.mjs: QuickBooks, Xero, FreshBooks, Sage, Gusto, NetSuite.
import { bearer, jwt } from '../engine.mjs';

const realm = '4620816365178132610';
// The company arrives with the callback alone.  A new refresh token about once a
// day; the hard limit is told to those who ask with a header.
const quickbooks = {
  basis: 'prose',
  sources: ['https://blogs.a.intuit.com/2025/11/12/important-changes-to-refresh-token-policy', 'intuit/oauth-jsclient src/OAuthClient.js'],
  uncertain: ['the exact x_refresh_token_expires_in', 'whether a replaced refresh token has a grace period'],
  authorize: { at: 'https://appcenter.intuit.com/connect/oauth2' },
  pkce: 'ignored',
  callback: { extra: () => ({ realmId: realm }) },
  token: {
    at: 'https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer', auth: ['basic'],
    headers: { accept: 'application/json', 'x-include-refresh-token-hard-expires-in': 'true' },
  },
  tokens: { access: 'eyJlbmMiOiJ', refresh: 'AB1' },
  lifetimes: { access: 3600, refresh: 8726400 },
  rotates: (grant, provider) => provider.now() >= (grant.rotated ?? grant.consented) + 86400 && (grant.rotated = provider.now()) > 0,
  repeatsRefresh: true,
  answer: (t, grant) => ({
    x_refresh_token_expires_in: 8726400, refresh_token: t.refresh, access_token: t.access, token_type: 'bearer', expires_in: 3600,
    x_refresh_token_hard_expires_in: 157680000 - (t.now - grant.consented),
  }),
  dead: [400, { error: 'invalid_grant', error_description: 'Incorrect or invalid refresh token' }],
  revoke: {
    at: 'https://developer.api.intuit.com/v2/oauth2/tokens/revoke', auth: ['basic'], format: ['json'],
    headers: { accept: 'application/json' },
  },
};
const books = (id, host, params) => ({
  ...quickbooks, id, connect: { scopes: ['com.intuit.quickbooks.accounting'], params },
  api: { hosts: [host], path: () => `${host}/v3/company/${realm}`, denied: [401, { fault: { type: 'AUTHENTICATION' } }] },
});

export default [
  books('intuit_quickbooks', 'quickbooks.api.intuit.com', {}),
  books('intuit_quickbooks_sandbox', 'sandbox-quickbooks.api.intuit.com', {}),
  {
    id: 'xero', basis: 'prose',
    sources: ['https://developer.xero.com/faq/oauth2', 'https://developer.xero.com/faq/granular-scopes'],
    connect: { scopes: ['offline_access', 'accounting.invoices.read', 'accounting.contacts.read'] },
    authorize: { at: 'https://login.xero.com/identity/connect/authorize' },
    token: { at: 'https://identity.xero.com/connect/token', auth: ['basic'] },
    tokens: { access: (grant, n) => jwt({ sub: grant.user, n, authentication_event_id: `event-${grant.number}-${grant.user}` }) },
    lifetimes: { access: 1800, refresh: 5184000 }, rotates: 'always', grace: 1800,
    lookups: [{
      at: 'https://api.xero.com/connections',
      answer: (grant) => [
        { id: 'c-0', authEventId: 'event-of-before', tenantId: '00000000-0000-4000-8000-00000000dead', tenantType: 'ORGANISATION', tenantName: 'Elsewhere' },
        { id: 'c-1', authEventId: `event-${grant.number}-${grant.user}`, tenantId: '70784a63-d24b-46a9-a4db-0e70a274b056', tenantType: 'ORGANISATION', tenantName: 'Maple' },
      ],
    }],
    api: { hosts: ['api.xero.com'], need: { 'xero-tenant-id': '70784a63-d24b-46a9-a4db-0e70a274b056' } },
    revoke: { at: 'https://identity.xero.com/connect/revocation', auth: ['basic'], kinds: ['refresh'] },
  },
  {
    id: 'freshbooks', basis: 'prose', sources: ['freshbooks/freshbooks-nodejs-sdk APIClient.ts'],
    connect: { scopes: ['user:profile:read', 'user:invoices:read', 'user:clients:read', 'user:expenses:read'] },
    authorize: { at: 'https://auth.freshbooks.com/oauth/authorize' }, pkce: 'ignored',
    token: { at: 'https://api.freshbooks.com/auth/oauth/token', format: ['json'] },
    refresh: { need: { redirect_uri: 'https://app.example/callback/freshbooks' } },
    lifetimes: { access: 43200 }, rotates: 'always',
    answer: (t) => ({ ...bearer(t), scope: t.scopes.join(' '), created_at: t.now, direct_buy_tokens: {} }),
    lookups: [{
      at: 'https://api.freshbooks.com/auth/api/v1/users/me',
      answer: () => ({ response: { id: 12, business_memberships: [{ id: 1, business: { id: 77128, account_id: 'xZNQ1X', business_uuid: 'a7a0c6a0' } }] } }),
    }],
    api: { hosts: ['api.freshbooks.com'] },
    revoke: { at: 'https://api.freshbooks.com/auth/oauth/revoke', format: ['json'], answer: [200, {}] },
  },
  {
    id: 'sage_accounting', basis: 'prose', sources: ['https://developer.sage.com/accounting/guides/authenticating/authentication'],
    connect: { scopes: ['readonly'] },
    authorize: { at: 'https://www.sageone.com/oauth2/auth/central', need: { filter: 'apiv3.1' } }, pkce: 'ignored',
    token: { at: 'https://oauth.accounting.sage.com/token' },
    lifetimes: { access: 300, refresh: 2678400 }, rotates: 'always',
    answer: (t, grant) => ({ ...bearer(t), scope: t.scopes.join(' '), refresh_token_expires_in: 2678400, requested_by_id: `person-${grant.user}` }),
    lookups: [{ at: 'https://api.accounting.sage.com/v3.1/businesses', answer: () => ({ $items: [{ id: 'b-1', displayed_as: 'Maple' }] }) }],
    api: { hosts: ['api.accounting.sage.com'] },
    revoke: { at: 'https://oauth.accounting.sage.com/revoke', kinds: ['refresh'] },
  },
  {
    id: 'sage_intacct', basis: 'uncertain', sources: ['https://developer.sage.com/intacct/docs/developer-portal/guides/oauth2'],
    uncertain: ['lifetimes, rotation and the path of revocation'],
    connect: { scopes: [], granted: [] },
    authorize: { at: 'https://api.intacct.com/ia/api/v1/oauth2/authorize', scope: { strict: false } },
    token: { at: 'https://api.intacct.com/ia/api/v1/oauth2/token' },
    lifetimes: { access: 21600 }, rotates: 'always', answer: bearer,
    api: { hosts: ['api.intacct.com'] },
    revoke: { at: 'https://api.intacct.com/ia/api/v1/oauth2/revoke' },
  },
  {
    id: 'gusto', basis: 'prose', sources: ['https://docs.gusto.com/app-integrations/docs/oauth2'],
    connect: { granted: ['companies:read', 'employees:read'], params: { gusto_version: '2026-06-15' } },
    authorize: { at: 'https://api.gusto.com/oauth/authorize', scope: null }, pkce: 'ignored',
    token: { at: 'https://api.gusto.com/oauth/token', format: ['json', 'form'] },
    refresh: { need: { redirect_uri: 'https://app.example/callback/gusto' } },
    lifetimes: { access: 7200 }, rotates: 'always',
    answer: (t) => ({ ...bearer(t), scope: t.scopes.join(' '), created_at: t.now }),
    lookups: [{
      at: 'https://api.gusto.com/v1/token_info',
      answer: () => ({ scope: 'companies:read employees:read', resource: { type: 'Company', uuid: 'b7845189-4010-45fb-9e0a-5fae4a4f7b7b' } }),
    }],
    api: { hosts: ['api.gusto.com'], need: { 'x-gusto-api-version': /^\d{4}-\d\d-\d\d$/ } },
  },
  {
    id: 'netsuite', basis: 'prose',
    sources: ['https://docs.oracle.com/en/cloud/saas/netsuite/ns-online-help/section_160855594402.html'],
    uncertain: ['the configurable lifetime of refresh tokens'],
    connect: { scopes: ['rest_webservices'], params: { account: '1234567-sb1' } },
    authorize: { at: 'https://{account}.app.netsuite.com/app/login/oauth2/authorize.nl' },
    callback: { extra: () => ({ role: '3', entity: '12', company: '1234567_SB1' }) },
    token: { at: 'https://{account}.suitetalk.api.netsuite.com/services/rest/auth/oauth2/v1/token', auth: ['basic'] },
    tokens: { access: (grant, n, p) => jwt({ sub: grant.user, n, exp: p.now() + 3600 }, { alg: 'PS256' }) },
    lifetimes: { access: 3600, refresh: 604800, fixed: true },
    answer: (t) => ({ access_token: t.access, ...(t.refresh && { refresh_token: t.refresh }), token_type: 'bearer', expires_in: '3600' }),
    api: {
      hosts: ['1234567-sb1.suitetalk.api.netsuite.com', '1234567-sb1.restlets.api.netsuite.com'],
      denied: [401, { title: 'Unauthorized', 'o:errorDetails': [{ detail: 'Invalid login attempt.' }] }],
    },
    revoke: {
      at: 'https://{account}.suitetalk.api.netsuite.com/services/rest/auth/oauth2/v1/revoke', auth: ['basic'], kinds: ['refresh'],
    },
  },
];
