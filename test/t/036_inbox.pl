# Results that wait for a lock: neither a row that cannot be applied nor many that
# are locked keep the others waiting.
use strict;
use warnings;
use IPC::Run ();
use OauthVault::Test;
use Test::More;

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('inbox', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs',
		'https://app.example/callback', scopes => ARRAY['openid', 'offline_access'],
		issuer => '$idp->{issuer}', refresh_policy => 'lazy')});
my %id = map { $_ => ov_connect($node, $_, 'demo') } qw(ada bob);

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub holding
{
	my ($who) = @_;
	my ($in, $out, $err) = ("BEGIN; SELECT 'held' FROM oauth_vault.connection WHERE connection_id = '$id{$who}' FOR UPDATE;\n", '', '');
	my $s = { in => \$in, out => \$out };
	$s->{h} = IPC::Run::start([ 'psql', '-XAtq', '-U', 'postgres', '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	$s->{h}->pump until $out =~ /held/;
	return $s;
}
sub let_go
{
	my ($s) = @_;
	${ $s->{in} } .= "COMMIT;\n\\q\n";
	$s->{h}->finish;
	return;
}
# A result of a refresh that found the row locked
sub leave_result
{
	my ($who) = @_;
	superuser(qq{UPDATE oauth_vault.connection SET expires_at = now() - interval '1 minute' WHERE user_id = '$who'});
	my $s = holding($who);
	my ($state) = ov_sql_fails($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');");
	is($state, 'OV021', "the result for $who waits");
	return $s;
}
sub waiting { return superuser(qq{SELECT count(*) FROM oauth_vault.grant_inbox WHERE connection_id = '$id{$_[0]}'}); }

# Sixty results of bob's that cannot be applied now, all before ada's
my $bob = holding('bob');
superuser(qq{INSERT INTO oauth_vault.grant_inbox (inbox_id, connection_id, token_generation, decision_epoch, outcome, detail)
	SELECT i, '$id{bob}', 0, 0, 'dead', '{"reason": "of long ago"}' FROM generate_series(1, 60) i});
my $ada = leave_result('ada');
let_go($ada);
ok(ov_wait_for('the inbox', sub { waiting('ada') eq '0' }), 'what is locked does not hide what is behind it');
is(waiting('bob'), 60, 'which waits on');
let_go($bob);
ok(ov_wait_for('the inbox', sub { waiting('bob') eq '0' }), 'until the lock goes');
is(superuser(qq{SELECT status FROM oauth_vault.connection WHERE connection_id = '$id{bob}'}), 'active',
	'and an old verdict is not believed');

superuser(qq{INSERT INTO oauth_vault.grant_inbox (inbox_id, connection_id, token_generation, decision_epoch, outcome)
	VALUES (1, '$id{bob}', 1, 0, 'refreshed')});
$ada = leave_result('ada');
let_go($ada);
ok(ov_wait_for('the inbox', sub { waiting('ada') eq '0' }), 'a row that cannot be applied does not spoil the others');
my ($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo');");
is($state, '00000', 'the rotated token is there');

# Whoever writes all data sets sequences: no result depends on one, nor do two that wait for the same row change places.
superuser(q{TRUNCATE oauth_vault.grant_inbox; CREATE ROLE writer LOGIN IN ROLE pg_write_all_data});
my ($rc, undef, $err) = $node->psql('postgres', q{SELECT setval(c.oid::regclass, 1, false) FROM pg_class c WHERE relkind = 'S' AND relnamespace = 'oauth_vault'::regnamespace},
	extra_params => [ '-U', 'writer' ]);
is($rc, 0, 'pg_write_all_data sets every sequence of ours back') or diag($err);
is(superuser(q{SELECT count(*) FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' WHERE d.refobjid = 'oauth_vault.grant_inbox'::regclass}), 0,
	'there is no sequence to number results with');
$ada = leave_result('ada');
$bob = leave_result('bob');
is(superuser(q{SELECT string_agg(inbox_id::text, ' ' ORDER BY inbox_id) FROM oauth_vault.grant_inbox}), '1 2', 'two results wait, in their order');
my $rows = superuser('SELECT string_agg(i::text, chr(10) ORDER BY inbox_id) FROM oauth_vault.grant_inbox i');
foreach my $case ([ q{INSERT INTO oauth_vault.grant_inbox (inbox_id, connection_id, token_generation, decision_epoch, outcome) VALUES (9223372036854775807, gen_random_uuid(), 0, 0, 'dead')}, 'ERROR:  42501' ],
	[ 'TRUNCATE oauth_vault.grant_inbox', 'ERROR:  42501' ], [ 'UPDATE oauth_vault.grant_inbox SET inbox_id = DEFAULT', '' ], [ 'DELETE FROM oauth_vault.grant_inbox', '' ])
{
	(undef, undef, $err) = $node->psql('postgres', $case->[0], extra_params => [ '-U', 'writer', '-v', 'VERBOSITY=sqlstate' ]);
	is($err =~ s/^psql:<stdin>:\d+: //r =~ s/\n.*//sr, $case->[1], 'pg_write_all_data finds no row of the inbox to write: ' . substr $case->[0], 0, 8);
}
is(superuser('SELECT string_agg(i::text, chr(10) ORDER BY inbox_id) FROM oauth_vault.grant_inbox i'), $rows, 'and has changed none');
my $refreshes = ov_control($idp, 'GET', '/counters')->{refresh_token};
let_go($ada);
let_go($bob);
ok(ov_wait_for('the inbox', sub { superuser('SELECT count(*) FROM oauth_vault.grant_inbox') eq '0' }), 'both are applied');
foreach my $who (qw(ada bob))
{
	($state) = ov_sql_fails($node, $who, "SELECT oauth_vault.oauth_fresh_token('demo');");
	is($state, '00000', "the rotated token of $who is there");
}
is(ov_control($idp, 'GET', '/counters')->{refresh_token}, $refreshes, 'no other was asked for');
$node->stop('fast');
done_testing();
