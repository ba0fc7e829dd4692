// userinfo.mjs URL TOKEN CA_FILE: GET with the token as Bearer; prints status and body.
import { readFileSync } from 'node:fs';
import { get } from 'node:https';
const [url, token, ca] = process.argv.slice(2);
get(url, { ca: readFileSync(ca), headers: { authorization: `Bearer ${token}` } }, (response) => {
  let body = '';
  response.on('data', (chunk) => { body += chunk; });
  response.on('end', () => console.log(`${response.statusCode} ${body}`));
}).on('error', (error) => { console.error(error.message); process.exitCode = 1; });
