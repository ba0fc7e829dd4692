# The auditor's question: who read the QuickBooks data at 14:47, through what,
# for what purpose, with which scopes?  One query, the one in doc/manual.md,
# with a person and an agent that acts for that person.
use strict;
use warnings;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my ($query) = slurp_file("$ENV{OV_TREE}/doc/manual.md") =~ /^### Who read it\?\n.*?^```sql\n-- as security\n(.*?)^```$/ms;
ok($query, 'the manual has the query') or BAIL_OUT('no query');

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('who', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', qq{CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor;
	SELECT oauth_vault.oauth_create_connector(n, 'oidc', 'demo', 'demo: secret/with+signs', 'https://app.example/callback',
		scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}') FROM unnest('{quickbooks,calendar}'::text[]) n});
ov_connect($node, $_->[0], $_->[1]) foreach [ 'ada', 'quickbooks' ], [ 'ada', 'calendar' ], [ 'bob', 'quickbooks' ];

# Rows of the manual's query for one minute, without the columns that the test knows by other means
sub who
{
	my ($minute) = @_;
	(my $sql = $query) =~ s/^\\set minute .*$/\\set minute '$minute'/m or die;
	$sql =~ s/connector = 'demo'/connector = 'quickbooks'/ or die;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', 'security' ]);
}
sub minute_of { return $node->safe_psql('postgres', "SELECT max(at) FROM oauth_vault.audit WHERE $_[0]"); }

# A connector of another name, a person alone, and an agent with a purpose
local $ENV{PGAPPNAME} = 'books-backend';
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('calendar');");
ov_sql($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('quickbooks');");
my $agent = ov_assertion($node, 'ada', '--actor', 'ledger-agent');
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('quickbooks', scopes => ARRAY['openid'], purpose => 'month-end close');",
	assertion => $agent, end => 'ROLLBACK;');
my ($state) = ov_sql_fails($node, 'ada',
	"SELECT oauth_vault.oauth_fresh_token('quickbooks', scopes => ARRAY['payments'], purpose => 'pay everybody');", assertion => $agent);
is($state, 'OV011', 'the agent is refused what the person has not granted');

# The three may lie in two minutes: ask for each once.
my %minute = map { $node->safe_psql('postgres', "SELECT date_trunc('minute', '$_'::timestamptz)") => 1 }
  map { minute_of($_) } "user_id = 'bob' AND event = 'token_access'", "purpose = 'month-end close'", "purpose = 'pay everybody'";
my @rows = map { split /\n/, who($_) } sort keys %minute;
is(scalar(@rows), 3, 'each access once, none of the other connector');
my ($close) = grep { /month-end close/ } @rows;
my @column = split /\|/, $close, -1;
is_deeply([ @column[ 1 .. 7 ] ], [ '', 'ada', '["ledger-agent"]', 'month-end close', '{openid}', 'ok', '' ],
	'who, which agent, for what purpose, with which scopes: although the caller rolled back');
is_deeply([ @column[ 8 .. 10 ] ], [ 'books-backend', 'app', 'app' ], 'through what');
my ($payload) = $agent =~ /\.([\w-]+)\./;
my ($jti) = decode_json_payload($payload) =~ /"jti"\s*:\s*"([^"]+)"/;
is($column[12], $jti // '', 'by which assertion');
my ($refused) = grep { /pay everybody/ } @rows;
is_deeply([ (split /\|/, $refused, -1)[ 2 .. 7 ] ], [ 'ada', '["ledger-agent"]', 'pay everybody', '{payments}', 'denied', 'OV011' ],
	'what was refused is there too, with what was asked for');
my ($bob) = grep { /\|bob\|/ } @rows;
is_deeply([ (split /\|/, $bob, -1)[ 2 .. 4 ] ], [ 'bob', '', '' ], 'a person without an agent');
is(who($node->safe_psql('postgres', q{SELECT now() - interval '3 minutes'})), '', 'nobody three minutes before');

# The same from the report on one person
is($node->safe_psql('postgres', q{SELECT agents, purpose, scopes, application_name FROM oauth_vault.oauth_report_person('ada')
	WHERE connector = 'quickbooks' AND event = 'token_access' AND outcome = 'ok'}, extra_params => [ '-U', 'security' ]),
	'["ledger-agent"]|month-end close|{openid}|books-backend', 'and in the report on one person');

sub decode_json_payload
{
	my ($text) = @_;
	require MIME::Base64;
	return MIME::Base64::decode_base64url($text);
}

$node->stop('fast');
done_testing();
