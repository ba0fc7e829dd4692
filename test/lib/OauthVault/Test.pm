# OauthVault::Test: a cluster with the extension, a real authorization server
# over real TLS beside it, and the few verbs the tests are told with.
package OauthVault::Test;

use strict;
use warnings;
use Exporter 'import';
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(ov_audit_sealed ov_pgbouncer ov_connect_code ov_cluster ov_idp ov_fault ov_h2 ov_sim ov_sim_cluster
  ov_sim_claims ov_assertion ov_consent ov_connect
  ov_control ov_port ov_sql ov_sql_fails ov_wait_for ov_as ov_forms $ca_dir);

my $tree = $ENV{OV_TREE} or die "OV_TREE is not set; run through make check";
our $ca_dir;
my @children;

# Ports below the kernel's ephemeral range, a block per test process.
my $next_port = 20000 + ($$ % 1100) * 10;
sub ov_port { return $next_port++; }

sub _ca
{
	my (@names) = @_;
	return $ca_dir if $ca_dir;
	$ca_dir = PostgreSQL::Test::Utils::tempdir();
	system("$tree/test/idp/make-ca.sh", $ca_dir, @names) == 0 or die "could not make a CA";
	return $ca_dir;
}

# Start a node server; returns {port, issuer, control} once it says "ready".
sub _server
{
	my ($script, %env) = @_;
	my $ca = _ca();
	my $port = ov_port();
	my $control = ov_port();
	my ($out, $err) = ('', '');
	local %ENV = (%ENV, PORT => $port, CONTROL_PORT => $control, CA_DIR => $ca, %env);
	my $h = IPC::Run::start([ 'node', "$tree/test/idp/$script", '--stdin' ],
		'<pipe', my $in = Symbol::gensym(), '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	push @children, { h => $h, in => $in };
	until ($out =~ /^ready/m)
	{
		$h->pump_nb;
		die "$script ended early: $err" unless $h->pumpable;
		usleep(20_000);
	}
	return { port => $port, control => "http://127.0.0.1:$control",
		issuer => "https://localhost:$port", err => \$err, h => $h };
}
sub ov_idp { return _server('idp.mjs', @_); }
sub ov_h2 { return _server('h2.mjs', @_); }
sub ov_fault { return _server('fault.mjs', @_); }

# Every provider at its real names (test/sim), before any other server.
sub ov_sim
{
	chomp(my @names = `node $tree/test/sim/server.mjs --hosts`);
	die "the simulators have no hosts" unless @names;
	_ca(@names);
	return _server('../sim/server.mjs', @_);
}

# A cluster that finds them there: names are resolved for it alone (resolve.c).
sub ov_sim_cluster
{
	my ($sim, $name, %opt) = @_;
	my $so = PostgreSQL::Test::Utils::tempdir() . '/resolve.so';
	system('gcc', '-O2', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-o', $so, "$tree/test/sim/resolve.c", '-ldl') == 0
	  or die "could not build resolve.c";
	local %ENV = (%ENV, LD_PRELOAD => $so, SIM_PORT => $sim->{port});
	return ov_cluster($name, hosts => [ map { @{ $_->{connect}{allow} // [] } } @{ ov_control($sim, 'GET', '/providers') } ], %opt);
}

# Run test/sim/$script (vault.mjs says with what) and repeat its claims as tests; returns its remarks.
sub ov_sim_claims
{
	my ($sim, $node, $script, @people) = @_;
	my ($out, $err, $claims) = ('', '', 0);
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGUSER => $node->safe_psql('postgres', 'SELECT current_user'),
		CA => "$ca_dir/ca.pem", SIM_PORT => $sim->{port}, SIM_CONTROL => $sim->{control},
		ASSERTIONS => encode_json({ map { $_ => ov_assertion($node, $_) } @people }));
	my $done = IPC::Run::run([ 'node', "$tree/test/sim/$script" ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(240));
	my @remarks;
	foreach my $line (split /\n/, $out)
	{
		if ($line =~ /^(not )?ok \d+ - (.*)/) { ok(!$1, $2); $claims++; }
		elsif ($line =~ /^# (found|last refused): /) { diag($line); }
		elsif ($line =~ /^# (.*)/) { note($1); push @remarks, $1; }
	}
	ok($done && $claims && $out =~ /^1\.\.$claims$/m, "$script came to its end") or diag($err);
	is(${ $sim->{err} }, '', 'the simulators had no trouble of their own');
	return @remarks;
}

sub ov_control
{
	my ($server, $method, $path, $body) = @_;
	my $r = HTTP::Tiny->new(timeout => 20)->request($method, $server->{control} . $path,
		{ headers => { 'content-type' => 'application/json' },
			defined $body ? (content => encode_json($body)) : () });
	die "control $path: $r->{status} $r->{content}" unless $r->{success};
	return $r->{content} =~ /^\s*[\[{]/ ? decode_json($r->{content}) : $r->{content};
}

# A cluster with the library preloaded and a vault file outside PGDATA.
sub ov_cluster
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, $opt{install_path} ? (install_path => $opt{install_path}) : ());
	$node->init(%{ $opt{init} // {} });
	my $vault = PostgreSQL::Test::Utils::tempdir() . "/vault.json";
	my @args = ('--file', $vault, '--vault', $name, '--source', $opt{source} // 'assertion',
		'--allow-network', '127.0.0.0/8');
	push @args, '--allow-host', $_ for @{ $opt{hosts} // [] };
	PostgreSQL::Test::Utils::system_or_bail('oauth-vault-keyring', 'init', @args);
	$node->{ov_vault} = $vault;
	my $ca = _ca();
	$node->append_conf('postgresql.conf', <<CONF);
shared_preload_libraries = 'oauth_vault'
oauth_vault.vault_file = '$vault'
oauth_vault.ca_file = '$ca/ca.pem'
max_worker_processes = 24
max_connections = 100
fsync = off
@{[ $opt{conf} // '' ]}
CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION oauth_vault; CREATE ROLE app LOGIN IN ROLE oauth_vault_user;')
	  unless $opt{no_extension};
	return $node;
}

# The audit writer makes its key and a head a moment after the first row: for tests
# that count keys or compare them.
sub ov_audit_sealed
{
	my ($node) = @_;
	return ov_wait_for('a head of the audit trail, and its key', sub {
		$node->safe_psql('postgres', q{SELECT max(h.last_id) = max(a.audit_id) FROM oauth_vault.audit_head h, oauth_vault.audit a}) eq 't' });
}

sub ov_assertion
{
	my ($node, $user, @more) = @_;
	my ($out, $err);
	IPC::Run::run([ 'oauth-vault-keyring', 'sign', '--file', $node->{ov_vault}, '--user', $user, @more ],
		'>', \$out, '2>', \$err) or die "sign: $err";
	chomp $out;
	return $out;
}

# Log in and consent as $user; returns the callback URL.
sub ov_consent
{
	my ($url, $user, @more) = @_;
	my ($out, $err);
	local $ENV{CA} = _ca() . "/ca.pem";
	IPC::Run::run([ 'node', "$tree/test/drivers/consent.mjs", $url, '--user', $user, @more ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60)) or die "consent: $err";
	chomp $out;
	return $out;
}

# SQL in the session of $user (transaction-scoped identity), as role app.
# begin_mode: "ISOLATION LEVEL SERIALIZABLE" and the like; end: "ROLLBACK;".
sub ov_as
{
	my ($node, $user, $sql, %opt) = @_;
	my $jwt = $opt{assertion} // ov_assertion($node, $user);
	my $mode = $opt{begin_mode} // '';
	my $end = $opt{end} // 'COMMIT;';
	my ($rc, $out, $err) = $node->psql($opt{dbname} // 'postgres',
		"BEGIN $mode;\nSELECT oauth_vault.oauth_identify('$jwt');\n$sql\n$end",
		extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ], on_error_stop => 1);
	$out =~ s/^\n//;
	return ($rc, $out, $err);
}
sub ov_sql
{
	my ($node, $user, $sql, %opt) = @_;
	my ($rc, $out, $err) = ov_as($node, $user, $sql, %opt);
	die "as $user: $err" if $rc;
	return $out;
}
# The SQLSTATE a statement fails with, and the message.
sub ov_sql_fails
{
	my ($node, $user, $sql, %opt) = @_;
	my ($rc, $out, $err) = ov_as($node, $user, $sql, %opt);
	return ('00000', $out) unless $rc;
	return $err =~ /ERROR:\s+(\w{5}): ([^\n]*)/ ? ($1, "$2\n$err") : ('?????', $err);
}

# PgBouncer in transaction mode before the node, with further settings; {dir, port, stop},
# undef where it is not installed.  Ends with the test, however that ends.
sub ov_pgbouncer
{
	my ($node, %settings) = @_;
	my ($program) = grep { -x } qw(/usr/sbin/pgbouncer /usr/bin/pgbouncer);
	return unless $program;
	my ($dir, $port) = (PostgreSQL::Test::Utils::tempdir_short(), ov_port());
	%settings = (listen_addr => '', unix_socket_dir => $dir, listen_port => $port, auth_type => 'trust',
		auth_file => "$dir/users.txt", pool_mode => 'transaction', max_client_conn => 200, logfile => "$dir/log", %settings);
	append_to_file("$dir/users.txt", qq{"app" ""\n});
	append_to_file("$dir/pgbouncer.ini", "[databases]\npostgres = host=@{[ $node->host ]} port=@{[ $node->port ]} dbname=postgres\n"
		. "[pgbouncer]\n" . join('', map { "$_ = $settings{$_}\n" } sort keys %settings));
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start([ qw(setpriv --pdeathsig KILL), $program, '-q', "$dir/pgbouncer.ini" ], '<', \undef, '>', \$out, '2>', \$err);
	ov_wait_for('pgbouncer', sub { -S "$dir/.s.PGSQL.$port" }, 20) or die "pgbouncer: $err";
	return { dir => $dir, port => $port, stop => sub { $h->kill_kill(grace => 3) } };
}

# A person connects at a server that takes any code.
sub ov_connect_code
{
	my ($node, $user, $connector) = @_;
	my $jwt = ov_assertion($node, $user);
	$node->safe_psql('postgres', qq{SELECT c.status FROM oauth_vault.oauth_begin('$connector', assertion => '$jwt') b,
		oauth_vault.oauth_complete(b.state, 'a-code', assertion => '$jwt') c}, extra_params => [ '-U', 'app' ]);
	return;
}

# begin, consent, callback; returns the connection id.
sub ov_connect
{
	my ($node, $user, $connector, %opt) = @_;
	my $url = ov_sql($node, $user, "SELECT authorization_url FROM oauth_vault.oauth_begin('$connector');");
	my $callback = ov_consent($url, $opt{login} // $user);
	$callback =~ s/'/''/g;
	return ov_sql($node, $user, "SELECT connection_id FROM oauth_vault.oauth_callback('$callback');");
}

# How a secret may appear in a text: as it is, in base64 and base64url, in hex.
sub ov_forms
{
	my ($value) = @_;
	my $b64 = encode_base64($value, '');
	$b64 =~ s/.{0,2}=*$//;		# the end depends on what follows
	return ($value, $b64, $b64 =~ tr{+/}{-_}r, unpack('H*', $value), uc unpack('H*', $value));
}

# Wait for an event: poll until $sub is true.
sub ov_wait_for
{
	my ($what, $sub, $seconds) = @_;
	my $until = time + ($seconds // 30);
	while (time < $until)
	{
		return 1 if $sub->();
		usleep(50_000);
	}
	diag("timed out waiting for $what");
	return 0;
}

END
{
	my $status = $?;
	foreach my $c (@children)
	{
		close $c->{in};		# the servers end when stdin closes
		eval { $c->{h}->kill_kill(grace => 3) };
	}
	$? = $status;
}

1;
