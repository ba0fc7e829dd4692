// consent-browser.mjs URL --user NAME [--deny]: log in and consent at idp.mjs in
// headless Chromium; prints the URL that the person is sent back to.
// CA: file with the server's certificate authority.
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { parseArgs } from 'node:util';

const require = createRequire(new URL('../idp/package.json', import.meta.url));
const { chromium } = require('playwright-core');

const { values: options, positionals: [start] } = parseArgs({
  allowPositionals: true,
  options: { user: { type: 'string' }, deny: { type: 'boolean', default: false } },
});
if (!start || !options.user || !process.env.CA) {
  console.error('usage: CA=FILE consent-browser.mjs URL --user NAME [--deny]');
  process.exit(2);
}
const { origin, hostname, port } = new URL(start);

// Chromium takes its authorities from the user's profile only.  So the
// certificate is verified here, and the browser is told to trust that key.
function verifiedKey() {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: hostname, port: Number(port || 443), servername: hostname, ca: readFileSync(process.env.CA),
    }, () => {
      const { raw } = socket.getPeerCertificate();
      socket.end();
      const spki = new X509Certificate(raw).publicKey.export({ type: 'spki', format: 'der' });
      resolve(createHash('sha256').update(spki).digest('base64'));
    });
    socket.on('error', reject);
  });
}

async function consent(browser) {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  const sentBack = page.waitForRequest((request) => request.isNavigationRequest() && new URL(request.url()).origin !== origin);
  sentBack.catch(() => {}); // reported where it is awaited
  await page.goto(start);
  await page.fill('input[name=person]', options.user);
  await page.click('#login button');
  // The redirect leads to a host that does not exist; the click does not wait for it.
  await page.click(`#consent button[value=${options.deny ? 'deny' : 'allow'}]`, { noWaitAfter: true });
  return (await sentBack).url();
}

const home = mkdtempSync(join(tmpdir(), 'consent-'));
let browser;
try {
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home },
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
      '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
      `--ignore-certificate-errors-spki-list=${await verifiedKey()}`,
    ],
  });
  console.log(await consent(browser));
} catch (error) {
  console.error(`consent-browser: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  rmSync(home, { recursive: true, force: true });
}
