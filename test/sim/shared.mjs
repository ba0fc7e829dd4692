// shared.mjs: people whose connections have one chain of refresh tokens between them.
// Prints TAP.  Environment: that of vault.mjs, with the people ada, ben and cleo.
import { Person, control, dba, finish, plan, say, until } from './vault.mjs';

const p = (await control('/providers')).find(({ id }) => id === 'slack');
await Person.register(p);
const [ada, ben, cleo] = ['ada', 'ben', 'cleo'].map((user) => new Person(p, user));
const token = async (person, minTtl) => (await person.token(minTtl)).token;
const works = async (person) => (await person.use(await person.credential())).status === 200 && (await person.use(await person.credential())).body.ok !== false;
const refreshes = async () => (await ada.journal('refresh')).length;

await ada.consent();
await ben.consent();
const { rows: keys } = await dba.query("SELECT DISTINCT metadata ->> 'shared_key' AS key FROM oauth_vault.connection");
say(keys.length === 1 && keys[0].key === 'T9TK3CUKW', 'both connections are of one chain', keys);

await ada.age();
await ben.age();
const [first, second] = await Promise.all([token(ada, '10 minutes'), token(ben, '10 minutes')]);
say(await refreshes() === 1, 'two people who need a token at once: one request', await ada.journal('refresh'));
say(first === second, 'and both are given what it brought', [first, second]);
say(await works(ada) && await works(ben), 'which the API takes from both');

await ada.age();
await ben.age();
const third = await token(ben, '10 minutes');
say(third !== first && await token(ada, '10 minutes') === third && await refreshes() === 2, 'what one has refreshed the other has without asking', await refreshes());
const { rows: told } = await dba.query("SELECT DISTINCT user_id FROM oauth_vault.audit WHERE event = 'refreshed' ORDER BY 1");
say(told.length === 2, 'both people have it in their audit trail', told);

// The chain has moved on: an older link is not what is sent.
await dba.query("UPDATE oauth_vault.connection SET issued_at = now() - interval '2 hours' WHERE user_id = 'ada'");
await ada.age(7200);
await ben.age(60);
await token(ada, '10 minutes');
say((await ada.refusals()).length === 0 && await refreshes() === 3, 'the newest refresh token of them all is sent', await ada.refusals());

await ada.ask('SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)', [ada.connector]);
const left = await until('the end of ada\'s connection', async () => {
  const found = await ada.connection();
  return found?.status === 'revoked' ? found : undefined;
});
say(left.provider_state === 'unsupported' && (await ada.journal('revoke')).length === 0, 'one of them leaves: nothing is revoked that another lives by', left.provider_state);
say(await works(ben), 'and the other\'s token works as before');
await ben.renew();
say(await works(ben), 'also after the next refresh');

// A site's rules make nobody another's sibling.
await dba.query(`SELECT oauth_vault.oauth_set_provider('slack', '{"notes": ["ours"]}')`);
await cleo.consent();
const { rows: [{ marked }] } = await dba.query("SELECT metadata ? 'shared_key' AS marked FROM oauth_vault.connection WHERE user_id = 'cleo'");
say(marked === false, 'a consent under rules of a site is of no shared chain', marked);
await dba.query("SELECT oauth_vault.oauth_drop_provider('slack')");

await ben.ask('SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)', [ben.connector]);
const ended = await until('the end of ben\'s connection', async () => {
  const found = await ben.connection();
  return found?.status === 'revoked' ? found : undefined;
});
say(ended.provider_state === 'confirmed', 'the last of a chain is revoked at the provider', ended.provider_state);
plan();
await finish();
