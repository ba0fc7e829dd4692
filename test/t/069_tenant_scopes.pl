# A tenant forbids a scope: its people cannot ask for it any more, a grant that has
# it already is flagged and goes on, another tenant notices nothing.  Consenting
# again narrows the grant; a consent that fails leaves it as it was.
use strict;
use warnings;
use JSON::PP;
use OauthVault::Test;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $fault = ov_fault();
my $base = "https://localhost:$fault->{port}";
my $node = ov_cluster('tenants', hosts => ["localhost:$fault->{port}"]);
my $file = decode_json(slurp_file($node->{ov_vault}));
my ($issuer) = @{ $file->{identity}{issuers} };
delete $issuer->{tenant};
@$issuer{qw(tenant_claim tenants)} = ('tenant', [ 'acme', 'umbrella' ]);
open my $fh, '>', $node->{ov_vault} or die $!;
print $fh encode_json($file);
close $fh;
$node->reload;
my %who = (ada => 'acme', ben => 'acme', zed => 'umbrella');
my %jwt = map { $_ => ov_assertion($node, $_, '--tenant', $who{$_}, '--ttl', '3600') } keys %who;
my $n = 0;

sub superuser { return $node->safe_psql('postgres', $_[0]); }
sub call
{
	my ($sql) = @_;
	my (undef, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:\s+(\w{5}): / ? ($1, $err) : ('00000', $out);
}
sub array { return @_ ? "ARRAY['" . join("','", @_) . "']" : 'NULL'; }
# What the consent page is asked for
sub asked
{
	my ($who, @scopes) = @_;
	my ($state, $out) = call("SELECT authorization_url FROM oauth_vault.oauth_begin('files', @{[ array(@scopes) ]}, assertion => '$jwt{$who}')");
	return $state eq '00000' && $out =~ /[?&]scope=([^&]*)/ ? join ' ', sort split /%20|\+/, $1 : "$state $out";
}
sub consent
{
	my ($who, $answer, @scopes) = @_;
	$n++;
	ov_control($fault, 'POST', '/reset');
	ov_control($fault, 'POST', '/script', { path => '/token', answers => [ ref $answer ? $answer : { body => { access_token => "access-$n",
					refresh_token => "refresh-$n", token_type => 'Bearer', expires_in => 3600, scope => $answer } } ] });
	return (call(qq{DO \$\$ DECLARE s text; BEGIN
		SELECT state INTO s FROM oauth_vault.oauth_begin('files', @{[ array(@scopes) ]}, assertion => '$jwt{$who}');
		PERFORM oauth_vault.oauth_callback('https://app.example/cb?code=c&state=' || s, assertion => '$jwt{$who}');
	END \$\$}))[0];
}
sub fresh { my ($who, @scopes) = @_; return (call("SELECT oauth_vault.oauth_fresh_token('files', scopes => @{[ array(@scopes) ]}, assertion => '$jwt{$who}')"))[1]; }
sub granted { my ($who) = @_; return superuser("SELECT scopes FROM oauth_vault.connection WHERE user_id = '$who'"); }
sub beyond { return superuser(q{SELECT string_agg(tenant || '/' || user_id || ' ' || beyond_limit::text, ', ' ORDER BY tenant, user_id) FROM oauth_vault.oauth_report_scopes()}); }
sub verdict { return superuser('SELECT verdict FROM oauth_vault.oauth_review() WHERE question = 4'); }

my %rules = (schema => 1, display_name => 'Lab', client_auth => ['client_secret_post'], authorization => { url => "$base/authorize" },
	token => { url => "$base/token" });
superuser("SELECT oauth_vault.oauth_set_provider('lab', '" . encode_json(\%rules) . "');
	SELECT oauth_vault.oauth_create_connector('files', 'lab', 'client', 'secret', 'https://app.example/cb', scopes => ARRAY['read'],
		max_scopes => ARRAY['read', 'write'], refresh_policy => 'lazy')");
ok(ov_wait_for('the issuer\'s tenants', sub { asked('ada') eq 'read' }), 'people of two tenants');

# ---- consent by consent ----

is(consent($_, 'read', ()), '00000', "$_ connects") foreach qw(ada zed);
is(asked('ada', 'write'), 'read write', 'more is asked for together with what there is');
is(consent('ada', { status => 400, body => { error => 'invalid_grant' } }, 'write'), 'OV031', 'a consent to more that fails');
is(granted('ada') . ' ' . fresh('ada', 'read'), '{read} access-1', 'destroys nothing of what there was');
is((call("SELECT oauth_vault.oauth_fresh_token('files', scopes => ARRAY['write'], assertion => '$jwt{ada}')"))[0], 'OV011', 'and brings nothing');
is(consent($_, 'read write', 'write'), '00000', "$_ consents to more") foreach qw(ada zed);
is(granted('ada') . ' ' . granted('zed'), '{read,write} {read,write}', 'both have it');
is(beyond(), 'acme/ada {}, umbrella/zed {}', 'nobody has more than allowed');
my $before = verdict();

# ---- a tenant forbids it ----

superuser(q{SELECT oauth_vault.oauth_set_scope_policy('files', 'acme', allowed => ARRAY['read'])});
foreach my $who (qw(ada ben))
{
	my $refusal = asked($who, 'write');
	like($refusal, qr/^OV014 .*"denied_scopes":\s?\["write"\]/s, "$who of that tenant cannot ask for it, and the error names it");
}
is(beyond(), 'acme/ada {write}, umbrella/zed {}', 'the grant that has it is flagged, and no other');
is(verdict(), 'fail', 'the review fails for it');
isnt($before, 'fail', 'as it did not before');
is(fresh('ada', 'write'), 'access-' . ($n - 1), 'the grant itself goes on: nothing breaks at once');
is(asked('zed', 'write'), 'read write', 'another tenant may ask for it as before');
is(fresh('zed', 'write'), "access-$n", 'and use it');

# ---- narrowing ----

is(asked('ada'), 'read', 'a new consent asks for what is left');
is(consent('ada', { status => 400, body => { error => 'invalid_grant' } }), 'OV031', 'one that fails');
is(granted('ada'), '{read,write}', 'leaves the grant as it was');
is(consent('ada', 'read'), '00000', 'one that does not');
is(granted('ada'), '{read}', 'narrows it');
is(beyond() . ' ' . verdict(), "acme/ada {}, umbrella/zed {} $before", 'and nothing is flagged');
superuser(q{SELECT oauth_vault.oauth_set_scope_policy('files', 'acme', allowed => NULL)});
is(asked('ada', 'write'), 'read write', 'without the policy it may be asked for again');
done_testing();
