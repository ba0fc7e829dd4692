// story-node.mjs: connect, use and revoke from node-postgres: bound parameters,
// autocommit through a pool, a prepared statement, error objects.  Prints TAP.
// Environment: PGHOST PGPORT PGUSER PGDATABASE, CONNECTOR, ASSERTION (of PERSON),
// CA (file), ISSUER (idp.mjs).
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { get } from 'node:https';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Pool } = require('pg');

const { CONNECTOR: connector, ASSERTION: assertion, CA: ca, ISSUER: issuer, PERSON: person } = process.env;

let count = 0;
function ok(condition, claim, found) {
  count += 1;
  console.log(`${condition ? 'ok' : 'not ok'} ${count} - ${claim}`);
  if (condition) return;
  process.exitCode = 1;
  console.log(`# found: ${JSON.stringify(found)}`);
}

// The error that a promise ends with.
const errorOf = (promise) => promise.then(() => ({ code: 'none' }), (error) => error);
const described = ({ code, message, detail, hint }) => ({ code, message, detail, hint });

function isObject(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' && value !== null;
  } catch {
    return false;
  }
}

function userinfo(token) {
  return new Promise((resolve, reject) => {
    get(`${issuer}/me`, { ca: readFileSync(ca), headers: { authorization: `Bearer ${token}` } }, (response) => {
      let body = '';
      response.on('data', (chunk) => { body += chunk; });
      response.on('end', () => resolve({ status: response.statusCode, body }));
    }).on('error', reject);
  });
}

const freshToken = 'SELECT oauth_vault.oauth_fresh_token($1, assertion => $2) AS token';

async function connect(pool) {
  const begun = await pool.query(
    'SELECT authorization_url FROM oauth_vault.oauth_begin($1, assertion => $2)', [connector, assertion]);
  const url = begun.rows[0].authorization_url;
  ok(url.startsWith(`${issuer}/`), 'oauth_begin answers with a URL of the authorization server', url);

  const consent = fileURLToPath(new URL('consent.mjs', import.meta.url));
  const callback = execFileSync(process.execPath, [consent, url, '--user', person], { encoding: 'utf8' }).trim();
  const done = await pool.query(
    'SELECT connector, status FROM oauth_vault.oauth_callback($1, assertion => $2)', [callback, assertion]);
  ok(done.rows.length === 1 && done.rows[0].connector === connector && done.rows[0].status === 'active',
    'oauth_callback makes one active connection', done.rows);
}

async function useToken(pool) {
  const { rows: [{ token }] } = await pool.query(freshToken, [connector, assertion]);
  const { status, body } = await userinfo(token);
  ok(status === 200 && JSON.parse(body).sub === person, 'a token got in autocommit through the pool is the person\'s',
    { status, body });

  const { rows } = await pool.query(
    `SELECT connector, access_token, error_state, error_detail
       FROM oauth_vault.oauth_fresh_tokens($1, assertion => $2)`, [[connector, 'no such connector'], assertion]);
  const known = rows.find((row) => row.connector === connector);
  const unknown = rows.find((row) => row.connector === 'no such connector');
  ok(rows.length === 2 && known?.access_token && known.error_state === null,
    'oauth_fresh_tokens has a token where there is one', rows.map((row) => [row.connector, row.error_state]));
  ok(unknown?.access_token === null && /^OV0(12|22)$/.test(unknown.error_state),
    'and an error state where there is none', unknown?.error_state);
}

async function usePreparedStatement(pool) {
  const client = await pool.connect();
  try {
    // More often than it takes for a plan to become generic.
    const tokens = [];
    for (let i = 0; i < 8; i += 1) {
      const { rows } = await client.query({ name: 'fresh', text: freshToken, values: [connector, assertion] });
      tokens.push(rows[0].token);
    }
    const { status } = await userinfo(tokens.at(-1));
    ok(tokens.every((token) => token?.length > 10) && status === 200, 'a prepared statement answers each of 8 times', status);

    const other = await errorOf(client.query({ name: 'fresh', text: freshToken, values: [connector, 'not.an.assertion'] }));
    ok(other.code === 'OV002', 'and judges the assertion of each call', described(other));
  } finally {
    client.release();
  }
}

async function readErrors(pool) {
  const unknown = await errorOf(pool.query(freshToken, ['no such connector', assertion]));
  ok(/^OV0(12|22)$/.test(unknown.code), 'an unknown connector has an SQLSTATE of its own', described(unknown));
  ok(isObject(unknown.detail), 'its detail is JSON', described(unknown));
  ok(unknown.hint?.length > 0, 'and its hint says what to do', described(unknown));

  const nobody = await errorOf(pool.query('SELECT oauth_vault.oauth_fresh_token($1)', [connector]));
  ok(nobody.code === 'OV001', 'without identity there is OV001', described(nobody));
}

async function useTransaction(pool) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await client.query('SELECT oauth_vault.oauth_identify($1)', [assertion]);
    const { rows: [{ token }] } = await client.query('SELECT oauth_vault.oauth_fresh_token($1) AS token', [connector]);
    await client.query('COMMIT');
    const { status } = await userinfo(token);
    ok(status === 200, 'oauth_identify binds the person for the transaction', status);
    const after = await errorOf(client.query('SELECT oauth_vault.oauth_fresh_token($1)', [connector]));
    ok(after.code === 'OV001', 'and no longer', described(after));
  } finally {
    client.release();
  }
}

async function revoke(pool) {
  const { rows } = await pool.query(
    'SELECT local_state FROM oauth_vault.oauth_revoke($1, assertion => $2)', [connector, assertion]);
  ok(rows.length === 1 && /^revok(ing|ed)$/.test(rows[0].local_state), 'oauth_revoke answers at once', rows);
  const gone = await errorOf(pool.query(freshToken, [connector, assertion]));
  ok(/^OV01[02]$/.test(gone.code), 'and there is no token any more', described(gone));
}

const pool = new Pool({ max: 3 });
try {
  await connect(pool);
  await useToken(pool);
  await usePreparedStatement(pool);
  await readErrors(pool);
  await useTransaction(pool);
  await revoke(pool);
} catch (error) {
  ok(false, 'the story comes to its end', described(error));
  console.error(error.stack);
} finally {
  await pool.end();
  console.log(`1..${count}`);
}
