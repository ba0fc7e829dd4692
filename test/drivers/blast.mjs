// blast.mjs < {"vault_id", "pid", "records": [{user, purpose, token, record, aad...}], "keys": [hex...]}
//
// What somebody opens who has every row of the database and, in turn, keys, or
// one process's memory (readable pages of /proc/PID/mem).  For a process it
// looks for the tokens themselves, for 32 bytes behind the vault's id (where
// the session's cache has keys), and for any 32 bytes, 8-aligned, that look
// random.  Prints {"readable", "candidates", "plain": {purpose: [users]},
// "opened": {purpose: [users]}}.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { fits, hex, open } from './record.mjs';

const { vault_id, pid, records, keys = [], sample = 40 } = JSON.parse(readFileSync(0, 'utf8'));
const result = { readable: true, bytes: 0, candidates: 0, plain: {}, opened: {} };
const candidates = new Map(keys.map((k) => [k, true]));
const note = (into, r) => { (into[r.purpose] ??= new Set()).add(r.user); };

function looksRandom(bytes) {
  const seen = new Set(bytes);
  return seen.size >= 26;
}

function* memory() {
  const fd = openSync(`/proc/${pid}/mem`, 'r');
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')) {
      const m = /^([0-9a-f]+)-([0-9a-f]+) r(w?)\S* \S+ \S+ (\d+) *(.*)$/.exec(line);
      if (!m || m[5] === '[vvar]' || m[5] === '[vsyscall]' || !m[3]) continue;
      let at = Number.parseInt(m[1], 16);
      const end = Number.parseInt(m[2], 16);
      const shared = line.split(' ')[1].endsWith('s');
      while (at < end) {
        const part = Buffer.alloc(Math.min(end - at, 1 << 22));
        let n = 0;
        try { n = readSync(fd, part, 0, part.length, at); } catch { break; }
        if (n <= 0) break;
        yield { part: part.subarray(0, n), shared };
        at += n;
      }
    }
  } finally {
    closeSync(fd);
  }
}

if (pid) {
  try {
    const tokens = new Map();
    for (const r of records) if (r.token) tokens.set(r.token.slice(0, 24), r);
    const start = [...tokens.keys()][0]?.slice(0, 4);
    const id = hex(vault_id);
    for (const { part, shared } of memory()) {
      result.bytes += part.length;
      // all tokens begin alike: look for that, then compare
      for (let i = part.indexOf(start); i >= 0; i = part.indexOf(start, i + 1)) {
        const r = tokens.get(part.toString('latin1', i, i + 24));
        if (r) note(result.plain, r);
      }
      for (let i = part.indexOf(id); i >= 0; i = part.indexOf(id, i + 1)) candidates.set(part.toString('hex', i + 16, i + 48), true);
      if (shared) continue;
      for (let i = 0; i + 32 <= part.length; i += 8) {
        // cheap look first
        if (part[i] === 0 && part[i + 1] === 0) continue;
        const slice = part.subarray(i, i + 32);
        if (looksRandom(slice) && !candidates.has(slice.toString('hex'))) candidates.set(slice.toString('hex'), false);
      }
    }
  } catch (error) {
    if (error.code !== 'EACCES' && error.code !== 'EPERM') throw error;
    result.readable = false;
  }
}
const sealed = records.map((r) => ({ ...r, bytes: hex(r.record) }));
const few = sealed.filter((_, i) => i % Math.ceil(sealed.length / sample) === 0);
for (const [k, anchored] of candidates) {
  const key = Buffer.from(k, 'hex');
  for (const r of anchored ? sealed : few) if (fits(key, r.bytes) && open(key, r.bytes, { vault_id, ...r })) note(result.opened, r);
}
result.candidates = candidates.size;
for (const what of ['plain', 'opened']) for (const [p, users] of Object.entries(result[what])) result[what][p] = [...users].sort();
console.log(JSON.stringify(result));
