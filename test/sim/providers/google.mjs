// google.mjs: Google, one authorization server for all products.
import { bearer } from '../engine.mjs';

const dead = [400, { error: 'invalid_grant', error_description: 'Token has been expired or revoked.' }];

// Refresh tokens are not replaced; one comes only with access_type=offline, and
// again only with prompt=consent.
const google = {
  basis: 'prose',
  sources: ['https://developers.google.com/identity/protocols/oauth2/web-server'],
  authorize: {
    at: 'https://accounts.google.com/o/oauth2/v2/auth', need: { access_type: 'offline', prompt: 'consent' },
  },
  callback: {
    makeCode: () => `4/0${Math.random().toString(36).slice(2)}`,
    extra: (grant) => ({ scope: grant.scopes.join(' ') }),
  },
  token: { at: 'https://oauth2.googleapis.com/token', auth: ['post', 'basic'] },
  tokens: { access: 'ya29.', refresh: '1//0' },
  lifetimes: { access: 3599 },
  answer(t, grant) {
    return {
      ...bearer(t), scope: t.scopes.join(' '),
      ...(t.scopes.includes('openid') && { id_token: this.idToken(grant, 'https://accounts.google.com') }),
    };
  },
  dead,
  revoke: {
    at: 'https://oauth2.googleapis.com/revoke', auth: ['none'], answer: [200, {}],
    gone: [400, { error: 'invalid_token', error_description: 'Token expired or revoked' }],
  },
};
const product = (id, host, scopes, more = {}) => ({
  ...google, id, connect: { scopes, ...more.connect },
  api: { hosts: [].concat(host), denied: [401, { error: { code: 401, status: 'UNAUTHENTICATED' } }], ...more.api },
});
const auth = (name) => `https://www.googleapis.com/auth/${name}`;

export default [
  product('google', ['www.googleapis.com', 'openidconnect.googleapis.com'], ['openid', 'email', 'profile']),
  product('google_analytics', ['analyticsdata.googleapis.com', 'analyticsadmin.googleapis.com'], [auth('analytics.readonly')]),
  product('google_gmail', 'gmail.googleapis.com', [auth('gmail.metadata'), auth('gmail.readonly')]),
  product('google_drive', 'www.googleapis.com', [auth('drive.file'), auth('drive.metadata.readonly')]),
  product('google_ads', 'googleads.googleapis.com', [auth('adwords')], {
    connect: { params: { developer_token: 'dev-tok-22' } },
    api: { need: { 'developer-token': 'dev-tok-22' } },
  }),
  product('google_calendar', 'www.googleapis.com', [auth('calendar.readonly')]),
  product('google_sheets', 'sheets.googleapis.com', [auth('spreadsheets.readonly')]),
];
