// drive.mjs: every provider's whole way through the real extension, several at a
// time.  Prints TAP: a line for each step of each provider.
//
// Environment: that of vault.mjs; ONLY (ids, separated by blanks).
import { Broken, Person, control, dba, ending, finish, plan, say, until } from './vault.mjs';

const { ONLY: only } = process.env;

async function walk(p) {
  const person = new Person(p);
  const step = (condition, claim, found) => {
    if (!say(condition, `${p.id}: ${claim}`, found)) throw new Broken(claim);
  };

  async function consent() {
    const sent = await person.away();
    step(sent.location?.startsWith(p.connect.redirect), 'the consent page sends the browser back', `${sent.page} at ${sent.authorization_url}`);
    const done = await person.back(sent);
    step(done.status === 'active', 'the code is exchanged', done);
  }

  async function use(claim) {
    const credential = await person.credential();
    if (p.api.templated) step(credential.api_base, 'the API\'s address comes with the token', credential.api_base);
    const { status, body } = await person.use(credential);
    step(status === 200 && body.whoami === person.user, claim, { status, body, base: credential.api_base, header: credential.header_name });
    return { token: credential.access_token, number: body.number, credential };
  }

  await consent();
  step((await person.refusals()).length === 0, 'nothing was refused', await person.refusals());
  const first = await use('the API takes the credential');

  const before = (await person.journal('refresh')).length;
  if (p.refresh === 'none') {
    const again = await use('its token is served for as long as it lives');
    step(again.token === first.token && (await person.journal('refresh')).length === 0, 'and there is nothing to refresh', again.number);
  } else {
    const aged = Math.max(3600, p.minAge + 60);
    if (p.minAge) await control('/later', { id: p.id, seconds: aged });
    await person.age(aged);
    await person.token('10 minutes');
    const sent = (await person.journal('refresh')).slice(before);
    step(sent.length === 1 && !sent[0].refused, 'refreshed by one request', sent);
    const next = await use('and the API takes the new one');
    step(next.token !== first.token && next.number > first.number, 'which is another', [first.number, next.number]);
  }

  // The person ends the app's access at the provider.
  const { token, credential } = await use('before the person leaves');
  const { killed } = await control('/kill', { id: p.id, user: person.user });
  const answer = await person.use(credential);
  step(killed > 0 && answer.body?.whoami === undefined, 'once the person has left, the API says no', answer);
  const attempts = (await person.journal('refresh')).length;
  const { result } = await person.ask('SELECT oauth_vault.oauth_report_rejected($1, $2, assertion => $3) AS result', [p.id, token]);
  step(result === 'reauth_required', 'and the provider\'s own words for it are understood', [result, (await person.refusals()).at(-1)?.refused]);
  const tried = (await person.journal('refresh')).length - attempts;
  step(p.refresh === 'standard' ? tried === 1 : tried <= 1, 'after one attempt', tried);
  const refused = await ending(person.token());
  step(refused.code === 'OV010' && (await person.journal('refresh')).length - attempts === tried, 'and none after it', refused);

  // And back, and away again, this time from our side.
  await consent();
  const last = await use('a new consent brings it back');
  await person.ask('SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)', [p.id]);
  const end = await until('the revocation', async () => {
    const row = await person.connection();
    return row.status === 'revoked' ? row : undefined;
  });
  step(end.provider_state === (p.revoke ? 'confirmed' : 'unsupported'), p.revoke ? 'revoked there too' : 'revocation is recorded as unsupported',
    [end.provider_state, (await person.refusals()).at(-1)?.refused, (await person.journal('revoke')).at(-1)]);
  const afterwards = await person.use(last.credential);
  step((afterwards.body?.whoami === undefined) === p.revoke, p.revoke ? 'the API no longer takes it' : 'and the token lives until it ends', afterwards);
  step((await person.refusals()).length === tried + (await person.journal('api')).filter((e) => e.refused).length, 'nothing else was refused',
    (await person.refusals()).map((e) => [e.kind, e.refused]));
}

const { rows: built } = await dba.query('SELECT name FROM oauth_vault.oauth_providers');
const names = new Set(built.map(({ name }) => name));
const all = (await control('/providers')).filter((p) => !only || only.split(' ').includes(p.id));
const there = all.filter((p) => names.has(p.connect.provider));
const absent = all.filter((p) => !names.has(p.connect.provider));
say(built.every(({ name }) => only || all.some((p) => p.connect.provider === name)), 'every provider of the catalogue has a simulator', built);
say(absent.length === 0, 'and every simulator a provider', absent.map((p) => p.id));

// One walk at a time for each worker, eight workers
const passed = [];
const waiting = [...there];
async function worker() {
  for (let p = waiting.shift(); p; p = waiting.shift()) {
    try {
      await Person.register(p);
      await walk(p);
      passed.push(p);
    } catch (error) {
      if (error instanceof Broken) say(false, `${p.id}: stopped`, error.message);
      else say(false, `${p.id}: an error`, { code: error.code, message: error.message, detail: error.detail, hint: error.hint, stack: error.code ? undefined : error.stack });
      const last = (await control('/journal', { id: p.id })).filter((e) => e.refused).at(-1);
      if (last) console.log(`# last refused: ${last.kind}: ${last.refused}: ${last.method} ${last.query} ${last.body}`);
    }
  }
}
await Promise.all(Array.from({ length: 8 }, worker));
const strays = await control('/strays');
say(strays.length === 0, 'no request went where nobody is', strays);
const split = (basis) => passed.filter((p) => p.basis === basis).length;
console.log(`# ${passed.length} of ${all.length} providers pass: ${split('example')} as documented by example, ${split('prose')} as documented in prose, ${split('uncertain')} uncertain`);
plan();
await finish();
