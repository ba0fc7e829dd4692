# The audit trail's partitions: made ahead of time, secured, taken away after
# retention, archived, in a dump; nothing of it makes a token wait, and the
# trail verifies at each step.  The server's clock is moved by test/lib/clock.c.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $clock = PostgreSQL::Test::Utils::tempdir() . '/clock.so';
system('cc', '-shared', '-fPIC', '-o', $clock, "$ENV{OV_TREE}/test/lib/clock.c", '-ldl') == 0 or BAIL_OUT('cc');

my $node = ov_cluster('partitions', source => 'role', conf => "oauth_vault.audit_partition = day\n");
sub superuser { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub restart_at
{
	my ($days) = @_;
	$node->stop('fast');
	local $ENV{LD_PRELOAD} = $clock;
	local $ENV{CLOCK_OFFSET} = $days * 86400;
	$node->start;
}
sub verdict
{
	my ($arguments) = @_;
	my $v = decode_json(superuser('SELECT row_to_json(v) FROM oauth_vault.oauth_audit_verify(' . ($arguments // '') . ') v'));
	return $v->{ok} ? "ok $v->{first_id}" : "$v->{problem} $v->{bad_id}: $v->{explanation}";
}
sub sealed
{
	return ov_wait_for('heads', sub {
		superuser('SELECT (SELECT max(last_id) FROM oauth_vault.audit_head) = (SELECT max(audit_id) FROM oauth_vault.audit)') eq 't' });
}
sub rows
{
	superuser(q{SELECT oauth_vault.oauth_set_scope_policy('kept', 't' || i, NULL, ARRAY['openid']) FROM generate_series(1, 5) i});
	return sealed();
}
my $partitions = q{SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
	WHERE inhparent = 'oauth_vault.audit'::regclass};

is(superuser($partitions), '', 'there is none before the first row');
superuser(q{CREATE ROLE reader;
	ALTER DEFAULT PRIVILEGES FOR ROLE oauth_vault_owner GRANT ALL ON TABLES TO reader, PUBLIC;
	SELECT oauth_vault.oauth_create_connector('kept', 'google', 'client', 'secret', 'https://app.example/cb', ARRAY['openid'])});
rows();
ok(ov_wait_for('partitions', sub { (split / /, superuser($partitions)) >= 8 }), 'and then those of a week');
is(superuser(q{SELECT count(*) FROM pg_inherits i, pg_class c WHERE inhparent = 'oauth_vault.audit'::regclass AND c.oid = inhrelid AND NOT
	(relrowsecurity AND relforcerowsecurity AND relowner = 'oauth_vault_owner'::regrole AND relkind = 'r'
		AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
		AND NOT EXISTS (SELECT FROM aclexplode(relacl) a WHERE a.grantee <> relowner)
		AND (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) = 4
		AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e'))}), '0',
	'each is the owner\'s alone, row security forced without a policy, whatever default privileges say, and no member of the extension');
is(verdict(), 'ok 1', 'the trail verifies');

# ---- retention ----

restart_at(3);
rows();
is(verdict(), 'ok 1', 'rows of another day follow');
my $old = (split / /, superuser($partitions))[0];
my ($first, $before) = split /\|/, superuser("SELECT min(audit_id), max(audit_id) FROM oauth_vault.$old");
my $next = $before + 1;

# Somebody reads: retention waits, and nobody waits for retention.
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT count(*) FROM oauth_vault.oauth_audit');
$node->append_conf('postgresql.conf', "oauth_vault.audit_retention = 1\noauth_vault.audit_expired = detach\n");
$node->reload;
foreach (1 .. 3)
{
	rows();
	is(superuser("SELECT count(*) FROM pg_locks WHERE NOT granted"), '0', 'nobody waits for a lock');
}
like(superuser($partitions), qr/\b$old\b/, 'the partition stays while somebody reads');
$reader->query_safe('COMMIT');
ok(ov_wait_for('retention', sub { superuser($partitions) !~ /\b$old\b/ }), 'and goes when he has finished');
$reader->quit;
rows();
is(verdict(), "ok $next", 'the trail begins after it');
is(superuser(qq{SELECT detail ->> 'partition' FROM oauth_vault.oauth_audit WHERE event = 'audit_retired'}), $old, 'which it says itself');

# ---- archived ----

is(verdict("relation => 'oauth_vault.$old'"), "ok $first", 'the partition verifies by itself');
superuser("CREATE SCHEMA archive; GRANT USAGE ON SCHEMA archive TO oauth_vault_owner; ALTER TABLE oauth_vault.$old SET SCHEMA archive");
is(verdict("relation => 'archive.$old'"), "ok $first", 'also in an archive');
superuser("BEGIN; CREATE TABLE archive.copy AS SELECT * FROM archive.$old; GRANT SELECT ON archive.copy TO oauth_vault_owner; UPDATE archive.copy SET user_id = 'somebody' WHERE audit_id = $before; COMMIT");
like(verdict("relation => 'archive.copy'"), qr/^modified $before/, 'and not when it was changed');
superuser("TRUNCATE archive.copy; INSERT INTO archive.copy SELECT * FROM archive.$old WHERE audit_id < $before");
like(verdict("relation => 'archive.copy'"), qr/^truncated $before/, '... or cut');
superuser("TRUNCATE archive.copy; INSERT INTO archive.copy SELECT * FROM archive.$old WHERE audit_id > $first");
like(verdict("relation => 'archive.copy'"), qr/^missing $first/, '... at either end');
superuser("DROP TABLE archive.copy");
my ($from, $to) = superuser("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'archive.$old'::regclass AND conname = 'within'")
  =~ /'([^']+)'.*'([^']+)'/;
superuser("ALTER SYSTEM SET oauth_vault.audit_retention = 0; SELECT pg_reload_conf()");
superuser("ALTER TABLE archive.$old SET SCHEMA oauth_vault; ALTER TABLE oauth_vault.audit ATTACH PARTITION oauth_vault.$old FOR VALUES FROM ('$from') TO ('$to')");
is(verdict(), "ok $first", 'attached again it is a part of the trail');
superuser("ALTER TABLE oauth_vault.audit DETACH PARTITION oauth_vault.$old");
is(verdict(), "ok $next", 'and detached again it is none');
my $made_up = superuser(qq{BEGIN; UPDATE oauth_vault.audit_head SET last_id = last_id + 1 WHERE kind = 'retired';
	SELECT problem FROM oauth_vault.oauth_audit_verify(); ROLLBACK});
is($made_up, 'head_forged', 'what retention took cannot be made up');
superuser("DROP TABLE oauth_vault.$old");

# ---- dump and restore ----

my $file = $node->backup_dir . '.sql';
sealed();
$node->command_ok([ 'pg_dump', '-d', 'postgres', '-f', $file ], 'pg_dump');
superuser('CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $file ], 'and restore');
is($node->safe_psql('restored', 'SELECT ok, first_id FROM oauth_vault.oauth_audit_verify()'), "t|$next", 'the restored trail verifies');
$node->safe_psql('restored', 'SELECT oauth_vault.oauth_claim()');
ok(ov_wait_for('heads', sub { $node->safe_psql('restored', 'SELECT (SELECT max(last_id) FROM oauth_vault.audit_head)
	= (SELECT max(audit_id) FROM oauth_vault.audit)') eq 't' }), 'claimed, it goes on');
is($node->safe_psql('restored', 'SELECT ok, first_id FROM oauth_vault.oauth_audit_verify()'), "t|$next", 'in the same chain');
$node->safe_psql('restored', 'DROP EXTENSION oauth_vault CASCADE');
is($node->safe_psql('restored', q{SELECT count(*) FROM pg_class WHERE relname ~ '^audit_2'}), '0', 'DROP EXTENSION takes the partitions along');

# ---- dropped; the clock goes back ----

$node->append_conf('postgresql.conf', "oauth_vault.audit_expired = drop\n");
superuser('ALTER SYSTEM RESET oauth_vault.audit_retention');
restart_at(40);
rows();
ok(ov_wait_for('retention', sub { (split / /, superuser($partitions)) == 8 }), 'forty days later all that was is dropped');
like(verdict(), qr/^ok \d+$/, 'and the trail verifies');
is(superuser('SELECT count(*) FROM oauth_vault.audit_head WHERE kind = \'batch\' AND last_id >= ' . $next . '
	AND last_id < (SELECT min(audit_id) FROM oauth_vault.audit)'), '0',
	'its heads are gone, too');
my $offset = -s $node->logfile;
restart_at(0);
rows();
like(substr(slurp_file($node->logfile), $offset), qr/clock has gone back/, 'a clock that goes back is told');
is(superuser(q{SELECT count(*) FROM (SELECT recorded_at < lag(recorded_at) OVER (ORDER BY audit_id) AS back FROM oauth_vault.audit) r WHERE back}), '0',
	'rows are recorded in order all the same');
is(superuser(q{SELECT bool_or(at < recorded_at - interval '30 days') FROM oauth_vault.audit}), 't', 'under the time at which they happened');
like(verdict(), qr/^ok \d+$/, 'and the trail verifies');

# ---- somebody takes the partition of today ----

my $today = superuser('SELECT tableoid::regclass FROM oauth_vault.audit ORDER BY audit_id DESC LIMIT 1');
superuser("ALTER TABLE oauth_vault.audit DETACH PARTITION $today");
superuser(q{SELECT oauth_vault.oauth_set_scope_policy('kept', 'x', NULL, ARRAY['openid'])});
isnt(superuser('SELECT max(tableoid::regclass::text) FROM oauth_vault.audit'), '', 'the writer makes another');
like(verdict(), qr/^(?:missing|truncated|head_missing) /, 'which does not hide that one is missing');

$node->stop('fast');
done_testing();
