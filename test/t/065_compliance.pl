# The auditor's guide keeps its word: each control that it names has one query and
# says what stays with whoever runs the database; each query runs as it stands, as
# an auditor, and has an answer in a cluster where people were at work.
use strict;
use warnings;
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $guide = slurp_file("$ENV{OV_TREE}/doc/compliance.md");

# A section is a heading of the third level, up to the next heading.
my @sections;
push @sections, { title => $1, text => $2 } while $guide =~ /^### ([^\n]+)\n(.*?)(?=^##|\z)/msg;
my @required = (qw(CC6.1 CC6.2 CC6.3 CC6.6 CC7.2
	AC.L2-3.1.1 AC.L2-3.1.5 AU.L2-3.3.1 AU.L2-3.3.2 AU.L2-3.3.4 AU.L2-3.3.8 AU.L2-3.3.9 SC.L2-3.13.11
	164.312(a)(2)(i) 164.312(a)(2)(iv) 164.312(b)
	A.5.15 A.5.16 A.5.18 A.8.2 A.8.3 A.8.5 A.8.9 A.8.10 A.8.15 A.8.24), map { "Art. $_" } 15, 17, 30, 32);
my %has = map { ($_->{title} =~ /^([^:]+): / ? $1 : "no id: $_->{title}") => 1 } @sections;
is_deeply([ grep { !$has{$_} } @required ], [], 'each control that has to be there is');
is(scalar(keys %has), scalar(@sections), 'none twice');
foreach my $section (@sections)
{
	$section->{queries} = [ $section->{text} =~ /^```sql\n(.*?)^```$/msg ];
}
is_deeply([ map { $_->{title} } grep { @{ $_->{queries} } != 1 } @sections ], [], 'each has one query');
is_deeply([ map { $_->{title} } grep { $_->{text} !~ /^With whoever runs it: \S/m } @sections ], [], 'and says what it leaves to others');
is(scalar(() = $guide =~ /^```sql$/mg), scalar(@sections), 'there is no query that is not run here');

# ---- people at work ----

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('guide', hosts => ["localhost:$idp->{port}"]);
sub superuser { return $node->safe_psql('postgres', $_[0]); }
superuser(qq{CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin; CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor;
	SELECT oauth_vault.oauth_create_connector('demo', 'oidc', 'demo', 'demo: secret/with+signs', 'https://app.example/callback',
		scopes => ARRAY['openid', 'offline_access'], issuer => '$idp->{issuer}')});
ov_connect($node, $_, 'demo') foreach qw(ada bob);
my $agent = ov_assertion($node, 'ada', '--actor', 'ledger-agent');
ov_sql($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', scopes => ARRAY['openid'], purpose => 'invoices');", assertion => $agent);
ov_sql($node, 'bob', "SELECT oauth_vault.oauth_fresh_token('demo');");
my ($state) = ov_sql_fails($node, 'ada', "SELECT oauth_vault.oauth_fresh_token('demo', scopes => ARRAY['payments']);");
is($state, 'OV011', 'somebody asks for too much');
$node->safe_psql('postgres', "SELECT oauth_vault.oauth_offboard('bob', reason => 'ticket 17')", extra_params => [ '-U', 'dba' ]);
ov_wait_for('the offboarding', sub { superuser('SELECT state FROM oauth_vault.oauth_offboarding') eq 'completed' }, 60)
  or die 'the offboarding does not end';
ov_audit_sealed($node) or die 'the trail has no head';

# ---- the queries ----

my %answer;
foreach my $section (@sections)
{
	my ($rc, $out, $err) = $node->psql('postgres', $section->{queries}[0], on_error_stop => 1, extra_params => [ '-U', 'security' ]);
	is("$rc$err", '0', "$section->{title}: runs");
	isnt($out, '', "$section->{title}: has an answer");
	$section->{title} =~ /^([^:]+): / and $answer{$1} = $out;
}

# Some of the answers, by what has happened
like($answer{'CC6.1'}, qr/^role: dba\|member of oauth_vault_admin, directly\|does not$/m, 'who administers');
unlike($answer{'CC6.1'}, qr/^changed: /m, 'nothing differs from the installation');
like($answer{'CC6.2'}, qr/^in\|\|ada\|demo\|.*^out\|\|bob\|demo\|/ms, 'who came and who went');
like($answer{'CC6.3'}, qr/^demo of ada\|\{.*\}\|\{openid\}\|\{offline_access\}\|\{\}$/m, 'which scope nobody named');
like($answer{'AC.L2-3.1.1'}, qr/^\|ada\|demo\|active\|\{ledger-agent\}\|\{invoices\}\|1\|1\|/m, 'which process acted for whom');
like($answer{'AU.L2-3.3.2'}, qr/\|ada\|ledger-agent\|invoices\|demo\|\{openid\}\|ok\|app\|.*\|t$/m, 'who did it');
unlike($answer{'AU.L2-3.3.2'}, qr/\|f$/m, 'no access without a person');
like($answer{'AU.L2-3.3.8'}, qr/^t\|/, 'the trail verifies');
like($answer{'164.312(b)'}, qr/token_access\|denied\|demo\|/, 'what was refused is in the trail of a person');
like($answer{'A.8.3'}, qr/^0\|token_access\|OV011\|1$/m, 'refusals by their reason');
like($answer{'Art. 15'}, qr/^demo\|oidc\|\|[^|]+\|active\|/, 'what there is of one person');
unlike($answer{'Art. 15'}, qr/bob/, 'and of nobody else');
like($answer{'Art. 17'}, qr/^bob\|completed\|/, 'who has been erased');
like($answer{'Art. 30'}, qr/^oidc\|demo\|2\|\{invoices\}$/m, 'recipients, people and purposes');

$node->stop('fast');
done_testing();
