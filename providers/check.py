#!/usr/bin/env python3
"""Check provider files and README.md's examples: python3 providers/check.py [FILE...]

Against schema.json, strictly, each overlay merged in turn; then what a schema
cannot say: placeholders, and that no variable can lead a secret to a host that
is not the provider's.  The standard library is all it needs.
"""
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 16 * 1024
KEYWORDS = {'$schema', '$defs', '$ref', 'title', 'description', 'type', 'properties', 'required',
            'additionalProperties', 'propertyNames', 'items', 'minItems', 'enum', 'const', 'pattern',
            'minLength', 'maxLength', 'minimum', 'maximum'}
TYPES = {'object': dict, 'array': list, 'string': str, 'boolean': bool}
BUILTINS = {'client_id', 'client_secret', 'code', 'redirect_uri', 'code_verifier', 'refresh_token',
            'access_token', 'token', 'token_type'}


def unique(pairs):
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'member "{name}" stands twice')
    return dict(pairs)


def load(path):
    return json.loads(path.read_text(encoding='utf-8'), object_pairs_hook=unique)


def is_type(value, name):
    if name == 'integer':
        return isinstance(value, int) and not isinstance(value, bool)
    if name == 'number':
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def merge(target, patch):
    """RFC 7396"""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


class Schema:
    def __init__(self, root):
        self.root = root

    def errors(self, value, rule=None, at=''):
        """What is wrong with value, as lines"""
        rule = self.root if rule is None else rule
        unknown = set(rule) - KEYWORDS
        if unknown:
            raise ValueError(f'schema.json uses {unknown}, which this script does not know')
        if '$ref' in rule:
            target = self.root
            for step in rule['$ref'].removeprefix('#/').split('/'):
                target = target[step]
            yield from self.errors(value, target, at)
        where = at or 'the document'
        types = rule.get('type', [])
        types = [types] if isinstance(types, str) else types
        if types and not any(is_type(value, t) for t in types):
            yield f'{where} is not {" or ".join(types)}'
            return
        if 'const' in rule and value != rule['const']:
            yield f'{where} is not {rule["const"]!r}'
        if 'enum' in rule and value not in rule['enum']:
            yield f'{where} is none of {", ".join(rule["enum"])}'
        if isinstance(value, str):
            if 'pattern' in rule and not re.search(rule['pattern'], value):
                yield f'{where} does not match {rule["pattern"]}'
            if not rule.get('minLength', 0) <= len(value) <= rule.get('maxLength', len(value)):
                yield f'{where} has the wrong length'
        if is_type(value, 'number') and not rule.get('minimum', value) <= value <= rule.get('maximum', value):
            yield f'{where} is out of range'
        if isinstance(value, list):
            if len(value) < rule.get('minItems', 0):
                yield f'{where} is empty'
            for i, element in enumerate(value):
                if 'items' in rule:
                    yield from self.errors(element, rule['items'], f'{at}[{i}]')
        if isinstance(value, dict):
            yield from self.member_errors(value, rule, at)

    def member_errors(self, value, rule, at):
        for name in rule.get('required', []):
            if name not in value:
                yield f'{at or "the document"} has no "{name}"'
        for name, member in value.items():
            below = f'{at}.{name}' if at else name
            if 'propertyNames' in rule:
                yield from self.errors(name, rule['propertyNames'], below)
            if name in rule.get('properties', {}):
                yield from self.errors(member, rule['properties'][name], below)
            elif rule.get('additionalProperties') is False:
                yield f'{below} is not part of the language'
            elif isinstance(rule.get('additionalProperties'), dict):
                yield from self.errors(member, rule['additionalProperties'], below)


def strings(value, at=''):
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, list):
        for i, element in enumerate(value):
            yield from strings(element, f'{at}[{i}]')
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from strings(member, f'{at}.{name}' if at else name)


def alternatives(pattern):
    """A pattern's alternatives that are not inside a group"""
    found, depth, start = [], 0, 0
    for i, c in enumerate(pattern):
        if pattern[i - 1:i] == '\\' and i > 0:
            continue
        depth += {'(': 1, ')': -1}.get(c, 0)
        if c == '|' and depth == 0:
            found.append(pattern[start:i])
            start = i + 1
    return found + [pattern[start:]]


def endings(pattern):
    """The pattern with a group at its end taken apart, once for each alternative"""
    for a in alternatives(pattern):
        if not a.endswith(')') or a.endswith('\\)'):
            yield a
            continue
        depth = 0
        for i in range(len(a) - 1, -1, -1):
            if a[i - 1:i] != '\\':
                depth += {')': 1, '(': -1}.get(a[i], 0)
            if depth == 0:
                break
        for inner in alternatives(a[i + 1:-1]):
            yield from endings(a[:i] + inner)


def closed(pattern):
    """Does every value end in a registered domain that the pattern spells out?"""
    # under co.uk, com.au and the like, everybody can register the next label
    domain = re.compile(r'(^|//|\\\.)[a-z0-9-]+((\\\.(co|com|net|org|gov|ac|edu)\\\.[a-z]{2})|(\\\.[a-z]{2,}))$')
    suffix = re.compile(r'(^|//|[^\\a-z0-9.-])(\\\.)?(co|com|net|org|gov|ac|edu)\\\.[a-z]{2}$')
    return all(domain.search(e) and not suffix.search(e) for e in endings(pattern))


def host_variables(document):
    """Variables that stand in the host of a URL or in api.hosts, with what follows them there"""
    api = document.get('api', {})
    for at, text in strings(document):
        if at.startswith('api.hosts['):
            host = text
        elif at.endswith('.url') or at in ('issuer', 'api.base'):
            host = re.split(r'[/?]', text.split('://', 1)[-1])[0] if '://' in text else text[:text.find('}') + 1]
        else:
            continue
        for name in re.findall(r'\{(\w+)\}', host):
            # an API base from an answer is checked against api.hosts at every use
            if at == 'api.base' and text.startswith('{') and api.get('hosts'):
                continue
            yield name, host.split('{' + name + '}', 1)[1]


def semantic_errors(document):
    variables = document.get('variables', {})
    used = set()
    for at, text in strings(document):
        if at.startswith(('variables.', 'overlays.', 'notes', 'basis', 'policy', 'scopes')) or 'pattern' in at:
            continue
        for name in re.findall(r'\{([^{}]*)\}', text):
            used.add(name)
            if name not in variables and name not in BUILTINS and not (at == 'subject' and name.startswith('/')):
                yield f'{at}: {{{name}}} is not a variable'
    for name, follows in host_variables(document):
        if name not in variables:
            continue
        if not re.search(r'\.[a-z0-9-]+\.[a-z]+(:\d+)?$', follows) and not closed(variables[name]['pattern']):
            yield f'variables.{name} could name any host: its pattern must end in a literal domain'
    for section in (document, document.get('refresh', {})):
        if any(e.get('outcome') == 'ok' for e in section.get('response', {}).get('errors', [])):
            yield 'response.errors: an error cannot be a success'
    scopes = [scope['name'] for scope in document.get('scopes', [])]
    if len(scopes) != len(set(scopes)):
        yield 'scopes: a name stands twice'


def check(schema, document):
    documents = [('', document)]
    for selector, values in document.get('overlays', {}).items():
        if selector not in document.get('variables', {}):
            yield f'overlays.{selector} is not a variable'
        documents += [(f' with {selector}={value}', merge(document, patch)) for value, patch in values.items()]
    for what, merged in documents:
        for error in [*schema.errors(merged), *semantic_errors(merged)]:
            yield error + what


def unused(document):
    """Variables that nothing is made of, kept under or selected by"""
    used = set(document.get('overlays', {}))
    for at, text in strings(document):
        used.update(re.findall(r'\{(\w+)\}', text))
        if '.capture.' in at or at.startswith('slots.'):
            used.add(re.sub(r'\.param$', '', at).rsplit('.', 1)[-1])
    return set(document.get('variables', {})) - used


def complete(document):
    """What a file of the catalogue has to say, beyond what the language asks"""
    if 'basis' not in document:
        yield 'has no "basis"'
    elif document['basis']['confidence'] != 'high' and not document['basis'].get('uncertain'):
        yield 'basis.uncertain: says nothing, though the confidence is not high'
    dates = [change['date'] for change in document.get('policy', [])]
    if dates != sorted(dates):
        yield 'policy is not in the order of its dates'
    for name in sorted(unused(document)):
        yield f'variables.{name} is not used'
    scopes = document.get('scopes', [])
    if scopes and not any(s.get('default') for s in scopes) and 'url' in document.get('token', {}):
        yield 'scopes: none is a default'
    if 'url' not in document.get('token', {}):
        return  # the issuer's metadata say the rest
    for member in ('client_auth', 'pkce', 'authorization', 'revocation', 'api'):
        if member not in document:
            yield f'has no "{member}"'
    refresh = document.get('refresh', {})
    if refresh.get('strategy') != 'none' and 'rotates' not in refresh:
        yield 'refresh.rotates: does a refresh replace the refresh token?'
    revocation = document.get('revocation', {})
    if ('absent' in revocation) == any(kind in revocation for kind in ('refresh_token', 'access_token')):
        yield 'revocation: has requests, or says that there is none'


def check_file(schema, path):
    if path.stat().st_size > LIMIT:
        yield f'over {LIMIT} bytes'
    document = load(path)
    yield from check(schema, document)
    yield from complete(document)


def check_examples(schema, path):
    """The JSON documents that a text shows, each a merge patch over the least document"""
    for text in re.findall(r'^```json\n(.*?)^```', path.read_text(encoding='utf-8'), re.M | re.S):
        document = merge({'schema': 1, 'display_name': 'example'}, json.loads(text, object_pairs_hook=unique))
        for error in check(schema, document):
            yield f'{error} in an example that begins with {text.splitlines()[1].strip()}'


def main(arguments):
    schema = Schema(load(HERE / 'schema.json'))
    paths = [pathlib.Path(a) for a in arguments] or sorted(
        p for p in [*HERE.glob('*.json'), HERE / 'README.md'] if p.name != 'schema.json')
    bad = 0
    for path in paths:
        try:
            errors = list((check_examples if path.suffix == '.md' else check_file)(schema, path))
        except ValueError as error:
            errors = [str(error)]
        for error in errors:
            print(f'{path.name}: {error}', file=sys.stderr)
        bad += bool(errors)
    print(f'{len(paths)} files, {bad} with errors')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
