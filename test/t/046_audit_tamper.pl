# Whatever a superuser changes in the audit trail is found: any column of any
# row, rows taken away, put in, exchanged, chained again by somebody who can
# compute hashes, cut off together with their heads.  The hashes are computed
# here a second time, in another language, from what the manual says.
use strict;
use warnings;
use Digest::SHA qw(sha256);
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('tamper', hosts => ["localhost:$idp->{port}"], conf => "oauth_vault.audit_log_heads = 1s\n");
sub superuser { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
superuser(qq{CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor;
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
ov_connect($node, 'ada', 'demo');
ov_sql($node, 'ada', "SELECT count(oauth_vault.oauth_fresh_token('demo', purpose => 'task ' || i)) FROM generate_series(1, 20) i;",
	assertion => ov_assertion($node, 'ada', '--actor', 'agent'));

sub sealed
{
	return ov_wait_for('heads', sub {
		superuser('SELECT (SELECT max(last_id) FROM oauth_vault.audit_head) = (SELECT max(audit_id) FROM oauth_vault.audit)') eq 't' });
}
sub verify
{
	my ($arguments) = @_;
	my $json = $node->safe_psql('postgres', 'SELECT row_to_json(v) FROM oauth_vault.oauth_audit_verify(' . ($arguments // '') . ') v',
		extra_params => [ '-U', 'security' ]);
	return decode_json($json);
}
sub verdict { my $v = verify(@_); return $v->{ok} ? 'ok' : "$v->{problem} $v->{bad_id}"; }

sealed();
my $v = verify();
is($v->{ok} ? 'ok' : $v->{explanation}, 'ok', 'an auditor finds the trail as it was written');
cmp_ok($v->{rows}, '>=', 23, 'all of it');
cmp_ok($v->{heads}, '>=', 1, 'with its heads');
my $last = $v->{last_id};
is($v->{unsealed}, 0, 'each row is under one');

# ---- any column of any row ----

# Each change in a transaction of its own, which is rolled back.
superuser(q{
	CREATE FUNCTION after(change text, check_it text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		verdict text;
		n bigint;
	BEGIN
		EXECUTE change;
		GET DIAGNOSTICS n = ROW_COUNT;
		EXECUTE 'SELECT CASE WHEN ok THEN ''ok'' ELSE problem || '' '' || bad_id END FROM oauth_vault.oauth_audit_verify(' || check_it || ')'
			INTO verdict;
		RAISE SQLSTATE 'P1234' USING MESSAGE = CASE n WHEN 0 THEN 'nothing changed' ELSE verdict END;
	EXCEPTION WHEN SQLSTATE 'P1234' THEN
		RETURN SQLERRM;
	END $$;
	CREATE FUNCTION other(column_name text, type regtype) RETURNS SETOF text LANGUAGE sql AS $$
		SELECT format(f, column_name) FROM unnest(CASE type
			WHEN 'text'::regtype THEN '{coalesce(%1$I\, '''') || ''x'',coalesce(''x'' || %1$I\, '''')}'::text[]
			WHEN 'bigint'::regtype THEN '{%1$I + 1,-%1$I}'
			WHEN 'timestamptz'::regtype THEN '{%1$I + ''1 microsecond'',%1$I - ''1 microsecond''::interval}'
			WHEN 'jsonb'::regtype THEN ARRAY['coalesce(%1$I, ''{}'') || ''{"x": 1}''', 'jsonb_build_array(%1$I)']
			WHEN 'uuid'::regtype THEN ARRAY['gen_random_uuid()']
			WHEN 'text[]'::regtype THEN ARRAY['coalesce(%1$I, ''{}'') || ''x''::text', '(''[2:3]={'' || array_to_string(coalesce(%1$I, ''{a,b}''), '','') || ''}'')::text[]',
				'ARRAY[array_to_string(coalesce(%1$I, ''{a,b}''), '','')]']
			WHEN 'inet'::regtype THEN ARRAY['coalesce(%1$I, ''10.0.0.1'') + 1', 'set_masklen(coalesce(%1$I, ''10.0.0.1''), 8)']
			WHEN 'bytea'::regtype THEN ARRAY['coalesce(%1$I, '''') || ''\x00''', '''\x''::bytea']
		END) f
	$$});
my @columns = split /\n/, superuser(q{SELECT attname || '|' || atttypid::regtype || '|' || attnotnull FROM pg_attribute
	WHERE attrelid = 'oauth_vault.audit'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum});
cmp_ok(scalar @columns, '>=', 22, 'columns');
my $middle = int($last / 2);
my ($tried, @unnoticed) = (0);
foreach my $id (1, $middle, $last)
{
	foreach (@columns)
	{
		my ($column, $type, $not_null) = split /\|/;
		my $is = superuser(qq{
			SELECT string_agg(after(format('UPDATE oauth_vault.audit SET %I = %s WHERE audit_id = $id AND %1\$I IS DISTINCT FROM %2\$s', '$column', o)), ',')
				FROM (SELECT other('$column', '$type') UNION ALL SELECT 'NULL' WHERE NOT $not_null) o (o)});
		foreach my $verdict (split /,/, $is)
		{
			next if $verdict eq 'nothing changed';
			$tried++;
			push @unnoticed, "$column of row $id: $verdict" unless $verdict =~ /^(?:modified|missing|duplicate|truncated|damaged|rechained) -?\d+$/;
		}
	}
}
is_deeply(\@unnoticed, [], 'whatever is changed in one column of one row is noticed');
cmp_ok($tried, '>', 80, "in $tried ways");
is(verdict(), 'ok', 'and nothing was changed');
is(superuser("SELECT after('UPDATE oauth_vault.audit SET purpose = ''x'' WHERE audit_id = $middle')"), "modified $middle", 'the row is named');

# ---- rows ----

my %change = (
	'the first row deleted' => ['DELETE FROM oauth_vault.audit WHERE audit_id = 1', 'missing 1'],
	'one in the middle deleted' => ["DELETE FROM oauth_vault.audit WHERE audit_id = $middle", "missing $middle"],
	'some in the middle deleted' => ["DELETE FROM oauth_vault.audit WHERE audit_id BETWEEN $middle AND $middle + 3", "missing $middle"],
	'a row put in twice' => ["INSERT INTO oauth_vault.audit SELECT * FROM oauth_vault.audit WHERE audit_id = $middle", "duplicate $middle"],
	'two rows exchanged' => ["UPDATE oauth_vault.audit SET audit_id = 2 * $middle + 1 - audit_id WHERE audit_id IN ($middle, $middle + 1)", "modified $middle"],
	'all rows deleted' => ['DELETE FROM oauth_vault.audit', 'truncated 1'],
	'all rows and heads deleted' => ['WITH h AS (DELETE FROM oauth_vault.audit_head) DELETE FROM oauth_vault.audit', 'truncated 1'],
	'heads deleted' => ['DELETE FROM oauth_vault.audit_head', 'head_missing 1'],
	'a MAC changed' => [q{UPDATE oauth_vault.audit_head SET mac = sha256('x') WHERE first_id = 1}, 'head_forged \d+'],
	'a head for other rows' => ['UPDATE oauth_vault.audit_head SET first_id = first_id + 1 WHERE first_id = 1', 'head_missing 1'],
	'a head of another cluster' => ['UPDATE oauth_vault.audit_head SET system_identifier = 1', 'head_forged \d+'],
	'a head of another timeline' => ['UPDATE oauth_vault.audit_head SET timeline = timeline + 1', 'head_forged \d+'],
	'a column renamed' => ['ALTER TABLE oauth_vault.audit RENAME COLUMN reason TO excuse', 'damaged 1'],
	'a tombstone made up' => [q{INSERT INTO oauth_vault.audit_head SELECT 'retired', 1, 5, previous_hash, (SELECT hash FROM oauth_vault.audit WHERE audit_id = 5),
		made_at, system_identifier, timeline, database_oid, 'audit_x', key_id, mac FROM oauth_vault.audit_head LIMIT 1}, 'head_forged 5']);
foreach (sort keys %change)
{
	my ($sql, $expected) = @{ $change{$_} };
	$sql =~ s/'/''/g;
	# a superuser's ALTER counts no rows
	my $is = superuser("SELECT after('$sql; SELECT 1')") =~ s/^nothing changed$/?/r;
	like($is, qr/^$expected$/, $_);
}
superuser('CREATE TABLE end_row AS SELECT * FROM oauth_vault.audit ORDER BY audit_id DESC LIMIT 1;
	UPDATE end_row SET audit_id = audit_id + 1000');
like(superuser("SELECT after('INSERT INTO oauth_vault.audit SELECT * FROM end_row')"), qr/^missing \d+$/, 'a row put in at the end');
superuser('UPDATE end_row SET audit_id = 0');
is(superuser("SELECT after('INSERT INTO oauth_vault.audit SELECT * FROM end_row')"), 'duplicate 0', 'a row put in before the first');

# ---- chained again ----

sub field
{
	my ($value, $type) = @_;
	return "\0" unless defined $value;
	if ($type eq 'text[]')
	{
		return "\2" . pack('N', scalar @$value) . join '', map { field($_, 'text') } @$value;
	}
	my $bytes = $type eq 'bigint' ? pack('q>', $value) : $type eq 'timestamp with time zone' ? pack('q>', $value)
	  : $type eq 'uuid' || $type eq 'bytea' ? pack('H*', $value =~ s/^\\x|-//gr) : $value;
	return "\1" . pack('N', length $bytes) . $bytes;
}
my @hashed = grep { $_->[0] ne 'hash' } map { [ (split /\|/)[0, 1] ] } @columns;
my $as_text = join ', ', map {
	my ($column, $type) = @$_;
	$type eq 'timestamp with time zone' ? "(extract(epoch FROM $column) * 1000000 - 946684800000000)::bigint AS $column"
	  : $type eq 'jsonb' || $type eq 'inet' ? "$column\::text" : $column } @hashed;
sub rows_from
{
	my ($from) = @_;
	return map { decode_json($_) } split /\n/, superuser(
		"SELECT row_to_json(r) FROM (SELECT $as_text, hash FROM oauth_vault.audit WHERE audit_id >= $from ORDER BY audit_id) r");
}
sub hash_of
{
	my ($row, $previous) = @_;
	utf8::encode(my $canonical = '');
	$canonical = "OVA\1" . $previous . join '', map { field($row->{ $_->[0] }, $_->[1]) } @hashed;
	return sha256($canonical);
}
my @rows = rows_from(1);
my $previous = "\0" x 32;
my @wrong;
foreach my $row (@rows)
{
	$previous = hash_of($row, $previous);
	push @wrong, $row->{audit_id} unless '\x' . unpack('H*', $previous) eq $row->{hash};
}
is_deeply(\@wrong, [], 'the hashes are those that the documented form gives');

# Rows from $from on, with another purpose in the first, and hashes that fit.
sub rechain
{
	my ($from) = @_;
	my $sql = '';
	my $before = pack 'H*', substr((rows_from($from - 1))[0]{hash}, 2);
	foreach my $row (rows_from($from))
	{
		$row->{purpose} = 'something innocent' if $row->{audit_id} == $from;
		$before = hash_of($row, $before);
		$sql .= sprintf "UPDATE oauth_vault.audit SET hash = '\\x%s' WHERE audit_id = %d;\n", unpack('H*', $before), $row->{audit_id};
	}
	return "UPDATE oauth_vault.audit SET purpose = 'something innocent' WHERE audit_id = $from;\n$sql";
}
sub quoted { return 'E\'' . ($_[0] =~ s/\\/\\\\/gr =~ s/'/''/gr) . '\''; }
sealed();
my $rechained = rechain($middle);
like(superuser('SELECT after(' . quoted($rechained) . ')'), qr/^rechained \d+$/, 'rows chained again do not fit their head');
like(superuser('SELECT after(' . quoted("$rechained; UPDATE oauth_vault.audit_head h SET hash = a.hash FROM oauth_vault.audit a WHERE audit_id = last_id") . ')'),
	qr/^head_forged \d+$/, 'whose MAC nobody else can make');
sealed();
$rechained = rechain($middle);
like(superuser('SELECT after(' . quoted("$rechained; DELETE FROM oauth_vault.audit_head WHERE last_id >= $middle") . ')'),
	qr/^(?:head_missing|rechained) \d+$/, 'and which is missed');

# ---- cut off ----

sealed();
my ($kept_id, $kept);
ok(ov_wait_for('a head in the log', sub {
	my @heads = slurp_file($node->logfile) =~ /audit trail head (\d+:[0-9a-f]{64})/g;
	$kept = $heads[-1];
	($kept_id) = ($kept // '') =~ /^(\d+)/;
	return defined $kept_id && $kept_id >= $last;
}), 'the server log has heads');
is(verdict("head => '$kept'"), 'ok', 'a head from the log is one of the trail');
is(verdict("head => '" . ($kept =~ s/:./:x/r =~ s/x/$kept =~ m{:0} ? '1' : '0'/er) . "'"), "head_differs $kept_id", 'a false one is not');
like(($node->psql('postgres', "SELECT oauth_vault.oauth_audit_verify(head => 'x')"))[2], qr/is not a head of the audit trail/, 'nor is anything else');

my $cut = $kept_id - 4;
# what a thief does: rows and heads at once, and the server forgets
superuser("DELETE FROM oauth_vault.audit WHERE audit_id > $cut; DELETE FROM oauth_vault.audit_head WHERE last_id > $cut");
is(verdict(), 'truncated ' . ($cut + 1), 'while the server runs it knows what it wrote');
ov_wait_for('heads', sub { superuser('SELECT (SELECT max(last_id) FROM oauth_vault.audit_head) = (SELECT max(audit_id) FROM oauth_vault.audit)') eq 't' });
superuser("DELETE FROM oauth_vault.audit WHERE audit_id > $cut; DELETE FROM oauth_vault.audit_head WHERE last_id > $cut");
# A writer that is told to go still seals what it has written; one that crashes does not.
$node->stop('immediate');
$node->start;
ov_wait_for('the server', sub { eval { verdict() } });
is(verdict("head => '$kept'"), 'truncated ' . ($cut + 2), 'afterwards a head from the log does');
ov_sql($node, 'ada', "SELECT count(oauth_vault.oauth_fresh_token('demo')) FROM generate_series(1, 5);");
is(verdict("head => '$kept'"), "head_differs $kept_id", 'also when other rows have grown in their place');

$node->stop('fast');
done_testing();
