"""story-psycopg.py: connect, use and revoke from psycopg 3: bound parameters,
autocommit, a prepared statement, error objects.  Prints TAP.

Environment: PGHOST PGPORT PGUSER PGDATABASE, CONNECTOR, ASSERTION (of PERSON),
CA (file), ISSUER (idp.mjs).
"""
import json
import os
import re
import ssl
import subprocess
import sys
import traceback
import urllib.error
import urllib.request

import psycopg
from psycopg.rows import dict_row

connector, assertion, person = (os.environ[name] for name in ('CONNECTOR', 'ASSERTION', 'PERSON'))
ca, issuer = os.environ['CA'], os.environ['ISSUER']

FRESH_TOKEN = 'SELECT oauth_vault.oauth_fresh_token(%s, assertion => %s) AS token'

count = failed = 0


def ok(condition, claim, found=None):
    global count, failed
    count += 1
    print(f"{'ok' if condition else 'not ok'} {count} - {claim}")
    if not condition:
        failed += 1
        print(f'# found: {found!r}')


def error_of(connection, text, values):
    """The diagnostics of the error that a statement ends with."""
    try:
        connection.execute(text, values)
    except psycopg.Error as error:
        diag = error.diag
        return {'state': diag.sqlstate or type(error).__name__, 'message': diag.message_primary or str(error),
                'detail': diag.message_detail, 'hint': diag.message_hint}
    return {'state': 'none', 'message': None, 'detail': None, 'hint': None}


def is_object(text):
    try:
        return isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        return False


def userinfo(token):
    request = urllib.request.Request(f'{issuer}/me', headers={'Authorization': f'Bearer {token}'})
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=ca), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, None


def connect(connection):
    url = connection.execute('SELECT authorization_url FROM oauth_vault.oauth_begin(%s, assertion => %s)',
                             (connector, assertion)).fetchone()['authorization_url']
    ok(url.startswith(f'{issuer}/'), 'oauth_begin answers with a URL of the authorization server', url)

    consent = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'consent.mjs')
    callback = subprocess.run(['node', consent, url, '--user', person], check=True, text=True,
                              stdout=subprocess.PIPE, timeout=60).stdout.strip()
    rows = connection.execute('SELECT connector, status FROM oauth_vault.oauth_callback(%s, assertion => %s)',
                              (callback, assertion)).fetchall()
    ok(rows == [{'connector': connector, 'status': 'active'}], 'oauth_callback makes one active connection', rows)


def use_token(connection):
    token = connection.execute(FRESH_TOKEN, (connector, assertion)).fetchone()['token']
    status, claims = userinfo(token)
    ok(status == 200 and claims['sub'] == person, "a token got in autocommit is the person's", (status, claims))

    rows = connection.execute('SELECT connector, access_token, error_state, error_detail'
                              '  FROM oauth_vault.oauth_fresh_tokens(%s, assertion => %s)',
                              ([connector, 'no such connector'], assertion)).fetchall()
    by_name = {row['connector']: row for row in rows}
    states = {name: row['error_state'] for name, row in by_name.items()}
    ok(len(rows) == 2 and by_name[connector]['access_token'] and states[connector] is None,
       'oauth_fresh_tokens has a token where there is one', states)
    ok(by_name['no such connector']['access_token'] is None
       and re.fullmatch('OV0(12|22)', states['no such connector'] or ''),
       'and an error state where there is none', states)


def use_prepared_statement(connection):
    # More often than it takes for a plan to become generic.
    tokens = [connection.execute(FRESH_TOKEN, (connector, assertion), prepare=True).fetchone()['token']
              for _ in range(8)]
    prepared = connection.execute("SELECT count(*) AS n FROM pg_prepared_statements"
                                  " WHERE statement LIKE '%oauth_fresh_token(%'").fetchone()['n']
    status, _ = userinfo(tokens[-1])
    ok(all(tokens) and status == 200 and prepared == 1, 'a prepared statement answers each of 8 times',
       (status, prepared))
    other = error_of(connection, FRESH_TOKEN, (connector, 'not.an.assertion'))
    ok(other['state'] == 'OV002', 'and judges the assertion of each call', other)


def read_errors(connection):
    unknown = error_of(connection, FRESH_TOKEN, ('no such connector', assertion))
    ok(re.fullmatch('OV0(12|22)', unknown['state']), 'an unknown connector has an SQLSTATE of its own', unknown)
    ok(is_object(unknown['detail']), 'its detail is JSON', unknown)
    ok(unknown['hint'], 'and its hint says what to do', unknown)

    nobody = error_of(connection, 'SELECT oauth_vault.oauth_fresh_token(%s)', (connector,))
    ok(nobody['state'] == 'OV001', 'without identity there is OV001', nobody)


def use_transaction(connection):
    with connection.transaction():
        connection.execute('SELECT oauth_vault.oauth_identify(%s)', (assertion,))
        token = connection.execute('SELECT oauth_vault.oauth_fresh_token(%s) AS token',
                                   (connector,)).fetchone()['token']
    status, _ = userinfo(token)
    ok(status == 200, 'oauth_identify binds the person for the transaction', status)
    after = error_of(connection, 'SELECT oauth_vault.oauth_fresh_token(%s)', (connector,))
    ok(after['state'] == 'OV001', 'and no longer', after)


def revoke(connection):
    rows = connection.execute('SELECT local_state FROM oauth_vault.oauth_revoke(%s, assertion => %s)',
                              (connector, assertion)).fetchall()
    ok(len(rows) == 1 and rows[0]['local_state'] in ('revoking', 'revoked'), 'oauth_revoke answers at once', rows)
    gone = error_of(connection, FRESH_TOKEN, (connector, assertion))
    ok(gone['state'] in ('OV010', 'OV012'), 'and there is no token any more', gone)


def story():
    with psycopg.connect(autocommit=True, row_factory=dict_row) as connection:
        for chapter in (connect, use_token, use_prepared_statement, read_errors, use_transaction, revoke):
            chapter(connection)


try:
    story()
except Exception as error:
    ok(False, 'the story comes to its end', error)
    traceback.print_exc()
print(f'1..{count}')
sys.exit(1 if failed else 0)
