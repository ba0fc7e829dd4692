// cluster.mjs: a PostgreSQL cluster that is there to be killed.
import { execFile, execFileSync } from 'node:child_process';
import { createPrivateKey, randomUUID, sign } from 'node:crypto';
import {
  appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';

const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { Client } = require('pg');
const run = promisify(execFile);
export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

export class Cluster {
  constructor(dir, { hosts, ca, settings = '' }) {
    this.dir = dir;
    this.data = `${dir}/data`;
    this.log = `${dir}/server.log`;
    this.port = 5432;
    this.orders = 0;
    mkdirSync(dir, { recursive: true });
    execFileSync('initdb', ['-D', this.data, '-A', 'trust', '-U', 'postgres', '--no-sync', '-E', 'UTF8', '--locale=C']);
    const vault = `${dir}/vault.json`;
    execFileSync('oauth-vault-keyring', ['init', '--file', vault, '--vault', 'torture', '--allow-network', '127.0.0.0/8',
      ...hosts.flatMap((host) => ['--allow-host', host])]);
    this.signing = JSON.parse(readFileSync(`${vault}.signing-key.json`));
    // Processes die here, not the machine: what is written stays written without fsync.
    appendFileSync(`${this.data}/postgresql.conf`, `
shared_preload_libraries = 'oauth_vault'
oauth_vault.vault_file = '${vault}'
oauth_vault.ca_file = '${ca}'
listen_addresses = ''
unix_socket_directories = '${dir}'
max_worker_processes = 16
max_connections = 60
shared_buffers = 32MB
fsync = off
restart_after_crash = on
log_line_prefix = '%m [%p] %b '
${settings}
`);
  }

  // ---- the server ----

  async start() {
    for (let i = 0; ; i += 1) {
      try {
        await run('pg_ctl', ['-D', this.data, '-l', this.log, '-w', '-t', '60', '-s', 'start'], { timeout: 70_000 });
        return;
      } catch (error) {
        if (i >= 100) throw error;
        await sleep(100); // children of a killed postmaster are still there
      }
    }
  }

  stop(mode = 'fast') { return run('pg_ctl', ['-D', this.data, '-m', mode, '-w', '-t', '60', '-s', 'stop']); }

  get postmaster() {
    try {
      return Number(readFileSync(`${this.data}/postmaster.pid`, 'utf8').split('\n')[0]);
    } catch {
      return 0;
    }
  }

  // Our workers, by their titles: the key worker is in no view of the database.
  async workers() {
    const postmaster = this.postmaster;
    if (!postmaster) return [];
    try {
      const { stdout } = await run('ps', ['-o', 'pid=,args=', '--ppid', String(postmaster)]);
      return stdout.split('\n').flatMap((line) => {
        const [, pid, kind] = /^\s*(\d+) .*oauth_vault (launcher|key worker|network worker|audit writer)/.exec(line) ?? [];
        return pid ? [{ pid: Number(pid), kind }] : [];
      });
    } catch {
      return []; // no children, or no postmaster any more
    }
  }

  // ---- orders to named points (src/debug_point.c) ----

  order(action, skip, name) {
    this.orders += 1;
    writeFileSync(`${this.data}/order.new`, `${this.orders} ${action} ${skip} ${name}\n`);
    renameSync(`${this.data}/order.new`, `${this.data}/oauth_vault.point`);
    return this.orders;
  }

  withdraw() { rmSync(`${this.data}/oauth_vault.point`, { force: true }); }

  stay() { rmSync(`${this.data}/oauth_vault.point.go`, { force: true }); }

  go() { writeFileSync(`${this.data}/oauth_vault.point.go`, ''); }

  // {pid, name} once the order has been carried out
  carriedOut(id) {
    const file = `${this.data}/oauth_vault.point.done`;
    if (!existsSync(file)) return null;
    const line = readFileSync(file, 'utf8').trimEnd().split('\n').at(-1);
    const [, done, pid, name] = /^(\d+) (\d+) (.*)$/.exec(line) ?? [];
    return Number(done) === id ? { pid: Number(pid), name } : null;
  }

  async waitFor(id, ms) {
    const until = Date.now() + ms;
    do {
      const done = this.carriedOut(id);
      if (done) return done;
      await sleep(5);
    } while (Date.now() < until);
    this.withdraw();
    return this.carriedOut(id);
  }

  // ---- sessions ----

  async connect(user = 'app', database = 'postgres') {
    const client = new Client({ host: this.dir, port: this.port, user, database, connectionTimeoutMillis: 5000 });
    client.on('error', () => {}); // the query says so, too
    await client.connect();
    return client;
  }

  // As the superuser, one after the other, trying until the server answers.
  query(text, values) {
    const answer = (this.last ?? Promise.resolve()).then(() => this.queryNow(text, values));
    this.last = answer.catch(() => {});
    return answer;
  }

  async queryNow(text, values) {
    for (let i = 0; ; i += 1) {
      try {
        this.admin ??= await this.connect('postgres');
        return (await this.admin.query(text, values)).rows;
      } catch (error) {
        if (!isCrash(error) || i > 600) throw error;
        this.admin?.end().catch(() => {});
        this.admin = null;
        await sleep(50);
      }
    }
  }

  // RFC 7519 assertion of who the user is, as the application's backend would make it
  assertion(user) {
    const { jwk, issuer, audience } = this.signing;
    const now = Math.floor(Date.now() / 1000);
    const text = `${b64({ alg: 'EdDSA', typ: 'JWT', ...(jwk.kid ? { kid: jwk.kid } : {}) })}.${b64({
      iss: issuer, aud: audience, sub: user, iat: now, exp: now + 300, jti: randomUUID(),
    })}`;
    this.privateKey ??= createPrivateKey({ key: jwk, format: 'jwk' });
    return `${text}.${sign(null, Buffer.from(text), this.privateKey).toString('base64url')}`;
  }
}

// Did the session end with the server, rather than the statement with an answer?
export function isCrash(error) {
  return !error.code || /^(57P0[123]|08|ECONN|ENOENT|EPIPE|ETIMEDOUT)/.test(error.code);
}
