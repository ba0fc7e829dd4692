// record.mjs: opens sealed records without the extension's code, as somebody
// would who has stolen keys and rows.  The layout is that of
// src/core/record.h, written down again here.
import { createDecipheriv, createHmac } from 'node:crypto';

const hmac = (key, ...parts) => {
  const mac = createHmac('sha256', key);
  for (const part of parts) mac.update(part);
  return mac.update(Buffer.of(1)).digest();
};
const u64 = (n) => {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt.asUintN(64, BigInt(n)));
  return out;
};
const hex = (s) => Buffer.from(s.replace(/^\\x|-/g, ''), 'hex');

const zeros = '0'.repeat(64);

// aad: vault_id, tenant, user_id, connector_id, connection_id, purpose,
// hosts_digest (hex), key_id, generation
export function additional(aad) {
  const fields = [Buffer.from('oauth_vault'), u64(1), hex(aad.vault_id), Buffer.from(aad.tenant ?? ''),
    Buffer.from(aad.user_id ?? ''), hex(aad.connector_id ?? zeros.slice(32)), hex(aad.connection_id ?? zeros.slice(32)),
    Buffer.from(aad.purpose), hex(aad.hosts_digest ?? zeros), u64(aad.key_id), u64(aad.generation)];
  return Buffer.concat(fields.flatMap((field) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(field.length);
    return [length, field];
  }));
}

export const userSubkey = (key, kind) => hmac(key, `ov1 ${kind} subkey`);

export const fits = (key, record) => hmac(key, 'ov1 commit', record.subarray(13, 45)).equals(record.subarray(45, 77));

// The plaintext, or null
export function open(key, record, aad) {
  if (record.length < 105 || record.toString('latin1', 0, 3) !== 'OVR' || !fits(key, record)) return null;
  try {
    const d = createDecipheriv('aes-256-gcm', hmac(key, 'ov1 key', record.subarray(13, 45)), record.subarray(77, 89));
    d.setAAD(additional(aad));
    d.setAuthTag(record.subarray(-16));
    return Buffer.concat([d.update(record.subarray(89, -16)), d.final()]);
  } catch {
    return null;
  }
}

// The platform keys of a vault file, by version
export const platformKeys = (file) => new Map(file.keyring.versions.map((v) => [v.version, Buffer.from(v.key, 'base64url')]));

// A vault_key row {key_id, kind, tenant, user_id, connector_id, wrapped} under a platform key
export function unwrap(platform, vault_id, row) {
  const record = hex(row.wrapped);
  const version = Number(record.readBigUInt64BE(5));
  const key = platform.get(version);
  return key && open(key, record, wrapAad(vault_id, row, version));
}
export const wrapAad = (vault_id, row, version) => ({
  vault_id, purpose: `${row.kind}_key`, tenant: row.kind === 'user' ? row.tenant : '',
  user_id: row.kind === 'user' ? row.user_id : '', connector_id: row.kind === 'connector' ? row.connector_id : undefined,
  key_id: version, generation: row.key_id,
});
export { hex };
