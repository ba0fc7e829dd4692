// commerce.mjs: shops, marketplaces and payments.
import { createHash } from 'node:crypto';
import { bearer, hmac } from '../engine.mjs';

const shop = 'some-shop.myshopify.com';
// A write scope contains the read scope, and the answer names the write alone.
const collapsed = (scopes) => scopes.filter((s) => !(s.startsWith('read_') && scopes.includes(s.replace('read_', 'write_'))));

const amazon = {
  basis: 'uncertain', uncertain: ['the shapes of answers and errors'],
  sources: ['airbytehq/airbyte-platform oauth/flows'],
  authorize: { at: 'https://www.amazon.com/ap/oa' },
  token: { at: 'https://api.amazon.com/auth/o2/token' },
  tokens: { access: 'Atza|', refresh: 'Atzr|' },
  lifetimes: { access: 3600 },
  repeatsRefresh: true,
  answer: (t) => ({ ...bearer(t), token_type: 'bearer' }),
};

export default [
  {
    id: 'shopify', basis: 'prose',
    sources: ['https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/offline-access-tokens',
      'https://shopify.dev/changelog/offline-access-tokens-now-support-expiry-and-refresh', 'Shopify/shopify-app-js lib/auth/oauth'],
    uncertain: ['the refresh token lives 90 days'],
    connect: { begin: { shop }, scopes: ['read_products', 'read_orders', 'write_orders', 'read_customers'] },
    authorize: {
      at: `https://${shop}/admin/oauth/authorize`, responseType: 'any', never: ['grant_options[]'],
      scope: { separator: ',', known: ['read_inventory', 'write_inventory'] },
    },
    pkce: 'ignored',
    callback: {
      signed: (given, provider) => {
        const all = { ...given, shop, host: 'c29tZS1zaG9wLm15c2hvcGlmeS5jb20vYWRtaW4', timestamp: String(provider.now()) };
        const text = Object.keys(all).sort().map((name) => `${name}=${all[name]}`).join('&');
        return { ...all, hmac: hmac(provider.secret, text) };
      },
    },
    token: { at: `https://${shop}/admin/oauth/access_token`, format: ['json', 'form'], grant: false, redirect: 'none', need: { expiring: /^1$/ } },
    tokens: { access: 'shpat_', refresh: 'shprt_' },
    lifetimes: { access: 3600, refresh: 7776000 }, rotates: 'always', grace: 'until the next is used',
    answer: (t) => ({
      access_token: t.access, scope: collapsed(t.scopes).join(','), expires_in: 3600, refresh_token: t.refresh, refresh_token_expires_in: 7776000,
    }),
    api: { hosts: [shop], header: 'x-shopify-access-token', scheme: '', denied: [401, { errors: '[API] Invalid API key or access token' }] },
    revoke: {
      at: `https://${shop}/admin/api_permissions/current.json`, method: 'DELETE', auth: ['none'], format: ['none'], kinds: ['access'],
      bearer: { header: 'x-shopify-access-token', scheme: '' }, answer: [200, {}],
    },
  },
  {
    ...amazon, id: 'amazon_lwa', connect: { scopes: ['profile:user_id', 'profile'] },
    api: { hosts: ['api.amazon.com'] },
  },
  {
    ...amazon, id: 'amazon_ads', connect: { scopes: ['advertising::campaign_management'] },
    lookups: [{ at: 'https://advertising-api.amazon.com/v2/profiles', answer: () => [{ profileId: 7712, countryCode: 'US' }] }],
    api: { hosts: ['advertising-api.amazon.com'], need: { 'amazon-advertising-api-clientid': (g, p) => p.clientId } },
  },
  {
    ...amazon, id: 'amazon_sp_api', basis: 'prose',
    sources: ['https://developer-docs.amazon.com/sp-api/docs/authorize-public-applications', 'https://developer-docs.amazon.com/sp-api/docs/renew-authorizations'],
    connect: { params: { seller_central_host: 'sellercentral.amazon.com', application_id: 'amzn1.sp.solution.a1b2' }, applicationId: 'amzn1.sp.solution.a1b2' },
    authorize: {
      at: 'https://sellercentral.amazon.com/apps/authorize/consent', names: { client_id: 'application_id' }, responseType: 'any',
      redirect: 'optional', scope: null, never: ['client_id'],
    },
    pkce: 'refused',
    callback: { code: 'spapi_oauth_code', extra: () => ({ selling_partner_id: 'A3FHEXAMPLE', mws_auth_token: 'amzn.mws.1' }) },
    token: { ...amazon.token, redirect: 'optional' },
    lifetimes: { access: 3600, refresh: 31536000, fixed: true },
    api: { hosts: ['sellingpartnerapi-na.amazon.com'], header: 'x-amz-access-token', scheme: '', denied: [403, { errors: [{ code: 'Unauthorized' }] }] },
  },
  {
    id: 'ebay', basis: 'prose', sources: ['https://developer.ebay.com/api-docs/static/oauth-refresh-token-request.html'],
    connect: {
      scopes: ['https://api.ebay.com/oauth/api_scope', 'https://api.ebay.com/oauth/api_scope/sell.inventory.readonly'],
      params: { ru_name: 'Acme_Inc-AcmeInc-Acme-PRD-hqkvlq' }, ruName: 'Acme_Inc-AcmeInc-Acme-PRD-hqkvlq',
    },
    authorize: { at: 'https://auth.ebay.com/oauth2/authorize' }, pkce: 'ignored',
    callback: { makeCode: () => `v^1.1#i^1#${Math.random()}`, extra: () => ({ expires_in: '299' }) },
    token: { at: 'https://api.ebay.com/identity/v1/oauth2/token', auth: ['basic'] },
    tokens: { access: 'v^1.1#i^1#p^3#', refresh: 'v^1.1#i^1#r^1#' },
    lifetimes: { access: 7200, refresh: 47304000, fixed: true },
    answer: (t) => ({
      access_token: t.access, expires_in: 7200, ...(t.refresh && { refresh_token: t.refresh, refresh_token_expires_in: 47304000 }),
      token_type: 'User Access Token',
    }),
    api: { hosts: ['api.ebay.com', 'apiz.ebay.com'], denied: [401, { errors: [{ errorId: 1001, message: 'Invalid access token' }] }] },
  },
  {
    id: 'etsy', basis: 'prose', sources: ['https://developers.etsy.com/documentation/essentials/authentication/'],
    uncertain: ['since when x-api-key carries the shared secret'],
    // The API wants the shared secret, which only the application may add.
    connect: { scopes: ['shops_r', 'listings_r', 'transactions_r'], application: { 'x-api-key': 'client-of-etsy:secret-of-etsy' } },
    authorize: { at: 'https://www.etsy.com/oauth/connect' }, pkce: 'required',
    token: { at: 'https://api.etsy.com/v3/public/oauth/token', auth: ['none'], never: ['client_secret'] },
    refresh: { never: ['client_secret', 'scope'] },
    tokens: { access: '12345678.', refresh: '12345678.' },
    lifetimes: { access: 3600, refresh: 7776000 }, rotates: 'always', answer: bearer,
    api: { hosts: ['api.etsy.com', 'openapi.etsy.com'], need: { 'x-api-key': (g, p) => `${p.clientId}:${p.secret}` } },
  },
  {
    id: 'square', basis: 'prose', sources: ['square/connect-api-specification api.json'],
    connect: { scopes: ['MERCHANT_PROFILE_READ', 'PAYMENTS_READ', 'ORDERS_READ', 'ITEMS_READ'], params: { square_version: '2026-10-15' } },
    authorize: { at: 'https://connect.squareup.com/oauth2/authorize', need: { session: 'false' }, responseType: 'any' },
    token: { at: 'https://connect.squareup.com/oauth2/token', format: ['json', 'form'] },
    tokens: { access: 'EAAA', refresh: 'EQAA' },
    // With PKCE it takes the client for a public one: refresh tokens are replaced.
    lifetimes: { access: 2592000 }, repeatsRefresh: true, rotates: (grant) => grant.challenge !== undefined,
    answer: (t) => ({
      access_token: t.access, token_type: 'bearer', expires_at: new Date((t.now + 2592000) * 1000).toISOString().replace('.000', ''),
      merchant_id: 'MLXN5Y0B3FZ8J', refresh_token: t.refresh, short_lived: false,
    }),
    error: (code, why) => [401, { type: `unauthorized.${code}`, message: why }],
    dead: [401, { errors: [{ category: 'AUTHENTICATION_ERROR', code: 'ACCESS_TOKEN_REVOKED', detail: 'The access token is revoked.' }] }],
    api: { hosts: ['connect.squareup.com'], need: { 'square-version': /^\d{4}-\d\d-\d\d$/ } },
    revoke: {
      at: 'https://connect.squareup.com/oauth2/revoke', auth: ['none'], format: ['json'], kinds: ['access'], names: { token: 'access_token' },
      headers: { authorization: 'Client secret-of-square' }, answer: [200, { success: true }],
    },
  },
  {
    id: 'paypal', basis: 'uncertain', sources: ['better-auth social-providers', 'airbytehq/airbyte-platform oauth/flows'],
    uncertain: ['the refresh token\'s life', 'whether PKCE is supported', 'revocation'],
    connect: { scopes: ['openid', 'email'] },
    authorize: { at: 'https://www.paypal.com/signin/authorize' },
    token: { at: 'https://api-m.paypal.com/v1/oauth2/token', auth: ['basic'] },
    tokens: { access: 'A21AA', refresh: 'R23AA' },
    lifetimes: { access: 28800 },
    answer(t, grant) {
      return {
        ...bearer(t), scope: t.scopes.join(' '), nonce: '2026-11-25T00:00:00Zx', app_id: 'APP-80W284485P519543T',
        id_token: this.idToken(grant, 'https://www.paypal.com'),
      };
    },
    renewed: (t) => ({ ...bearer(t), scope: t.scopes.join(' ') }),
    dead: [400, { error: 'invalid_refresh_token', error_description: 'No consent were granted' }],
    api: { hosts: ['api-m.paypal.com'] },
  },
  {
    id: 'stripe_connect', basis: 'prose', sources: ['stripe/stripe-node src/resources/OAuth.ts'],
    uncertain: ['whether new Express platforms get OAuth'],
    connect: { scopes: ['read_only'] },
    authorize: { at: 'https://connect.stripe.com/oauth/authorize' }, pkce: 'ignored',
    token: { at: 'https://connect.stripe.com/oauth/token', redirect: 'optional' },
    tokens: { access: 'sk_test_', refresh: 'rt_' },
    answer: (t, grant) => ({
      ...bearer(t), token_type: 'bearer', scope: 'read_only', livemode: false, stripe_user_id: `acct_${grant.user}`, stripe_publishable_key: 'pk_test_1',
    }),
    api: { hosts: ['api.stripe.com'], denied: [401, { error: { type: 'invalid_request_error', code: 'account_invalid' } }] },
    revoke: {
      at: 'https://connect.stripe.com/oauth/deauthorize', auth: 'its own', need: { client_id: /^client-of-stripe_connect$/ },
      own(request, demand) {
        const header = request.headers.authorization ?? '';
        const key = header.startsWith('Basic ') ? Buffer.from(header.slice(6), 'base64').toString().replace(/:$/, '') : header.replace('Bearer ', '');
        demand(key === this.secret || request.parameters().client_secret === this.secret, 'invalid_client', 'No such API key');
        const account = request.parameters().stripe_user_id;
        const grants = this.grants.filter((g) => `acct_${g.user}` === account && !g.dead);
        demand(grants.length > 0, 'invalid_client', `This application is not connected to stripe account ${account}, or that account does not exist.`);
        for (const grant of grants) grant.dead = true;
        return [200, { stripe_user_id: account }];
      },
    },
  },
  {
    id: 'stripe_apps', basis: 'uncertain', sources: ['third-party catalogues'],
    uncertain: ['the authorize URL also appears with a link id in it'],
    connect: { granted: ['stripe_apps'] },
    authorize: { at: 'https://marketplace.stripe.com/oauth/v2/authorize', scope: null, responseType: 'any' },
    pkce: 'refused',
    token: { at: 'https://api.stripe.com/v1/oauth/token', auth: ['key'], never: ['client_id'], redirect: 'optional' },
    tokens: { access: 'sk_live_apps_', refresh: 'rt_apps_' },
    lifetimes: { refresh: 31536000 }, rotates: 'always',
    answer: (t, grant) => ({
      access_token: t.access, refresh_token: t.refresh, token_type: 'bearer', scope: 'stripe_apps', livemode: false,
      stripe_user_id: `acct_${grant.user}`, stripe_publishable_key: 'pk_live_1',
    }),
    api: { hosts: ['api.stripe.com'] },
  },
  {
    id: 'bigcommerce', basis: 'prose', sources: ['bigcommerce/docs docs/integrations/apps/guide/auth.mdx'],
    connect: { scopes: ['store_v2_orders', 'store_channel_listings_read_only'] },
    authorize: { at: 'https://login.bigcommerce.com/oauth2/authorize', responseType: 'any' }, pkce: 'ignored',
    callback: { state: false, extra: (grant) => ({ scope: grant.scopes.join(' '), context: 'stores/g5cd38', account_uuid: '12345678-90ab-cdef-1234-567890abcdef' }) },
    token: {
      at: 'https://login.bigcommerce.com/oauth2/token', format: ['json', 'form'],
      need: { context: 'stores/g5cd38', scope: 'store_v2_orders store_channel_listings_read_only' },
    },
    refresh: null,
    answer: (t, grant) => ({
      access_token: t.access, scope: t.scopes.join(' '), user: { id: 24654, email: `${grant.user}@shop.example` },
      owner: { id: 12345, email: `${grant.user}@shop.example` }, context: 'stores/g5cd38', account_uuid: '12345678-90ab-cdef-1234-567890abcdef',
    }),
    api: { hosts: ['api.bigcommerce.com'], header: 'x-auth-token', scheme: '', path: () => 'api.bigcommerce.com/stores/g5cd38' },
  },
  {
    id: 'wix', basis: 'prose', sources: ['https://dev.wix.com/docs/rest/api-reference/authorization/oauth-2/create-access-token'],
    authorize: {
      at: 'https://www.wix.com/installer/install', names: { client_id: 'appId', redirect_uri: 'redirectUrl' }, responseType: 'any', scope: null,
    },
    pkce: 'refused',
    // The app's instance on the person's site: the same each time
    callback: { code: 'instanceId', makeCode: (user) => createHash('sha256').update(user).digest('hex').replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/, '$1-$2-4$3-8$4-$5') },
    token: { at: 'https://www.wixapis.com/oauth2/token', format: ['json'], grantType: 'client_credentials', names: { code: 'instance_id' }, redirect: 'optional' },
    lifetimes: { access: 14400 },
    answer: (t) => ({ access_token: t.access, token_type: 'Bearer', expires_in: 14400 }),
    // There is no refresh token: the instance is asked about again.
    refresh: {
      is(sent) { return this.codes.get(sent.instance_id)?.used; },
      exchange({ sent, refuse }) {
        const { grant } = this.codes.get(sent.instance_id);
        if (grant.dead) refuse('the app has been removed');
        return [200, this.answer(this.issue(grant), grant)];
      },
    },
    dead: [400, { error: 'invalid_grant', error_description: 'the app is not installed' }],
    api: { hosts: ['www.wixapis.com'], scheme: '' },
  },
  {
    id: 'clover', basis: 'uncertain', sources: ['third-party catalogues'], uncertain: ['lifetimes'],
    connect: { scopes: [] },
    authorize: { at: 'https://www.clover.com/oauth/v2/authorize', scope: null, responseType: 'any' },
    callback: { extra: () => ({ merchant_id: '0BG5Q2ZJK5Y91', employee_id: '3QX2M9ZJK5Y91' }) },
    token: { at: 'https://api.clover.com/oauth/v2/token', format: ['json'], grant: false, redirect: 'optional' },
    refresh: { at: 'https://api.clover.com/oauth/v2/refresh', auth: ['none'], never: ['grant_type', 'client_secret'] },
    lifetimes: { access: 1800, refresh: 31536000 }, rotates: 'always',
    answer: (t) => ({
      access_token: t.access, access_token_expiration: t.now + 1800, refresh_token: t.refresh, refresh_token_expiration: t.now + 31536000,
    }),
    api: { hosts: ['api.clover.com'] },
  },
];
