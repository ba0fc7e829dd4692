// table.mjs [--check]: writes doc/providers.md from the simulators' descriptions;
// --check fails if what is there is not what would be written.
import { readFileSync, writeFileSync } from 'node:fs';
import { providers } from './all.mjs';

const file = new URL('../../doc/providers.md', import.meta.url);
const ways = { basic: 'basic', post: 'post', none: 'none', key: 'API key' };
const bases = { example: 'documented example', prose: 'documented prose', uncertain: 'uncertain' };
const pkce = { required: 'required', optional: 'yes', ignored: 'ignored', refused: 'not sent' };

function span(seconds) {
  if (!seconds) return '';
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['min', 60]]) if (seconds >= size) return `${Math.round(seconds / size)} ${unit}`;
  return `${seconds} s`;
}
function refresh(p) {
  if (p.refresh === null) return 'none';
  if (p.refresh.exchange) return p.tokens.refresh || p.token.grantType ? 'asked again' : 'access token exchanged';
  const { refresh: life, fixed } = p.lifetimes;
  return `yes${life ? `, ${span(life)}${fixed ? ' from the consent' : ''}` : ''}`;
}
function rotation(p) {
  if (p.refresh === null || p.refresh.exchange) return '';
  const kind = typeof p.rotates === 'function' ? 'sometimes' : p.rotates;
  if (kind !== 'always') return kind;
  return typeof p.grace === 'string' ? `always; the old one ${p.grace === 'goes on' ? p.grace : `holds ${p.grace}`}` : `always${p.grace ? `; the old one ${span(p.grace)} more` : ''}`;
}
function revocation({ revoke }) {
  if (!revoke) return 'none';
  const kinds = revoke.kinds ?? ['refresh', 'access'];
  return revoke.auth === 'its own' && !revoke.kinds ? 'the account' : kinds.length === 2 ? 'either token' : `${kinds[0]} token`;
}
// What is shown, by source
function shown(example) {
  const names = { exchange: 'the code exchange', answer: 'its answer', refresh: 'the refresh', renewed: 'its answer', callback: 'the callback' };
  const sources = [...new Set(Object.values(example).map(({ source }) => source))];
  return sources.map((source) => `${Object.keys(example).filter((what) => example[what].source === source).map((what) => names[what]).join(', ')}: ${source}`).join('; ');
}
const row = (cells) => `| ${cells.join(' | ')} |`;
const count = (basis) => providers.filter((p) => p.basis === basis).length;

const text = `# Providers and how well they are known

Written by \`test/sim/table.mjs\`; lint compares it. Every row is a simulator in
\`test/sim/providers\` that was written from the provider's documentation and
from nothing of the catalogue, and is as strict as that documentation. Every
provider of the catalogue goes its whole way against its simulator in
\`test/t/052_all_providers.pl\`: consent, callback, code, use at the API, refresh,
a grant that is gone in the provider's own words, revocation. What integrations
are known to fall into has a test of its own in \`test/t/053_traps.pl\`.

A simulator shows that the rules do what the documentation says. It cannot show
that the provider does. So each row has its basis:

| basis | providers | means |
|---|---|---|
| documented example | ${count('example')} | requests or answers that the provider shows are replayed as they stand, with their source |
| documented prose | ${count('prose')} | endpoints, parameters and errors are described in words by the provider or its own code |
| uncertain | ${count('uncertain')} | third-party code or common knowledge alone, or main points are open |

*Client* is how the client authenticates and in which format tokens are asked
for. *PKCE* "ignored" means that a challenge does no harm and no good, "not
sent" that none is sent. *Access* is the life of an access token; empty: it
does not end, or is not said. *Revocation* says which token ends the grant.

${row(['provider', 'client', 'PKCE', 'access', 'refresh', 'refresh token replaced', 'revocation', 'basis'])}
|---|---|---|---|---|---|---|---|
${providers.map((p) => row([`\`${p.connect?.provider ?? p.id}\``, `${p.token.auth.map((way) => ways[way]).join(', ')}; ${p.token.format.join(', ')}`, pkce[p.pkce],
    span(p.lifetimes.access), refresh(p), rotation(p), revocation(p), bases[p.basis]])).join('\n')}

## Replayed from the documentation

${providers.filter((p) => p.basis === 'example').map((p) => `* \`${p.id}\`: ${shown(p.example)}`).join('\n')}

## What is not certain

${providers.filter((p) => p.uncertain?.length).map((p) => `* \`${p.id}\`: ${p.uncertain.join('; ')}`).join('\n')}

## Sources

${providers.map((p) => `* \`${p.id}\`: ${(p.sources ?? []).join(', ')}`).join('\n')}
`;

if (!process.argv.includes('--check')) {
  writeFileSync(file, text);
} else if (readFileSync(file, 'utf8') !== text) {
  console.error('doc/providers.md is not what test/sim/table.mjs writes');
  process.exit(1);
}
