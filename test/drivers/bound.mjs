// bound.mjs HOST PORT USER SQL VALUE...: one statement with bound parameters;
// prints the first column of the first row.
import { createRequire } from 'node:module';
const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Client } = require('pg');
const [host, port, user, text, ...values] = process.argv.slice(2);
const client = new Client({ host, port: Number(port), user, database: 'postgres' });
await client.connect();
try {
  const result = await client.query({ text, values, rowMode: 'array' });
  console.log(result.rows[0]?.[0] ?? '');
} catch (error) {
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
} finally {
  await client.end();
}
