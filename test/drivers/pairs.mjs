// pairs.mjs VAULTFILE < {"vault_id", "keys": [vault_key rows], "places": [...]}
//
// Every record in every place, with the true keys: which opens?  A place is
// what the additional data of a record say: {name, purpose, tenant, user_id,
// connector_id, connection_id, hosts_digest, key_id, generation, record}.
// Prints {"places", "pairs", "opened": [[record's place, place]...]}.
import { readFileSync } from 'node:fs';
import { hex, open, platformKeys, unwrap, userSubkey, wrapAad } from './record.mjs';

const { vault_id, keys, places } = JSON.parse(readFileSync(0, 'utf8'));
const platform = platformKeys(JSON.parse(readFileSync(process.argv[2], 'utf8')));
const key = new Map(keys.map((row) => [String(row.key_id), { ...row, key: unwrap(platform, vault_id, row) }]));
for (const row of keys) {
  const record = hex(row.wrapped);
  const version = Number(record.readBigUInt64BE(5));
  places.push({ ...wrapAad(vault_id, row, version), name: `wrap of ${row.kind} key ${row.key_id}`, record: row.wrapped,
    under: platform.get(version) });
}

function keyOf(place) {
  if (place.under) return place.under;
  const row = key.get(String(place.key_id));
  return row.kind === 'connector' ? row.key : userSubkey(row.key, place.purpose === 'access_token' ? 'access' : 'refresh');
}
const opened = [];
let pairs = 0;
for (const from of places) {
  for (const to of places) {
    pairs += 1;
    if (open(keyOf(to), hex(from.record), { vault_id, ...to })) opened.push([from.name, to.name]);
  }
}
console.log(JSON.stringify({ places: places.length, pairs, opened }));
