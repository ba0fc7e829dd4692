# The manual tells the truth: signatures, views, errors, settings, events and
# options are compared with the catalogue and the source, and every SQL example
# of doc/manual.md runs, in order, against a real authorization server.
use strict;
use warnings;
use IPC::Run ();
use JSON::PP qw(decode_json);
use OauthVault::Test;
use PostgreSQL::Test::Utils;
use Test::More;

my $tree = $ENV{OV_TREE};
my $manual = slurp_file("$tree/doc/manual.md");
my $readme = slurp_file("$tree/README.md");
my $operating = slurp_file("$tree/doc/operating.md");

my $idp = ov_idp(ACCESS_TOKEN_TTL => 600);
my $node = ov_cluster('docs', hosts => ["localhost:$idp->{port}"]);
$node->safe_psql('postgres', 'CREATE ROLE dba LOGIN IN ROLE oauth_vault_admin;
	CREATE ROLE security LOGIN IN ROLE oauth_vault_auditor');
sub rows { return split /\n/, $node->safe_psql('postgres', $_[0]); }

# Two lists, and what is in one only
sub same_list
{
	my ($name, $documented, $real) = @_;
	my %documented = map { $_ => 1 } @$documented;
	my %real = map { $_ => 1 } @$real;
	ok(@$real > 0, "$name: there are some");
	is(join("\n", grep { !$documented{$_} } sort keys %real), '', "$name: none is missing in the manual");
	is(join("\n", grep { !$real{$_} } sort keys %documented), '', "$name: the manual makes none up");
}

# ---- signatures ----

# A ```text block whose first word is a function's or a view's name.
my (@functions, @views, %granted);
my $chapter_roles = '';
while ($manual =~ /^## ([^\n]*)$|^```text\n(.*?)^```$/gms)
{
	my ($heading, $block) = ($1, $2);
	if (defined $heading)
	{
		$chapter_roles = join ',', sort($heading =~ /(oauth_vault_(?:user|admin|auditor))/g);
		next;
	}
	next unless $block =~ /^(\w+)(\(|\s+→)/;
	my ($name, $function) = ($1, $2 eq '(');
	$block =~ s/\s+/ /g;
	$block =~ s/ $//;
	push @{ $function ? \@functions : \@views }, $block;
	$granted{$name} = $chapter_roles;
}
my $type = q{replace(pg_catalog.format_type(%s, NULL), 'timestamp with time zone', 'timestamptz')};
my @real_functions = rows(sprintf q{
	SELECT p.proname || '(' ||
		coalesce((SELECT string_agg(p.proargnames[n] || ' ' || %s || coalesce(' = ' || d.text, ''), ', ' ORDER BY n)
			FROM generate_series(1, p.pronargs) n
			CROSS JOIN LATERAL (SELECT regexp_replace(pg_get_function_arg_default(p.oid, n), '::[\w \[\]]+$', '') AS text) d), '')
		|| ') → ' || CASE WHEN p.proretset THEN 'SETOF ' ELSE '' END ||
		coalesce((SELECT string_agg(p.proargnames[n] || ' ' || %s, ', ' ORDER BY n)
			FROM generate_subscripts(p.proallargtypes, 1) n WHERE p.proargmodes[n] IN ('o', 't')),
			format_type(p.prorettype, NULL))
	FROM pg_proc p WHERE p.pronamespace = 'oauth_vault'::regnamespace AND EXISTS (
		SELECT FROM aclexplode(p.proacl) a WHERE a.grantee::regrole::text IN
			('oauth_vault_user', 'oauth_vault_admin', 'oauth_vault_auditor'))},
	sprintf($type, 'coalesce(p.proallargtypes[n], p.proargtypes[n - 1])'), sprintf($type, 'p.proallargtypes[n]'));
same_list('functions', \@functions, \@real_functions);

my @real_views = rows(sprintf q{
	SELECT c.relname || ' → ' || string_agg(a.attname || ' ' || %s, ', ' ORDER BY a.attnum)
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE c.relnamespace = 'oauth_vault'::regnamespace AND c.relkind = 'v' AND EXISTS (
		SELECT FROM aclexplode(c.relacl) x WHERE x.privilege_type = 'SELECT' AND x.grantee::regrole::text IN
			('oauth_vault_user', 'oauth_vault_admin', 'oauth_vault_auditor'))
	GROUP BY c.relname}, sprintf($type, 'a.atttypid'));
same_list('views', \@views, \@real_views);

# Chapters are headed by the role that may call what they describe.
my %real_grants = map { split /\|/ } rows(q{
	SELECT name || '|' || string_agg(DISTINCT a.grantee::regrole::text, ',' ORDER BY a.grantee::regrole::text)
	FROM (SELECT proname AS name, proacl AS acl FROM pg_proc WHERE pronamespace = 'oauth_vault'::regnamespace
		UNION ALL SELECT relname, relacl FROM pg_class WHERE relnamespace = 'oauth_vault'::regnamespace) o
	CROSS JOIN aclexplode(o.acl) a WHERE a.grantee::regrole::text IN ('oauth_vault_user', 'oauth_vault_admin', 'oauth_vault_auditor')
	GROUP BY name});
foreach my $name (sort keys %granted)
{
	next if $granted{$name} eq '';
	is($granted{$name}, $real_grants{$name} // 'nobody', "$name is described under the role that has it");
}

# ---- errors, settings, events ----

my @states = map { "OV$_" } map { join '', /OV_STATE\('(\d)', '(\d)', '(\d)'\)/ }
  grep { /^#define ERRCODE/ } split /\n/, slurp_file("$tree/src/sqlstate.h");
same_list('SQLSTATEs', [ $manual =~ /^\| `(OV\d{3})` \|/gm ], \@states);
foreach my $text ([ 'the manual', $manual ], [ 'README', $readme ], [ 'operating.md', $operating ])
{
	my %known = map { $_ => 1 } @states;
	is_deeply([ grep { !$known{$_} } $text->[1] =~ /\b(OV\d{3})\b/g ], [], "$text->[0] names no other SQLSTATE");
}

my %context = (postmaster => 'restart', sighup => 'reload', user => 'session');
my $fresh = PostgreSQL::Test::Cluster->new('settings');		# no setting but the preload
$fresh->init;
$fresh->append_conf('postgresql.conf', "shared_preload_libraries = 'oauth_vault'");
$fresh->start;
my @settings = map { my ($name, $default, $context) = split /\|/; "$name: $default, $context{$context}" }
  split /\n/, $fresh->safe_psql('postgres', q{
	SELECT name || '|' || CASE current_setting(name) WHEN '' THEN '(empty)' ELSE current_setting(name) END || '|' || context
	FROM pg_settings WHERE name LIKE 'oauth\_vault.%'});
$fresh->stop;
same_list('settings', [ map { "$_->[0]: $_->[1], $_->[2]" =~ s/`//gr }
	map { [ split / \| /, $_ ] } $manual =~ /^\| (`oauth_vault\.\w+` \| [^|]* \| [^|]*) \|/gm ], \@settings);
# Whatever else is written oauth_vault.something must be there.
my %named = map { $_ => 1 } (map { /^oauth_vault\.(\w+)/ } @settings), rows(q{
	SELECT proname FROM pg_proc WHERE pronamespace = 'oauth_vault'::regnamespace
	UNION SELECT relname FROM pg_class WHERE relnamespace = 'oauth_vault'::regnamespace});
foreach my $text ([ 'the manual', $manual ], [ 'README', $readme ], [ 'operating.md', $operating ])
{
	is_deeply([ grep { !$named{$_} } $text->[1] =~ /\boauth_vault\.(\w+)/g ], [], "$text->[0] names nothing that is not there");
	is_deeply([ grep { !$named{$_} } $text->[1] =~ /\b(oauth_(?!vault)\w+)\(/g ], [], "$text->[0] calls no other function");
}

my $source = join '', map { slurp_file($_) } glob("$tree/src/vault/*.c $tree/src/worker/*.c");
my ($events_chapter) = $manual =~ /^## Audit events\n(.*?)^## /ms;
my @documented_events = $events_chapter =~ /^\| `([a-z_]+)` \|/gm;
my @events = map { /"([a-z_]+)"/g } $source =~ /(?:\bevent = |ov_(?:person|admin)_call\(fcinfo, )([^;,]*)/g;
same_list('audit events', \@documented_events, \@events);

# ---- providers ----

# What a connector or a person may set is named in the provider's row; a
# variable is the connector's unless its source says otherwise.
my ($catalogue) = $manual =~ /^## Providers\n(.*?)^## /ms;
my %row = map { /^\| `(\w+)` \|([^|]*)\|([^|]*)\|/ ? ($1 => [ $2, $3 ]) : () } split /\n/, $catalogue;
same_list('providers', [ keys %row ], [ rows('SELECT name FROM oauth_vault.provider_builtin') ]);
foreach my $name (sort keys %row)
{
	my $variables = decode_json(slurp_file("$tree/providers/$name.json"))->{variables} // {};
	my (@connector, @begin);
	foreach my $v (sort keys %$variables)
	{
		my %source = map { $_ => 1 } @{ $variables->{$v}{source} // ['connector'] };
		push @connector, $v if $source{connector};
		push @begin, $v if $source{begin};
	}
	is_deeply([ grep { $row{$name}[0] !~ /`\Q$_\E`/ } @connector ], [], "$name: the connector's params are named");
	is_deeply([ grep { $row{$name}[1] !~ /`\Q$_\E`/ } @begin ], [], "$name: and those of oauth_begin");
}

# ---- the tool ----

my ($help) = PostgreSQL::Test::Utils::run_command([ 'oauth-vault-keyring', '--help' ]);
my ($tool) = $manual =~ /^## The tool(.*?)^## /ms;
foreach my $text ([ 'commands', qr/^  oauth-vault-keyring (\w+) /m, qr/^\| `(\w+) --file/m ],
	[ 'options', qr/(--[a-z][a-z-]+)/, qr/(--[a-z][a-z-]+)/ ])
{
	my ($name, $in_help, $in_manual) = @$text;
	same_list("the tool's $name", [ $tool =~ /$in_manual/g ], [ $help =~ /$in_help/g ]);
}
my ($vault_file) = $manual =~ /^```json\n(\{\n  "vault".*?)^```/ms;
my $path = PostgreSQL::Test::Utils::tempdir() . '/example.json';
append_to_file($path, $vault_file);
chmod 0600, $path;
my ($shown) = PostgreSQL::Test::Utils::run_command([ 'oauth-vault-keyring', 'show', '--file', $path ]);
like($shown, qr/"active_version":2/, "the manual's vault file is valid");

# ---- files ----

my %file = map { m{([^/]+)$} => 1 } glob("$tree/src/*.* $tree/src/*/*.* $tree/providers/*");
is_deeply([ grep { !$file{$_} } slurp_file("$tree/doc/architecture.md") =~ /`(?:\w+\/)*(\w+\.(?:c|h|pl|sql|json))`/g ], [],
	'architecture.md names no file that is not there');

# ---- links ----

foreach my $file ('README.md', 'doc/manual.md', 'doc/operating.md', 'doc/architecture.md')
{
	my $text = slurp_file("$tree/$file");
	my ($dir) = $file =~ m{^(.*/)?};
	foreach my $link ($text =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^https?:/;
		my ($target, $anchor) = $link =~ /^([^#]*)#?(.*)$/;
		my $there = $target eq '' ? "$tree/$file" : "$tree/" . ($dir // '') . $target;
		my $ok = -e $there;
		if ($ok && $anchor ne '')
		{
			my %anchors = map { (my $a = lc $_) =~ s/[^\w\- ]//g; $a =~ tr/ /-/; $a => 1 } slurp_file($there) =~ /^#+ (.*)$/gm;
			$ok = $anchors{$anchor};
		}
		ok($ok, "$file: $link leads somewhere") unless $ok;
	}
}

# ---- the examples, in order ----

# ```sql blocks run; their first line says as whom.  What one prints with \gset
# the next ones have; a consent URL is followed by the person.
my %vars = (jwt => ov_assertion($node, 'ada', '--actor', 'my-agent'), own_jwt => ov_assertion($node, 'ada'),
	client_secret => 'demo: secret/with+signs');
my $run = 0;
foreach my $block ($manual =~ /^```sql\n(.*?)^```$/gms)
{
	my ($user) = $block =~ /^-- as (app|dba|security|postgres)\b/;
	ok($user, 'an example says as whom') or diag($block), next;
	my $sql = $block =~ s/localhost:9443/localhost:$idp->{port}/gr;
	my $print = join '', map { "\\echo $_=:$_\n" } qw(authorization_url state token);
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-U', $user, '-d', $node->connstr('postgres'),
			map { ('-v', "$_=$vars{$_}") } keys %vars ],
		'<', \"$sql\n$print", '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	ok($ok, 'runs: ' . join ' ', (split /\n/, $block)[1] // '') or diag("$block\n$err");
	$run++;
	foreach my $name (qw(authorization_url state token))
	{
		$vars{$name} = $1 if $out =~ /^\Q$name\E=([^:\n].*)$/m;
	}
	next unless $block =~ /oauth_begin/ && $vars{authorization_url};
	$vars{callback_url} = ov_consent($vars{authorization_url}, 'ada');
	($vars{code}) = $vars{callback_url} =~ /[?&]code=([^&]+)/;
	($vars{iss}) = map { s/%([0-9A-Fa-f]{2})/chr hex $1/ger } $vars{callback_url} =~ /[?&]iss=([^&]+)/;
}
cmp_ok($run, '>=', 15, 'the manual has examples');
my %documented_event = map { $_ => 1 } @documented_events;
is_deeply([ grep { !$documented_event{$_} } rows('SELECT DISTINCT event FROM oauth_vault.audit') ], [],
	'what they left in the audit trail is in the table of events');
$node->stop('fast');
done_testing();
