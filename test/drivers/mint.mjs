// mint.mjs < spec.json: signed assertions, good and bad, all in one process.
//
// In:  {"keys": {name: "EdDSA" | "ES256" | "RS256"}, "tokens": [token...]}
// Out: {"jwks": {name: public JWK with kid = name}, "tokens": [compact JWS...]}
//
// A token, all members but key and claims optional:
//   key      whose key signs
//   alg      what the header says and how it is signed: EdDSA, ES256, RS256,
//            PS256, none; HS256 signs with hmac ("pem": the public key's PEM
//            text, "x": the key's own bytes)
//   header   merged over {"alg", "typ": "JWT", "kid"}; null removes a member
//   claims   the payload; a string is the payload's text as it stands
//   head     the header's text as it stands
//   sign     the algorithm that really signs, if not alg
//   cut      what is done to the finished token: "signature" (none), "payload"
//            (one bit of the payload changed), "der" (an ES256 signature in
//            DER), "padding" (= behind the signature), "fourth" (a fourth part)
import crypto from 'node:crypto';
import { readFileSync } from 'node:fs';

const { keys: kinds, tokens } = JSON.parse(readFileSync(0, 'utf8'));
const b64 = (data) => Buffer.from(data).toString('base64url');
const make = {
  EdDSA: () => crypto.generateKeyPairSync('ed25519'),
  ES256: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  RS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
};
const keys = {};
const jwks = {};
for (const [name, kind] of Object.entries(kinds)) {
  keys[name] = make[kind]();
  jwks[name] = { ...keys[name].publicKey.export({ format: 'jwk' }), kid: name, use: 'sig' };
}

const signers = {
  none: () => '',
  EdDSA: (input, { privateKey }) => crypto.sign(null, input, privateKey),
  ES256: (input, { privateKey }, cut) => crypto.sign('sha256', input,
    { key: privateKey, dsaEncoding: cut === 'der' ? 'der' : 'ieee-p1363' }),
  RS256: (input, { privateKey }) => crypto.sign('sha256', input, privateKey),
  PS256: (input, { privateKey }) => crypto.sign('sha256', input,
    { key: privateKey, padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }),
};

function mint({ key, alg = kinds[key], header = {}, head, claims, sign = alg, hmac, cut }) {
  const merged = { alg, typ: 'JWT', kid: key, ...header };
  for (const name of Object.keys(merged)) if (merged[name] === null) delete merged[name];
  const payload = b64(typeof claims === 'string' ? claims : JSON.stringify(claims));
  const input = `${b64(head ?? JSON.stringify(merged))}.${payload}`;
  let signature;
  if (sign === 'HS256') {
    const secret = hmac === 'pem' ? keys[key].publicKey.export({ type: 'spki', format: 'pem' })
      : Buffer.from(jwks[key].x ?? jwks[key].n, 'base64url');
    signature = crypto.createHmac('sha256', secret).update(input).digest();
  } else {
    signature = signers[sign](Buffer.from(input), keys[key], cut);
  }
  if (cut === 'payload') {
    const other = payload.startsWith('eyJ') ? `eyK${payload.slice(3)}` : `A${payload.slice(1)}`;
    return `${input.split('.')[0]}.${other}.${b64(signature)}`;
  }
  const jwt = `${input}.${cut === 'signature' ? '' : b64(signature)}`;
  return cut === 'padding' ? `${jwt}=` : cut === 'fourth' ? `${jwt}.${b64('x')}` : jwt;
}

console.log(JSON.stringify({ jwks, tokens: tokens.map(mint) }));
