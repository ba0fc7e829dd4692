// client.mjs: what a browser and an application do at the simulated providers.
// Environment: SIM_PORT, SIM_CONTROL, CA.
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';

const { SIM_PORT, SIM_CONTROL, CA } = process.env;
const agent = new Agent({ keepAlive: true, ca: readFileSync(CA) });

// Every name is at SIM_PORT of this machine.
function ask(url, { method = 'GET', headers = {} } = {}) {
  const { hostname, pathname, search } = new URL(url);
  return new Promise((resolve, reject) => {
    request({
      agent, method, host: '127.0.0.1', port: SIM_PORT, servername: hostname, path: pathname + search, headers: { 'user-agent': 'application', ...headers, host: hostname },
    }, (response) => {
      let text = '';
      response.on('data', (chunk) => { text += chunk; });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text }));
    }).on('error', reject).end();
  });
}

// The person opens the page and consents.
export async function browse(url, user) {
  const { headers, status, text } = await ask(url, { headers: { 'x-sim-user': user } });
  return { location: headers.location, page: `${status} ${text}` };
}

// A row of oauth_credential, used
export async function callApi({ header_name: name, header_value: value, headers }, base) {
  const all = Object.fromEntries(Object.entries({ [name]: value, ...headers }).map(([n, v]) => [n.toLowerCase(), v]));
  const { status, text } = await ask(`${base.replace(/\/$/, '')}/whoami`, { headers: all });
  let body;
  try { body = JSON.parse(text); } catch { body = { text }; }
  return { status, body };
}

export async function control(path, body) {
  const response = await fetch(SIM_CONTROL + path, body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) });
  const found = await response.json();
  if (!response.ok) throw new Error(`${path}: ${found.error}`);
  return found;
}
