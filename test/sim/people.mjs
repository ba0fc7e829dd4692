// people.mjs: three people at one shop, through one connector: one may only read,
// one may write the stock, one must not come near customers.  Each is asked for
// exactly that, is granted exactly that, and cannot ask for more.  Prints TAP.
// Environment: that of vault.mjs, with the people reader, stocker and clerk.
import { Person, control, dba, ending, finish, plan, say } from './vault.mjs';

const p = (await control('/providers')).find(({ id }) => id === 'shopify');
const all = ['read_products', 'read_inventory', 'write_inventory', 'read_orders', 'read_customers'];
await dba.query('SELECT oauth_vault.oauth_create_connector($1, $2, $3, $4, $5, scopes => $6, max_scopes => $7)',
  [p.id, 'shopify', p.connect.clientId, p.connect.secret, p.connect.redirect, ['read_products'], all]);
const policy = (user, allowed, asked) => dba.query('SELECT oauth_vault.oauth_set_scope_policy($1, $2, $3, $4, $5)', [p.id, '', user, allowed, asked]);
await policy('reader', ['read_products', 'read_inventory'], null);
await policy('stocker', ['read_products', 'read_inventory', 'write_inventory'], ['read_inventory', 'write_inventory']);
await policy('clerk', all.filter((scope) => scope !== 'read_customers'), ['read_products', 'read_orders']);

const people = [
  { user: 'reader', asked: 'read_products', granted: ['read_products'], denied: ['write_inventory'] },
  { user: 'stocker', asked: 'read_inventory,write_inventory', granted: ['read_inventory', 'write_inventory'], denied: ['read_orders'] },
  { user: 'clerk', asked: 'read_products,read_orders', granted: ['read_orders', 'read_products'], denied: ['read_customers'] },
];
for (const { user, asked, granted, denied } of people) {
  const person = new Person(p, user);
  const sent = await person.away();
  const scope = new URL(sent.authorization_url).searchParams.get('scope');
  say(scope === asked, `${user}: the consent page is asked for exactly ${asked}`, scope);
  const { scopes } = await person.back(sent);
  say(String([...scopes].sort()) === String(granted), `${user}: and exactly that is granted`, scopes);
  const { body } = await person.use(await person.credential());
  say(body.whoami === user, `${user}: the token is this person's`, body);
  const more = await ending(person.begin(undefined, denied));
  say(more.code === 'OV014' && JSON.stringify(more.detail).includes(denied[0]), `${user}: ${denied} cannot be asked for, and the error names it`, more);
  const beyond = await ending(person.token(null, denied));
  say(beyond.code === 'OV011', `${user}: nor is a token given out for it`, beyond);
}

// What the person allows is a ceiling of their own, also for whoever acts for them.
const stocker = new Person(p, 'stocker');
await stocker.ask('SELECT oauth_vault.oauth_set_my_limit($1, $2, assertion => $3)', [p.id, ['read_products', 'read_inventory']]);
const limited = await ending(stocker.begin(undefined, ['write_inventory']));
say(limited.code === 'OV014', 'stocker: their own limit holds below what the administrator allows', limited);

// An administrator takes a scope away from one of them: the others notice nothing.
await policy('clerk', ['read_products'], null);
const narrowed = await ending(new Person(p, 'clerk').begin(undefined, ['read_orders']));
const { authorization_url: other } = await new Person(p, 'reader').begin(undefined, ['read_products', 'read_inventory']);
say(narrowed.code === 'OV014' && /scope=read_products%2Cread_inventory/.test(other), 'clerk: a narrower policy binds this person and nobody else', [narrowed, other]);
plan();
await finish();
