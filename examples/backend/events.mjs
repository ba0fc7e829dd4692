// events.mjs NAME: a consumer of oauth_vault's events, one JSON line for each.
//
// A notification on the channel "oauth_vault" says that there is something to
// read; what there is comes from oauth_events, and comes again until
// oauth_events_done says that it has been dealt with.  Both are in one
// transaction, so that whatever you write to this database while you act on an
// event is written exactly once.  Something outside (a mail, a message) happens
// at least once: let it carry the event_id.
//
// Environment: PG* of the database, role with oauth_vault_admin.
import pg from 'pg';

const consumer = process.argv[2] ?? 'example';
const POLL_MS = 30_000; // notifications are not kept for who is away

const client = new pg.Client();
let wake = () => {};
client.on('notification', () => wake());
client.on('error', (error) => { console.error(error.message); process.exit(1); }); // started again, it goes on where it was
await client.connect();

async function act(event) { // yours: mail the person, close the ticket, stop the job
  console.log(JSON.stringify(event));
}

// Returns whether there may be more.
async function batch(max) {
  await client.query('BEGIN');
  const { rows } = await client.query('SELECT * FROM oauth_vault.oauth_events($1, $2)', [consumer, max]);
  for (const event of rows) await act(event);
  if (rows.length) await client.query('SELECT oauth_vault.oauth_events_done($1, $2)', [consumer, rows.at(-1).event_id]);
  await client.query('COMMIT');
  return rows.length === max;
}

await client.query('LISTEN oauth_vault');
for (;;) {
  const woken = new Promise((resolve) => { wake = resolve; setTimeout(resolve, POLL_MS); }); // before looking: none is missed
  while (await batch(100));
  await woken;
}
