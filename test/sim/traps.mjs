// traps.mjs: what integrations with these providers are known to fall into, each a
// claim named after it.  Prints TAP.  Environment: that of vault.mjs, with the
// people ada and ben; ONLY (ids, separated by blanks).
import { Broken, Person, control, dba, ending, finish, plan, say, until } from './vault.mjs';

const only = process.env.ONLY?.split(' ');
const described = new Map((await control('/providers')).map((p) => [p.id, p]));
const { rows: built } = await dba.query('SELECT name FROM oauth_vault.oauth_providers');
const known = new Set(built.map(({ name }) => name));
const traps = [];
const trap = (id, name, play) => traps.push({ id, name, play });
const day = 86400;
const seconds = (timestamp) => Math.round(new Date(timestamp).getTime() / 1000);
const near = (a, b, by = 120) => Math.abs(a - b) <= by;
const now = () => Math.round(Date.now() / 1000);

//
// How a provider says that a grant is gone, and what is not that
//
const bad = (status, body) => [status, body];
const spellings = [
  // id, what the answer to a refresh is, what it means
  ['slack', 'invalid_refresh_token with HTTP 200', bad(200, { ok: false, error: 'invalid_refresh_token' }), 'dead'],
  ['slack', 'token_revoked with HTTP 200', bad(200, { ok: false, error: 'token_revoked' }), 'dead'],
  ['slack', 'token_expired with HTTP 200', bad(200, { ok: false, error: 'token_expired' }), 'dead'],
  ['slack', 'account_inactive with HTTP 200', bad(200, { ok: false, error: 'account_inactive' }), 'dead'],
  ['slack', 'invalid_auth with HTTP 200', bad(200, { ok: false, error: 'invalid_auth' }), 'dead'],
  ['slack', 'ratelimited', bad(429, { ok: false, error: 'ratelimited' }), 'alive'],
  ['slack', 'internal_error with HTTP 200', bad(200, { ok: false, error: 'internal_error' }), 'alive'],
  ['github_app_user', 'bad_refresh_token with HTTP 200', bad(200, { error: 'bad_refresh_token', error_description: 'The refresh token passed is incorrect or expired.' }), 'dead'],
  ['github_app_user', 'incorrect_client_credentials with HTTP 200', bad(200, { error: 'incorrect_client_credentials' }), 'paused'],
  ['zoho', 'invalid_code with HTTP 200', bad(200, { error: 'invalid_code' }), 'dead'],
  ['zoho', 'invalid_code with HTTP 400', bad(400, { error: 'invalid_code' }), 'dead'],
  ['zoho', 'Access Denied for too many requests', bad(400, { error: 'Access Denied', error_description: 'You have made too many requests continuously. Please try again after some time.', status: 'failure' }), 'alive'],
  ['twitter_x', 'invalid_request about the token\'s value', bad(400, { error: 'invalid_request', error_description: 'Value passed for the token was invalid.' }), 'dead'],
  ['twitter_x', 'invalid_request about something else', bad(400, { error: 'invalid_request', error_description: 'Missing required parameter [grant_type].' }), 'alive'],
  ['auth0', 'invalid_grant with HTTP 403', bad(403, { error: 'invalid_grant', error_description: 'Unknown or invalid refresh token.' }), 'dead'],
  ['auth0', 'too_many_requests', bad(429, { error: 'too_many_requests', error_description: 'Global limit has been reached' }), 'alive'],
  ['reddit', 'a numeric error', bad(400, { message: 'Bad Request', error: 400 }), 'dead'],
  ['reddit', 'a numeric 429', bad(429, { message: 'Too Many Requests', error: 429 }), 'alive'],
  ['atlassian', 'unauthorized_client with HTTP 403', bad(403, { error: 'unauthorized_client', error_description: 'Unknown or invalid refresh token.' }), 'dead'],
  ['atlassian', 'access_denied: the wrong client secret', bad(401, { error: 'access_denied', error_description: 'Unauthorized' }), 'paused'],
  ['hubspot', 'BAD_REFRESH_TOKEN in its own shape', bad(400, { status: 'BAD_REFRESH_TOKEN', message: 'missing or invalid refresh token', correlationId: 'c' }), 'dead'],
  ['google', 'invalid_rapt: the workspace wants a new login', bad(400, { error: 'invalid_grant', error_subtype: 'invalid_rapt', error_description: 'reauth related error (invalid_rapt)' }), 'dead'],
  ['microsoft', 'interaction_required', bad(400, { error: 'interaction_required', error_codes: [50076], suberror: 'basic_action' }), 'dead'],
  ['microsoft', 'invalid_client: the secret has expired', bad(401, { error: 'invalid_client', error_codes: [7000222] }), 'paused'],
  ['salesforce', 'inactive_user', bad(400, { error: 'inactive_user', error_description: 'user is inactive' }), 'dead'],
  ['salesforce', 'inactive_org', bad(400, { error: 'inactive_org', error_description: 'organization is inactive' }), 'dead'],
  ['zoom', 'invalid_request with a reason', bad(400, { reason: 'Invalid Token!', error: 'invalid_request' }), 'dead'],
  ['pinterest', 'a code and a message', bad(400, { code: 283, message: 'Invalid request: invalid refresh token' }), 'dead'],
  ['twitch', 'a status and a message', bad(400, { status: 400, message: 'Invalid refresh token' }), 'dead'],
  ['square', 'ACCESS_TOKEN_REVOKED among errors', bad(401, { errors: [{ category: 'AUTHENTICATION_ERROR', code: 'ACCESS_TOKEN_REVOKED' }] }), 'dead'],
  ['paypal', 'invalid_refresh_token', bad(400, { error: 'invalid_refresh_token', error_description: 'No consent were granted' }), 'dead'],
  ['servicenow', 'access_denied with HTTP 401', bad(401, { error: 'access_denied', error_description: 'access_denied' }), 'dead'],
  ['tiktok', 'invalid_grant with HTTP 200', bad(200, { error: 'invalid_grant', error_description: 'Refresh token is invalid or expired.', log_id: '1' }), 'dead'],
  ['airtable', '409: another refresh is under way', bad(409, { error: 'conflict' }), 'alive'],
];
for (const [id, what, answer, meaning] of spellings) {
  const claims = { dead: 'is a dead grant', alive: 'is no dead grant', paused: 'is the connector\'s trouble, not the grant\'s' };
  trap(id, `${what} ${claims[meaning]}`, async (person, claim) => {
    if ((await person.connection())?.status !== 'active') await person.consent();
    await control('/next', { id, kind: 'refresh', answer });
    const ended = await ending(person.renew());
    const { status } = await person.connection();
    if (meaning === 'dead') {
      claim(ended.code === 'OV010' && status === 'reauth_required', [ended, status]);
    } else if (meaning === 'alive') {
      claim(ended.code === 'OV020' && status === 'active', [ended, status]);
      await until('the next try', async () => (await ending(person.renew())).code === '00000');
    } else {
      const { rows: [{ status: connector }] } = await dba.query('SELECT status FROM oauth_vault.oauth_connectors WHERE name = $1', [id]);
      claim(ended.code === 'OV022' && status === 'active' && connector === 'paused', [ended, status, connector]);
      await dba.query("SELECT oauth_vault.oauth_alter_connector($1, status => 'active')", [id]);
      await person.renew();
    }
  });
}

//
// Lifetimes that count from the consent: refreshing does not extend them
//
for (const [id, life] of [['linkedin', 365 * day], ['amazon_sp_api', 365 * day], ['ebay', 47304000], ['spotify', 15552000], ['netsuite', 7 * day]]) {
  trap(id, 'a refresh does not extend the fixed life', async (person, claim) => {
    await person.consent();
    const first = (await person.connection()).refresh_expires_at;
    await control('/later', { id, seconds: 1000 });
    await dba.query(`UPDATE oauth_vault.connection SET consented_at = consented_at - interval '1000 seconds', refresh_expires_at = refresh_expires_at - interval '1000 seconds'
      WHERE connector_id = (SELECT connector_id FROM oauth_vault.connector WHERE name = $1)`, [id]);
    await person.renew();
    const then = (await person.connection()).refresh_expires_at;
    claim(first && then && near(seconds(first), now() + life, 3 * day) && near(seconds(then), seconds(first) - 1000), [first, then]);
  });
}

//
// When an access token ends
//
for (const [id, what, end] of [
  ['salesforce', 'no expires_in: two hours from issued_at', () => now() + 7200],
  ['salesforce_sandbox', 'no expires_in: two hours from issued_at', () => now() + 7200],
  ['square', 'expires_at as ISO 8601', () => now() + 30 * day],
  ['clover', 'access_token_expiration as an epoch', () => now() + 1800],
  ['monday', 'exp of the token itself', () => now() + 1800],
  ['stripe_apps', 'nothing said: an hour', () => now() + 3600],
  ['netsuite', 'expires_in as a string', () => now() + 3600],
  ['gitlab', 'created_at and expires_in', () => now() + 7200],
  ['zendesk', 'as asked for', () => now() + 1800],
  ['mailchimp', 'expires_in 0 is never', () => Infinity],
  ['github_oauth_app', 'nothing said is never', () => Infinity],
  ['instagram', 'the short-lived token is exchanged for one of 60 days', () => now() + 60 * day],
  ['threads', 'the short-lived token is exchanged for one of 60 days', () => now() + 60 * day],
  ['facebook', 'the short-lived token is exchanged for one of 60 days', () => now() + 60 * day],
]) {
  trap(id, `expiry: ${what}`, async (person, claim) => {
    const { expires_at: found } = await person.consent();
    claim(end() === Infinity ? found === Infinity || String(found) === 'Infinity' : found && near(seconds(found), end()), found);
  });
}
trap('keycloak', 'refresh_expires_in 0 does not mean that the refresh token is over', async (person, claim) => {
  await person.consent();
  const { refresh_expires_at: found } = await person.connection();
  const { token } = await person.renew();
  claim(token && (found === null || found === Infinity || seconds(found) > now() + day), found);
});
trap('notion', 'a workspace may give no refresh token: the token is served as it is', async (person, claim) => {
  await control('/next', { id: 'notion', kind: 'token', answer: [200, { access_token: 'ntn_only', token_type: 'bearer', refresh_token: null, bot_id: 'b', workspace_id: 'w', owner: {} }] });
  await person.consent();
  claim((await person.token()).token === 'ntn_only' && (await person.connection()).expires_at === null, await person.connection());
});

//
// Races and lost answers
//
trap('github_app_user', 'the loser of a race does not declare the grant dead', async (person, claim) => {
  if ((await person.connection())?.status !== 'active') await person.consent();
  await control('/next', { id: person.p.id, kind: 'refresh', answer: described.get('github_app_user').dead, held: true });
  const sent = (await person.journal('refresh')).length;
  const losing = ending(person.renew());
  await until('the request', async () => (await person.journal('refresh')).length > sent);
  const winner = person.consent();
  await until('the consent\'s code', async () => (await person.journal('token')).length > 1);
  await control('/release', { id: person.p.id });
  await losing;
  await winner;
  const { status } = await person.connection();
  const { status: api } = await person.use(await person.credential());
  claim(status === 'active' && api === 200, [status, api]);
});
trap('slack', 'one workspace has one chain: a refresh for one person does not break the other', async (ada, claim) => {
  const ben = new Person(ada.p, 'ben');
  await ada.consent();
  await ben.consent();
  for (const person of [ada, ben, ada, ben]) await person.renew();
  const states = [];
  for (const person of [ada, ben]) {
    const { body } = await person.use(await person.credential());
    states.push([(await person.connection()).status, body.provider]);
  }
  claim(states.every(([status, api]) => status === 'active' && api === 'slack'), states);
});
for (const [id, why] of [['shopify', 'the old refresh token holds until the new one is used'], ['xero', 'the old refresh token may be sent again for half an hour'],
  ['atlassian', 'there is a short while in which the old one is taken again'], ['microsoft', 'the old one goes on']]) {
  trap(id, `a lost answer costs nothing: ${why}`, async (person, claim) => {
    await person.consent();
    await control('/next', { id, kind: 'refresh', lost: true });
    await ending(person.renew());
    await until('a token', async () => (await ending(person.renew())).code === '00000');
    const { status } = await person.use(await person.credential());
    claim(status === 200 && (await person.connection()).status === 'active', [status, (await person.refusals()).map((e) => e.refused)]);
  });
}
trap('airtable', 'after a lost answer the used refresh token is not sent again: that would end the whole grant', async (person, claim) => {
  await person.consent();
  const sent = (await person.journal('refresh')).length;
  await control('/next', { id: 'airtable', kind: 'refresh', lost: true });
  await ending(person.renew());
  await until('the verdict', async () => (await person.connection()).status === 'reauth_required');
  claim((await person.journal('refresh')).length === sent + 1, [await person.connection(), (await person.journal('refresh')).length - sent]);
});

//
// The way to the provider and back
//
const query = async (person) => (await person.begin()).authorization_url.split('?')[1];
trap('ebay', 'redirect_uri is the RuName and no URL', async (person, claim) => {
  const sent = new URLSearchParams(await query(person));
  claim(sent.get('redirect_uri') === 'Acme_Inc-AcmeInc-Acme-PRD-hqkvlq', sent.get('redirect_uri'));
});
trap('ebay', 'token_type is "User Access Token", the header is Bearer all the same', async (person, claim) => {
  await person.consent();
  claim(/^Bearer /.test((await person.credential()).header_value));
});
trap('cognito', 'a blank between scopes is %20', async (person, claim) => {
  const sent = await query(person);
  claim(/scope=openid%20email%20profile(&|$)/.test(sent), sent);
});
trap('linkedin', 'PKCE would break the web flow', async (person, claim) => claim(!/code_challenge/.test(await query(person))));
trap('google', 'only prompt=consent and access_type=offline bring a refresh token again', async (person, claim) => {
  const sent = await query(person);
  claim(/access_type=offline/.test(sent) && /prompt=consent/.test(sent), sent);
});
trap('clickup', 'response_type is left out', async (person, claim) => claim(!/response_type/.test(await query(person))));
trap('tiktok', 'the client is client_key', async (person, claim) => {
  const sent = new URLSearchParams(await query(person));
  claim(sent.get('client_key') === person.p.connect.clientId && !sent.has('client_id'), [...sent]);
});
trap('slack', 'scopes are separated by commas', async (person, claim) => {
  const sent = new URLSearchParams(await query(person));
  claim(sent.get('scope') === 'team:read,users:read,channels:read', sent.get('scope'));
});
trap('reddit', 'without duration=permanent there is no refresh token', async (person, claim) => claim(/duration=permanent/.test(await query(person))));
trap('dropbox', 'without token_access_type=offline there is no refresh token', async (person, claim) => claim(/token_access_type=offline/.test(await query(person))));

// A callback that is not as it should be: nothing is sent
async function refusedCallback(person, change, claim, code = 'OV030') {
  const sent = await person.away();
  const before = (await person.journal()).length;
  const url = new URL(sent.location);
  change(url.searchParams);
  const ended = await ending(person.back({ ...sent, location: url.toString() }));
  const strays = await control('/strays');
  claim(ended.code === code && (await person.journal()).length === before && strays.length === 0, [ended, strays]);
}
for (const id of ['intuit_quickbooks', 'intuit_quickbooks_sandbox']) {
  trap(id, 'a callback without realmId goes nowhere', (person, claim) => refusedCallback(person, (sent) => sent.delete('realmId'), claim));
  trap(id, 'the company is realmId of the callback, and stands in the API\'s address', async (person, claim) => {
    const { provider_subject: subject } = await person.consent();
    const { api_base: base } = await person.credential();
    claim(subject === '4620816365178132610' && base.endsWith('/v3/company/4620816365178132610'), [subject, base]);
  });
}
trap('shopify', 'a callback with another HMAC goes nowhere', (person, claim) => refusedCallback(person, (sent) => sent.set('hmac', 'a'.repeat(64)), claim));
trap('shopify', 'nor one without', (person, claim) => refusedCallback(person, (sent) => sent.delete('hmac'), claim));
trap('shopify', 'nor one in which another shop was put', (person, claim) => refusedCallback(person, (sent) => sent.set('shop', 'evil.myshopify.com'), claim));
trap('shopify', 'nor does a flow begin at a host that is no shop', async (person, claim) => {
  const ended = await ending(person.begin({ shop: 'evil.example' }));
  claim(ended.code !== '00000', ended);
});
trap('shopify', 'expiring tokens are asked for', async (person, claim) => {
  await person.consent();
  claim((await person.journal('token')).some((e) => JSON.parse(e.body).expiring === '1'));
});
trap('shopify', 'a write scope that stands for the read scope grants both', async (person, claim) => {
  const { scopes } = await person.consent();
  claim(['read_orders', 'write_orders'].every((s) => scopes.includes(s)), scopes);
});
trap('zoho', 'an accounts server that is none of Zoho\'s gets nothing', (person, claim) => refusedCallback(person,
  (sent) => sent.set('accounts-server', 'https://accounts.zoho.evil.example'), claim));
trap('oidc_generic', 'another issuer in the callback is refused', (person, claim) => refusedCallback(person, (sent) => sent.set('iss', 'https://evil.example'), claim, 'OV032'));
trap('instagram', 'the #_ behind the code is no part of it', async (person, claim) => {
  const sent = await person.away();
  const { status } = await person.back(sent);
  claim(sent.location.endsWith('#_') && status === 'active', sent.location);
});
trap('bigcommerce', 'the callback has no state: the application knows whom it sent', async (person, claim) => {
  const sent = await person.away();
  const { status } = await person.back(sent);
  claim(!/state=/.test(sent.location) && status === 'active', sent.location);
});

//
// What was granted
//
trap('strava', 'only the callback tells which scopes the person left ticked', async (person, claim) => {
  const { scopes } = await person.consent();
  const ended = await ending(person.token(null, ['activity:read']));
  claim(String(scopes) === 'read' && ended.code === 'OV011' && String(ended.detail?.missing_scopes) === 'activity:read', [scopes, ended]);
});
trap('github_oauth_app', 'scopes are asked for with blanks and answered with commas', async (person, claim) => {
  const { scopes } = await person.consent();
  claim(['read:user', 'user:email'].every((s) => scopes.includes(s)) && scopes.length === 2, scopes);
});
trap('twitch', 'scopes are answered as an array', async (person, claim) => claim(String((await person.consent()).scopes) === 'user:read:email'));
trap('google', 'a refresh without refresh token keeps the one there is', async (person, claim) => {
  await person.consent();
  await person.renew();
  await person.renew();
  claim((await person.use(await person.credential())).status === 200);
});
trap('salesforce', 'the API moves with a refresh', async (person, claim) => {
  await person.consent();
  const before = (await person.credential()).api_base;
  await person.renew();
  const after = (await person.credential()).api_base;
  claim(before === 'https://acme.my.salesforce.com' && after === 'https://acme-new.my.salesforce.com', [before, after]);
});
trap('google', 'the person\'s revocation ends the grant, and a token that is dead already is no failure', async (person, claim) => {
  await person.consent();
  await control('/kill', { id: 'google', user: person.user });
  await person.ask('SELECT oauth_vault.oauth_revoke($1, assertion => $2)', ['google']);
  const end = await until('the end', async () => {
    const found = await person.connection();
    return found.status === 'revoked' && found;
  });
  claim(end.provider_state === 'confirmed', end);
});

//
// What a revocation says, where saying it wrong ends more than was meant, or nothing
//
async function revocation(person) {
  await person.consent();
  const { token } = await person.token();
  await person.ask('SELECT oauth_vault.oauth_revoke($1, assertion => $2)', [person.p.id]);
  await until('the end', async () => (await person.connection()).status === 'revoked');
  return { token, sent: JSON.parse((await person.journal('revoke')).at(-1).body), end: await person.connection() };
}
trap('square', 'without revoke_only_access_token all of the merchant\'s tokens would end', async (person, claim) => {
  const { token, sent, end } = await revocation(person);
  const wanted = { access_token: token, client_id: person.p.connect.clientId, revoke_only_access_token: 'true' };
  claim(JSON.stringify(Object.entries(sent).sort()) === JSON.stringify(Object.entries(wanted)) && end.provider_state === 'confirmed', [Object.keys(sent), end.provider_state]);
});
trap('miro', 'the body of a revocation is JSON with names of its own', async (person, claim) => {
  const { token, sent, end } = await revocation(person);
  const wanted = { accessToken: token, clientId: person.p.connect.clientId, clientSecret: person.p.connect.secret };
  claim(JSON.stringify(Object.entries(sent).sort()) === JSON.stringify(Object.entries(wanted)) && end.provider_state === 'confirmed', [Object.keys(sent), end.provider_state]);
});

//
// A revocation that the provider refuses to this client
//
for (const { id, wrongSecret } of described.values()) {
  if (!wrongSecret) continue;
  trap(id, 'a revocation refused for a wrong secret is not taken for done', async (ada, claim) => {
    const person = new Person(ada.p, 'ben');
    await person.consent();
    await control('/next', { id, kind: 'revoke', answer: wrongSecret });
    await person.ask('SELECT oauth_vault.oauth_revoke($1, assertion => $2)', [id]);
    const tried = await until('the attempt', async () => {
      const { rows: [row] } = await dba.query(`SELECT r.state, r.attempts, r.next_attempt_at > now() AS waits FROM oauth_vault.revocation r JOIN oauth_vault.connector k USING (connector_id)
        WHERE k.name = $1 ORDER BY r.requested_at DESC LIMIT 1`, [id]);
      return (await person.journal('revoke')).some((e) => e.refused === 'as told') && row.attempts > 0 && (row.state !== 'queued' || row.waits) && row;
    });
    const { provider_state: state } = await person.connection();
    claim(state !== 'confirmed', [tried, state]);
  });
}

// One provider's traps one after another, several providers at a time
const byProvider = Map.groupBy ? Map.groupBy(traps, ({ id }) => id) : traps.reduce((map, t) => map.set(t.id, [...(map.get(t.id) ?? []), t]), new Map());
const waiting = [...byProvider].filter(([id]) => (!only || only.includes(id)) && known.has(described.get(id).connect.provider));
async function worker() {
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    const [id, plays] = next;
    const p = described.get(id);
    await Person.register(p);
    for (const { name, play } of plays) {
      let told = false;
      const claim = (condition, found) => {
        told = true;
        say(Boolean(condition), `${id}: ${name}`, found ?? null);
      };
      try {
        await play(new Person(p), claim);
        if (!told) say(false, `${id}: ${name}`, 'no claim was made');
      } catch (error) {
        const { code, message, detail } = error;
        if (!told) say(false, `${id}: ${name}`, { code, message, detail, stack: error instanceof Broken || code ? undefined : error.stack });
        else say(false, `${id}: ${name}, and goes on`, { code, message, detail });
        const last = (await new Person(p).refusals()).at(-1);
        if (last) console.log(`# last refused: ${last.kind}: ${last.refused}: ${last.query} ${last.body}`);
      }
    }
  }
}
await Promise.all(Array.from({ length: 8 }, worker));
plan();
await finish();
