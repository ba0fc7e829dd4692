# No token without its row in the audit trail: whatever becomes of the caller's
# transaction, while rows cannot be written, and when processes are killed.
#
# KILLS: how many processes the campaign at the end kills (3);
# SEED: of its choices.  make check runs the short slice.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $idp = ov_idp(ACCESS_TOKEN_TTL => 6000);
my $node = ov_cluster('written', init => { extra => ['--wal-segsize=1'] }, hosts => ["localhost:$idp->{port}"],
	conf => "max_prepared_transactions = 4\nrestart_after_crash = on\noauth_vault.audit = durable\noauth_vault.audit_ring_size = 64\nfsync = on\n");
sub superuser { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
superuser(qq{SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
ov_connect($node, 'ada', 'demo');
my $jwt = ov_assertion($node, 'ada', '--actor', 'agent-7');

sub count_of { my ($purpose) = @_; return superuser("SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'ok' AND purpose = '$purpose'"); }
sub fresh { my ($purpose) = @_; return "SELECT length(oauth_vault.oauth_fresh_token('demo', purpose => '$purpose', assertion => '$jwt')) > 10;"; }
sub run { my ($sql) = @_; return $node->psql('postgres', $sql, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ], on_error_stop => 0); }
sub audit { my ($mode) = @_; superuser("ALTER SYSTEM SET oauth_vault.audit = $mode; SELECT pg_reload_conf()");
	ov_wait_for('the setting', sub { superuser('SHOW oauth_vault.audit') eq $mode }); }
sub writer { my $pid = '';
	ov_wait_for('the writer', sub { $pid = eval { superuser(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'oauth_vault audit writer'}) } // ''; $pid ne '' }, 60); return $pid; }
sub verified { my $v = decode_json(superuser('SELECT row_to_json(v) FROM oauth_vault.oauth_audit_verify() v')); return $v->{ok} ? 'ok' : "$v->{problem} $v->{bad_id}: $v->{explanation}"; }

# ---- the caller's transaction ----

my %way = (
	read_only => "BEGIN READ ONLY; %s COMMIT;",
	serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE; %s COMMIT;",
	rollback => "BEGIN; %s ROLLBACK;",
	failed => "BEGIN; %s SELECT 1/0; COMMIT;",
	savepoint => "BEGIN; SAVEPOINT s; %s ROLLBACK TO s; COMMIT;",
	prepared => "BEGIN; %s PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p';",
	caught => "DO \$\$ BEGIN PERFORM %s RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END \$\$;",
	cursor => "BEGIN; DECLARE c CURSOR FOR %s FETCH c; ROLLBACK;");
foreach my $way (sort keys %way)
{
	my $call = $way eq 'caught' ? fresh($way) =~ s/^SELECT //r : fresh($way);
	my ($rc, $out, $err) = run(sprintf($way{$way}, $call));
	is(count_of($way), 1, "a token in a transaction that is: $way");
}
is(superuser(q{SELECT concat_ws('|', user_id, actor ->> 'sub', connector, connection_id IS NOT NULL, scopes, database_role, session_user_name, application_name <> '',
	length(token_fingerprint), reason IS NULL) FROM oauth_vault.oauth_audit WHERE purpose = 'read_only'}),
	'ada|agent-7|demo|t|{openid,offline_access}|app|app|t|16|t', 'the row says who, for whom, through what');

# Cancelled while it waits for its row: there is no token, and the row comes.
my $pid = writer();
kill 'STOP', $pid;
my ($rc, $out, $err) = run("SET statement_timeout = '500ms'; " . fresh('cancelled'));
like($err, qr/57014/, 'a caller can be cancelled while the writer stands still');
unlike($out, qr/^t$/m, 'and has no token');
kill 'CONT', $pid;
ov_wait_for('the row', sub { count_of('cancelled') == 1 });
is(count_of('cancelled'), 1, 'its row is written all the same');

# ---- rows cannot be written ----

# A table that is damaged
superuser('ALTER TABLE oauth_vault.audit RENAME COLUMN hash TO hush');
foreach my $mode ('durable', 'batched')
{
	audit($mode);
	# the first one may find out
	run(fresh("damaged $mode")) if $mode eq 'batched';
	my $started = time;
	($rc, $out, $err) = run(fresh("damaged $mode"));
	like($err, qr/ERROR:\s+OV042:.*42703/s, "$mode: no token while the table is damaged, and why");
	cmp_ok(time - $started, '<', 5, "$mode: told soon");
	unlike($out, qr/^t$/m, "$mode: no token");
}
superuser('ALTER TABLE oauth_vault.audit RENAME COLUMN hush TO hash');
ov_wait_for('tokens', sub { (run(fresh('repaired')))[1] =~ /^t$/m });
cmp_ok(count_of('repaired'), '>=', 1, 'when it is put right everything works again');
cmp_ok(count_of('damaged durable'), '>=', 1, 'and rows that were queued are written');

# A file that cannot grow: the kernel refuses, as it does on a full disk.  Not
# the files of the write-ahead log, which are a megabyte each and no larger.
audit('durable');
my $partition = superuser('SELECT tableoid::regclass FROM oauth_vault.audit LIMIT 1');
superuser("INSERT INTO $partition (audit_id, at, event, outcome, recorded_at, hash)
	SELECT -i, now(), 'filler', 'ok', now(), '' FROM generate_series(1, 5000) i") while superuser("SELECT pg_relation_size('$partition')") < 1100 * 1024;
system('prlimit', '--pid', writer(), '--fsize=' . (1024 * 1024) . ':') == 0 or BAIL_OUT('prlimit');
my ($refused, $given) = (0, 0);
foreach my $i (1 .. 60)
{
	($rc, $out, $err) = run(fresh("full $i"));
	$given++ if $out =~ /^t$/m;
	next unless $err =~ /ERROR:\s+OV042/;
	$refused++;
	last if $refused == 2;
}
is($refused, 2, 'no token when the file of the trail cannot grow');
like(slurp_file($node->logfile), qr/could not write audit rows: could not extend file/, 'the log says why');
system('prlimit', '--pid', writer(), '--fsize=unlimited:') == 0 or BAIL_OUT('prlimit');
ok(ov_wait_for('tokens', sub { (run(fresh('grown')))[1] =~ /^t$/m }), 'when it can there are tokens again');
cmp_ok(superuser(q{SELECT count(DISTINCT purpose) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'ok' AND purpose LIKE 'full %'}),
	'>=', $given + 1, "and each of the $given tokens that were given has its row, as the one that waited for its has");
superuser("DELETE FROM $partition WHERE event = 'filler'");

# A queue that is full: callers wait, and then get an error
audit('batched');
$pid = writer();
kill 'STOP', $pid;
my $many = join '', map { fresh("queued $_") } 1 .. 400;
($rc, $out, $err) = run("SET statement_timeout = '60s';\n\\set ON_ERROR_STOP on\n$many");
like($err, qr/ERROR:\s+OV042:.*queue full/s, 'a full queue is an error after a while, not a token without a row');
my $tokens = () = $out =~ /^t$/mg;
kill 'CONT', $pid;
ov_wait_for('the queue', sub { superuser(q{SELECT value FROM oauth_vault.oauth_metrics WHERE name = 'oauth_vault_audit_backlog_bytes'}) == 0 });
is(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'ok' AND purpose LIKE 'queued %'}),
	$tokens, "each of the $tokens tokens that were given before has its row");
ok(superuser(q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'failed' AND reason = 'OV042'
	AND audit_id > (SELECT min(audit_id) FROM oauth_vault.audit WHERE purpose LIKE 'queued %')}) > 0
	  || slurp_file($node->logfile) =~ /no room for an audit row: event token_access/,
	'the one that was refused is in the trail or in the log');
audit('durable');
is(verified(), 'ok', 'the trail verifies');

# ---- processes are killed ----

my $kills = $ENV{KILLS} // 3;
my $seed = $ENV{SEED} // time;
srand $seed;
note "seed $seed, $kills kills";
my $dir = PostgreSQL::Test::Utils::tempdir();
my $long = ov_assertion($node, 'ada');
my @clients = map {
	my $n = $_;
	my $child = fork // die "fork: $!";
	if ($child == 0)
	{
		# psql writes what it got; a connection that breaks is made anew
		for (my $round = 1; !-e "$dir/stop"; $round++)
		{
			open my $script, '>', "$dir/$n.sql" or die;
			print $script "SELECT 'got c$n-$round-$_' WHERE oauth_vault.oauth_fresh_token('demo', purpose => 'c$n-$round-$_', assertion => '$long') IS NOT NULL;\n"
			  foreach 1 .. 100;
			close $script;
			system('bash', '-c', "psql -XAtq -U app -v ON_ERROR_STOP=1 -d '" . $node->connstr('postgres') . "' -f $dir/$n.sql >> $dir/$n.out 2> /dev/null")
			  and usleep(20_000);
		}
		require POSIX;
		POSIX::_exit(0);
	}
	$child } 1 .. 4;
sub got { my $n = 0; foreach my $c (1 .. 4) { $n += () = (-e "$dir/$c.out" ? slurp_file("$dir/$c.out") : '') =~ /^got /mg; } return $n; }
foreach my $kill (1 .. $kills)
{
	my $had = got();
	ok(ov_wait_for('tokens', sub { got() > $had + 40 }, 60), "tokens are given before kill $kill") or last;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my @victims = map { /^\s*(\d+)\s+(.*)/ ? [ $1, $2 ] : () } `ps -o pid=,args= --ppid $postmaster`;
	my @writers = grep { $_->[1] =~ /audit writer/ } @victims;
	my $victim = $kill % 3 == 1 && @writers ? $writers[0] : $victims[ int rand @victims ];
	usleep(int rand 30_000);
	note "kill -9 $victim->[1]";
	kill 'KILL', $victim->[0];
}
my $had = got();
ov_wait_for('tokens', sub { got() > $had + 20 }, 60);
append_to_file("$dir/stop", '');
waitpid $_, 0 foreach @clients;
ov_wait_for('the server', sub { eval { superuser('SELECT 1') } }, 60);
my %have = map { $_ => 1 } split /\n/, superuser(q{SELECT purpose FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'ok' AND purpose ~ '^c\d-'});
my @without = grep { !$have{$_} } map { slurp_file("$dir/$_.out") =~ /^got (\S+)$/mg } 1 .. 4;
is_deeply(\@without, [], 'of ' . got() . " tokens none is without its row after $kills kills (seed $seed)");
is(verified(), 'ok', 'and the trail verifies');

$node->stop('fast');
done_testing();
