// subkeys.mjs VAULTFILE < {"vault_id", "keys": [vault_key rows]}: the subkeys of
// every person, as the key worker would derive them.
import { readFileSync } from 'node:fs';
import { platformKeys, unwrap, userSubkey } from './record.mjs';

const { vault_id, keys } = JSON.parse(readFileSync(0, 'utf8'));
const platform = platformKeys(JSON.parse(readFileSync(process.argv[2], 'utf8')));
const out = {};
for (const row of keys.filter((k) => k.kind === 'user')) {
  const key = unwrap(platform, vault_id, row);
  out[row.user_id] = { access: userSubkey(key, 'access').toString('hex'), refresh: userSubkey(key, 'refresh').toString('hex') };
}
console.log(JSON.stringify(out));
