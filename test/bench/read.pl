# read.pl: what oauth_fresh_token costs beside a plain SELECT of a plaintext token,
# by number of clients, way of auditing and number of connections.
#
# Environment: BENCH_SIZES ("10000 1000000"), BENCH_CLIENTS ("1 2 8 16"),
# BENCH_ROUNDS (30) slices of BENCH_SLICE (150) ms for each statement,
# BENCH_SERVERS ("batched durable none").
# Prints tables and writes doc/bench-read.svg.
#
# Three servers with the same people: audit batched, audit durable, and a build
# without audit (OV_BENCH_NO_AUDIT, which no installation has).  Rows are sealed by
# test/bench/fill.c under a key per person.  All ratios are medians of those
# within one cycle of slices on one server (test/bench/read.c).
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IPC::Run ();
use OauthVault::Test;
use Plot qw(bars);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my @sizes = split ' ', $ENV{BENCH_SIZES} || '10000 1000000';
my @clients = split ' ', $ENV{BENCH_CLIENTS} || '1 2 8 16';
my $rounds = $ENV{BENCH_ROUNDS} || 30;
my $slice = $ENV{BENCH_SLICE} || 150;
my %wanted = map { $_ => 1 } split ' ', $ENV{BENCH_SERVERS} || 'batched durable none';
my ($access, $refresh) = (1200, 300);		# bytes
my $bin = "$ENV{WORK}/bench";
my $many = 16;				# identities that a session changes between

sub median { my @s = sort { $a <=> $b } @_; return @s % 2 ? $s[ $#s / 2 ] : ($s[ @s / 2 - 1 ] + $s[ @s / 2 ]) / 2; }
sub quartiles { my @s = sort { $a <=> $b } @_; return @s[ int($#s / 4), int($#s * 3 / 4) ]; }

# ---- servers ----

my $idp = ov_idp();
my %server;
sub superuser { my ($n, $sql) = @_; return $n->safe_psql('postgres', $sql); }

sub server
{
	my ($name, $audit, %opt) = @_;
	my $n = ov_cluster($name, hosts => ["localhost:$idp->{port}"], %opt, conf => <<CONF);
fsync = on
synchronous_commit = on
full_page_writes = on
wal_level = replica
shared_buffers = 4GB
max_wal_size = 16GB
checkpoint_timeout = 1h
jit = off
log_statement = none
oauth_vault.audit = $audit
oauth_vault.audit_ring_size = 4MB
CONF
	superuser($n, qq{
		SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
			'https://app.example/callback', scopes => ARRAY['openid'], issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
	ov_connect($n, 'somebody', 'demo');		# makes the vault what it is; gives the digest of the hosts
	superuser($n, q{
		CREATE EXTENSION pgcrypto;
		CREATE TABLE plain (user_id bigint, connector text COLLATE "C", token text, PRIMARY KEY (user_id, connector));
		CREATE TABLE guarded (LIKE plain INCLUDING ALL);
		ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON guarded USING (user_id = current_setting('app.person')::bigint);
		CREATE TABLE encrypted (user_id bigint, connector text COLLATE "C", token bytea, PRIMARY KEY (user_id, connector));
		CREATE TABLE trail (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now(), who text, what text);
		CREATE TABLE assertion (client int, n int, jwt text);
		GRANT SELECT ON plain, guarded, encrypted, assertion TO app;
		GRANT SELECT, INSERT ON trail TO app});
	return $n;
}

# People u1 ... u<size>; those that are there stay
sub grow
{
	my ($n, $size) = @_;
	my $have = superuser($n, 'SELECT count(*) FROM plain');
	return if $have >= $size;
	my $from = $have + 1;
	my $first_key = 1000 + $from;
	my $fill = superuser($n, qq{SELECT format('$bin/fill %s $n->{ov_vault} %s %s %s $first_key $from $size $access $refresh', '%s',
		encode(uuid_send(h.vault_id), 'hex'), encode(uuid_send(c.connector_id), 'hex'), encode(c.hosts_digest, 'hex'))
		FROM oauth_vault.home h, oauth_vault.connection c WHERE c.user_id = 'somebody'});
	my ($keys, $connections) = map { $fill =~ s/%s/$_/r } qw(keys connections);
	superuser($n, qq{
		COPY oauth_vault.vault_key (key_id, kind, tenant, user_id, platform_version, platform_fingerprint, wrapped)
			FROM PROGRAM '$keys' (FORMAT binary);
		COPY oauth_vault.connection (connection_id, user_id, tenant, connector_id, status, key_id, token_generation, hosts_digest,
			issued_at, expires_at, refresh_at, requested_scopes, scopes, access_token, refresh_token)
			FROM PROGRAM '$connections' (FORMAT binary);
		INSERT INTO plain SELECT i, 'demo', string_agg(md5(i || '.' || k), '' ORDER BY k)
			FROM generate_series($from, $size) i, generate_series(1, $access / 32) k GROUP BY i});
	superuser($n, q{INSERT INTO guarded SELECT * FROM plain; INSERT INTO encrypted SELECT user_id, connector,
		pgp_sym_encrypt(token, 'a passphrase', 'compress-algo=0') FROM plain}) if $size <= 10_000;
	superuser($n, 'VACUUM ANALYZE; CHECKPOINT');
	return;
}

# Assertions of this moment: for each client one person to stay, and $many to change between
sub sign
{
	my ($n, $clients, $size) = @_;
	my $file = "$ENV{WORK}/tmp/assertions." . $n->name;
	my $rows = '';
	open my $out, '>', $file or die $!;
	foreach my $k (1 .. $clients * $many)
	{
		my $who = 1 + int($k * ($size - 1) / ($clients * $many));
		my $jwt = '';
		IPC::Run::run([ 'node', "$FindBin::Bin/assertions.mjs", "$n->{ov_vault}.signing-key.json", 'u', $who, $who ], '>', \$jwt) or die 'sign';
		$jwt =~ s/^.*\t|\n//g;
		print $out "$jwt\n";
		$rows .= ",(" . (($k - 1) % $clients) . ", $k, '$jwt')";
	}
	close $out;
	superuser($n, 'TRUNCATE assertion; INSERT INTO assertion VALUES ' . substr $rows, 1);
	return $file;
}

# What read prints: name => per cycle {rate, p50, p99}
sub run_read
{
	my ($clients, $spec) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ "$bin/read", $clients, $slice, $rounds ], '<', \$spec, '>', \$out, '2>', \$err) or die "read: $err";
	my %cycles;
	foreach (split /\n/, $out)
	{
		my ($name, $cycle, $rate, $p50, $p99) = split ' ';
		$cycles{$name}[$cycle] = { rate => $rate, p50 => $p50, p99 => $p99 };
	}
	return \%cycles;
}
sub lines
{
	my ($n, $clients, $size, @lines) = @_;
	my $file = sign($n, $clients, $size);
	my $connstr = $n->connstr('postgres') . ' user=app';
	return join '', map { join("\t", $_->[0], $connstr, $_->[1], $_->[2], $_->[3] =~ s/FILE/$file/r =~ s/SIZE/$size/r) . "\n" } @lines;
}
sub compare { my ($n, $clients, @more) = @_; return run_read($clients, lines($n, $clients, @more)); }
sub med { my ($c, $name, $what) = @_; return median(map { $_->{$what} } @{ $c->{$name} }); }
sub ratio
{
	my ($c, $name, $base) = @_;
	my @r = map { $c->{$name}[$_]{rate} / $c->{$base}[$_]{rate} } 0 .. $rounds - 1;
	return (median(@r), quartiles(@r));
}

my $identify = 'SELECT oauth_vault.oauth_identify(jwt, session => true) FROM assertion WHERE client = %d ORDER BY n LIMIT 1';
my $ours = ['ours', $identify, q{SELECT oauth_vault.oauth_fresh_token('demo', purpose => 'bench')}, ''];
my $plain = ['plain', '', q{SELECT token FROM plain WHERE user_id = 4711 AND connector = 'demo'}, ''];
my $plain_any = ['plain_any', '', q{SELECT token FROM plain WHERE user_id = $1 AND connector = 'demo'}, 'int 1 SIZE'];

my @people = ('people', '', q{SELECT oauth_vault.oauth_fresh_token('demo', purpose => 'bench', assertion => $1)}, 'file FILE');

my $began = time;
$server{batched} = server('batched', 'batched') if $wanted{batched};
$server{durable} = server('durable', 'durable') if $wanted{durable};
$server{none} = server('none', 'batched', install_path => "$ENV{WORK}/pgnoaudit/usr/lib/postgresql/$ENV{PGVERSION}") if $wanted{none};
grow($_, 10_000) foreach values %server;
note(sprintf 'servers of 10,000 connections in %.0f s', time - $began);

my @table;
my %chart;
sub row
{
	my ($label, $clients, $size, $c, $name, $base, $target) = @_;
	my ($r, $low, $high) = ratio($c, $name, $base);
	push @table, sprintf '| %s | %d | %s | %.0f | %.0f | %.2f (%.2f-%.2f) | %s | %.0f / %.0f | %.0f / %.0f |', $label, $size, $clients,
		med($c, $name, 'rate'), med($c, $base, 'rate'), $r, $low, $high, $target,
		med($c, $name, 'p50'), med($c, $name, 'p99'), med($c, $base, 'p50'), med($c, $base, 'p99');
	note($table[-1]);
	push @{ $chart{"$clients clients, $size connections"} }, { label => $label, value => med($c, $name, 'rate') };
	return $r;
}

foreach my $clients (@clients)
{
	if ($wanted{none})
	{
		my $c = compare($server{none}, $clients, 10_000, $plain, $ours);
		row('audit off / plain', $clients, 10_000, $c, 'ours', 'plain', '0.95');
	}
	if ($wanted{batched})
	{
		my $c = compare($server{batched}, $clients, 10_000, $plain, $ours, $plain_any, \@people,
			['guarded', "SET app.person = '4711'", q{SELECT token FROM guarded WHERE connector = 'demo'}, ''],
			['pgcrypto', '', q{SELECT pgp_sym_decrypt(token, 'a passphrase') FROM encrypted WHERE user_id = 4711 AND connector = 'demo'}, '']);
		row('batched / plain', $clients, 10_000, $c, 'ours', 'plain', $clients < 8 ? '0.70' : '0.80');
		row("batched, $many people with assertions / plain, any row", $clients, 10_000, $c, 'people', 'plain_any', '');
		row('batched / row security, plaintext', $clients, 10_000, $c, 'ours', 'guarded', '');
		row('batched / pgp_sym_decrypt', $clients, 10_000, $c, 'ours', 'pgcrypto', '3');
	}
	if ($wanted{durable})
	{
		my $c = compare($server{durable}, $clients, 10_000,
			['insert', '', q{INSERT INTO trail (who, what) VALUES ('u4711', 'token_access') RETURNING id}, ''], $ours);
		row('durable / bare durable INSERT', $clients, 10_000, $c, 'ours', 'insert', $clients < 8 ? '0.65' : '0.90');
	}
}
# What a call leaves is there, whatever the rate
foreach my $name (grep { $server{$_} } 'batched', 'durable')
{
	is(superuser($server{$name}, q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome <> 'ok'}), 0, "$name: no call failed");
	cmp_ok(superuser($server{$name}, q{SELECT count(*) FROM oauth_vault.audit WHERE event = 'token_access' AND outcome = 'ok'}), '>', 100, 'calls left rows');
}
foreach my $name (grep { $server{$_} } 'durable', 'none')
{
	$server{$name}->stop;
}

# Larger tables, against ten thousand connections in the same cycle, on two servers side by side
foreach my $size (grep { $_ > 10_000 && $wanted{batched} } @sizes)
{
	$began = time;
	$server{large} //= server('large', 'batched');
	grow($server{large}, $size);
	note(sprintf '%d connections in %.0f s', $size, time - $began);
	foreach my $clients (grep { $_ == 1 || $_ == 8 } @clients)
	{
		my $c = run_read($clients, lines($server{batched}, $clients, 10_000, [ 'small', @people[ 1 .. 3 ] ])
			. lines($server{large}, $clients, $size, [ 'large', @people[ 1 .. 3 ] ]));
		row('large / 10,000', $clients, $size, $c, 'large', 'small', $size > 1_000_000 ? '0.80' : '0.85');
	}
}

note('| what | connections | clients | calls/s | against/s | ratio (quartiles) | target | p50 / p99 us | against |');
note($_) foreach @table;
bars("$ENV{OV_TREE}/doc/bench-read.svg", title => 'oauth_fresh_token', unit => 'calls/s',
	groups => [ map { { label => $_, bars => $chart{$_} } } sort { ($a =~ /^(\d+)/)[0] <=> ($b =~ /^(\d+)/)[0] } keys %chart ]);
done_testing();
