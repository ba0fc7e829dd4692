// assertions.mjs SIGNING_KEY_FILE PREFIX FROM TO: "user<TAB>assertion" lines for
// the users PREFIX FROM to PREFIX TO, signed with the development signing key.
import { createPrivateKey, randomBytes, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';

const [, , file, prefix, from, to] = process.argv;
const { jwk, issuer, audience } = JSON.parse(readFileSync(file, 'utf8'));
const key = createPrivateKey({ key: jwk, format: 'jwk' });
const b64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const header = b64({ alg: jwk.alg, typ: 'JWT', kid: jwk.kid });
const now = Math.floor(Date.now() / 1000);
const lines = [];
for (let i = Number(from); i <= Number(to); i += 1) {
  const sub = `${prefix}${i}`;
  const claims = { iss: issuer, aud: audience, sub, iat: now, exp: now + 300, jti: randomBytes(12).toString('base64url') };
  const input = `${header}.${b64(claims)}`;
  lines.push(`${sub}\t${input}.${sign(null, Buffer.from(input), key).toString('base64url')}`);
}
process.stdout.write(`${lines.join('\n')}\n`);
