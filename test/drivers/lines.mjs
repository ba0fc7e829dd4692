// lines.mjs HOST PORT: sessions that stay open.  One JSON line in, one out:
//   {"session": "a", "user": "app", "text": "SELECT $1", "values": ["x"]}
// values: bound parameters; without them the simple protocol, as psql has it.
// Out: {"rows": [[...]], "pid": 1} of the last statement, or {"code", "error"}.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Client } = require('pg');
const [host, port] = process.argv.slice(2);
const sessions = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const { session, user, text, values } = JSON.parse(line);
  if (!sessions.has(session)) {
    const client = new Client({ host, port: Number(port), user, database: 'postgres', application_name: session });
    client.on('error', () => {});
    await client.connect();
    sessions.set(session, client);
  }
  const client = sessions.get(session);
  try {
    const result = await client.query({ text, values, rowMode: 'array' });
    const last = Array.isArray(result) ? result.at(-1) : result;
    console.log(JSON.stringify({ rows: last.rows, pid: client.processID }));
  } catch (error) {
    console.log(JSON.stringify({ code: error.code ?? '?', error: error.message, pid: client.processID }));
  }
}
await Promise.all([...sessions.values()].map((c) => c.end()));
