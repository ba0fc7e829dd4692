// consent.mjs URL --user NAME [--deny]: log in and consent at idp.mjs the way a
// browser does, with plain HTTPS requests; prints the URL that the person is
// sent back to, at the first redirect away from the authorization server.
// consent.mjs --many: the same for each of [[URL, NAME], ...] on standard input,
// one line for each.
// CA: file with the server's certificate authority.
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { parseArgs } from 'node:util';

const { values: options, positionals: [start] } = parseArgs({
  allowPositionals: true,
  options: { user: { type: 'string' }, deny: { type: 'boolean', default: false }, many: { type: 'boolean', default: false } },
});
if (!process.env.CA || (!options.many && (!start || !options.user))) {
  console.error('usage: CA=FILE consent.mjs URL --user NAME [--deny] | --many');
  process.exit(2);
}
const people = options.many ? JSON.parse(readFileSync(0, 'utf8')) : [[start, options.user]];
const ca = readFileSync(process.env.CA);

// Cookies of the one origin, by name and path: flows side by side differ in path only.
const jar = new Map();
function keepCookies(response) {
  for (const line of response.headers['set-cookie'] ?? []) {
    const [pair, ...attributes] = line.split(/;\s*/);
    const attribute = (name) => attributes.find((a) => a.toLowerCase().startsWith(`${name}=`))?.slice(name.length + 1);
    const [, name, value] = /^([^=]+)=(.*)$/.exec(pair);
    const path = attribute('path') ?? '/';
    const expires = attribute('expires');
    if (expires && Date.parse(expires) <= Date.now()) jar.delete(`${name} ${path}`);
    else jar.set(`${name} ${path}`, { name, value, path });
  }
}
function cookiesFor({ pathname }) {
  return [...jar.values()]
    .filter(({ path }) => path === pathname || pathname.startsWith(path.endsWith('/') ? path : `${path}/`))
    .map(({ name, value }) => `${name}=${value}`).join('; ');
}

function fetchPage(url, form) {
  const headers = { accept: 'text/html', cookie: cookiesFor(url) };
  if (form) headers['content-type'] = 'application/x-www-form-urlencoded';
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { ca, headers, method: form ? 'POST' : 'GET', timeout: 30_000 }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => { body += chunk; });
      response.on('error', reject);
      response.on('end', () => {
        keepCookies(response);
        resolve({ status: response.statusCode, location: response.headers.location, body });
      });
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer in 30 seconds')));
    outgoing.on('error', reject);
    outgoing.end(form?.toString());
  });
}

// The answer to the form on a page, or null where there is none that we know.
function fillIn(body, person) {
  const [, action] = /<form [^>]*\baction="([^"]+)"/.exec(body) ?? [];
  if (!action) return null;
  if (body.includes('name="person"')) return { action, form: new URLSearchParams({ person }) };
  if (body.includes('name="decision"')) {
    return { action, form: new URLSearchParams({ decision: options.deny ? 'deny' : 'allow' }) };
  }
  return null;
}

async function consent(begin, person) {
  let url = new URL(begin);
  const { origin } = url;
  jar.clear();
  let form;
  for (let step = 0; step < 20; step += 1) {
    const { status, location, body } = await fetchPage(url, form);
    form = undefined;
    if (status >= 301 && status <= 303 && location) {
      url = new URL(location, url);
      if (url.origin !== origin) return url.href;
      continue;
    }
    const answer = status === 200 ? fillIn(body, person) : null;
    if (!answer) {
      const text = body.replace(/<head>.*<\/head>/s, '').replace(/<[^>]+>/g, ' ').replace(/\s+/g, ' ').trim();
      throw new Error(`unexpected answer ${status} at ${url.pathname}: ${text.slice(0, 500)}`);
    }
    url = new URL(answer.action, url);
    ({ form } = answer);
  }
  throw new Error('too many redirects');
}

try {
  for (const [begin, person] of people) console.log(await consent(begin, person));
} catch (error) {
  console.error(`consent: ${error.message || error.code}`);
  process.exitCode = 1;
}
