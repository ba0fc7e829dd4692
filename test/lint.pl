# lint.pl [--self-test] TREE: what the source must not contain.
#
# Rules of hygiene that a compiler does not know: how the install script and
# the statements in C name things, which calls are banned, which way includes
# go.  Each rule is a function that looks at all files and reports lines.
#
# --self-test plants one violation of every rule, in memory, and demands that
# the rule and no other finds it: a lint that has gone blind fails.
use strict;
use warnings;

my $self_test = @ARGV && $ARGV[0] eq '--self-test' ? shift @ARGV : undef;
my $tree = shift @ARGV // '.';

#
# Files
#
sub slurp
{
	my ($path) = @_;
	open my $f, '<:raw', $path or die "$path: $!\n";
	local $/;
	return scalar <$f>;
}

# path below the tree => text
sub read_tree
{
	my %files;
	for my $glob ('src/*.[ch]', 'src/*/*.[ch]', 'src/schema/*.sql', 'providers/*.json')
	{
		$files{ substr $_, length("$tree/") } = slurp($_) for glob "$tree/$glob";
	}
	# What comes from the catalogue is data, but it is part of the script.
	my @providers = grep { !/schema\.json$/ } sort glob "$tree/providers/*.json";
	open my $p, '-|', $^X, "$tree/src/schema/catalogue.pl", @providers or die "catalogue.pl: $!\n";
	local $/;
	$files{'src/schema/99-catalogue.sql'} = <$p>;
	close $p or die "catalogue.pl failed\n";
	return \%files;
}

# Comments (and what is in quotes, if asked) become blanks; lines stay where they are.
sub blank
{
	my ($s) = @_;
	$s =~ s/[^\n]/ /g;
	return $s;
}
sub c_code
{
	my ($s, $strings_too) = @_;
	$s =~ s{(/\*.*?\*/|//[^\n]*)|("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')}
		{ defined $1 ? blank($1) : $strings_too ? blank($2) : $2 }gse;
	return $s;
}

# The arguments of the call whose "(" is at $from; $bare is $c without what is in quotes
sub arguments
{
	my ($c, $bare, $from) = @_;
	my ($depth, $start, @args) = (0, $from + 1);
	for my $i ($from .. length($bare) - 1)
	{
		my $char = substr $bare, $i, 1;
		$depth++ if $char =~ /[(\[{]/;
		$depth-- if $char =~ /[)\]}]/;
		next unless !$depth || $char eq ',' && $depth == 1;
		push @args, substr($c, $start, $i - $start) =~ s/^\s+|\s+$//gr;
		$start = $i + 1;
		last unless $depth;
	}
	return @args;
}
sub sql_code
{
	my ($s) = @_;
	$s =~ s{(/\*.*?\*/|--[^\n]*)|('(?:[^']|'')*'|\$rules\$.*?\$rules\$)}{ defined $1 ? blank($1) : $2 }gse;
	return $s;
}

my @found;
sub report
{
	my ($rule, $path, $text, $pos, $what) = @_;
	my $line = 1 + (substr($text, 0, $pos) =~ tr/\n//);
	push @found, { rule => $rule, where => "$path:$line", what => $what };
}

# The same without what is said in quotes
sub sql_bare
{
	my ($s) = @_;
	$s = sql_code($s);
	$s =~ s{('(?:[^']|'')*'|\$rules\$.*?\$rules\$)}{blank($1)}gse;
	return $s;
}

# All of the script on one line, to look for a statement in
sub one_line
{
	my ($files) = @_;
	my $all = join '', map { sql_code($files->{$_}) } sql_files($files);
	$all =~ s/\s+/ /g;
	return $all;
}

sub c_files { my ($files) = @_; return grep { /\.[ch]$/ } sort keys %$files; }
sub sql_files { my ($files) = @_; return grep { /\.sql$/ } sort keys %$files; }

#
# The install script
#

# "a text DEFAULT 'x', OUT b text[]" -> "text"
sub signature
{
	my ($args) = @_;
	my ($depth, $quoted, $now, @args) = (0, 0, '');
	for my $c (split //, $args)
	{
		$quoted = !$quoted if $c eq "'";
		$depth += $c eq '(' ? 1 : $c eq ')' ? -1 : 0 unless $quoted;
		if ($c eq ',' && !$depth && !$quoted) { push @args, $now; $now = ''; next; }
		$now .= $c;
	}
	push @args, $now if $now =~ /\S/;
	my @types;
	for my $arg (@args)
	{
		$arg =~ s/^\s+|\s+$//g;
		next if $arg =~ /^OUT\s/i;
		$arg =~ s/\s+DEFAULT\s.*//is;
		$arg =~ s/^(?:IN|INOUT|VARIADIC)\s+//i;
		$arg =~ s/^[a-z_0-9]+\s+(?=\S)//i;
		push @types, $arg;
	}
	return join ', ', @types;
}

# Each CREATE FUNCTION: path, position, name(types), its statement
sub functions
{
	my ($files) = @_;
	my @all;
	for my $path (sql_files($files))
	{
		my $sql = sql_code($files->{$path});
		while ($sql =~ /CREATE\s+(?:OR\s+REPLACE\s+)?FUNCTION\s+([\w.]+)\s*(\((?:[^()]|(?2))*\))([^;]*(?:\$\w*\$.*?\$\w*\$)?[^;]*);/gis)
		{
			my ($at, $name, $args, $rest) = ($-[0], $1, substr($2, 1, -1), $3);
			push @all, { path => $path, at => $at, sql => $sql, call => "$name(" . signature($args) . ')', rest => $rest };
		}
	}
	return @all;
}

my %rules = (
	'script-search-path' => sub {
		my ($files) = @_;
		my ($first) = sql_files($files);
		my $sql = sql_code($files->{$first});
		$sql =~ s/^\\echo[^\n]*//;
		report('script-search-path', $first, $sql, 0, 'the script does not begin with SET LOCAL search_path = pg_catalog, pg_temp')
			unless $sql =~ /^\s*SET LOCAL search_path = pg_catalog, pg_temp;/;
	},
	'create-or-replace' => sub {
		my ($files) = @_;
		for my $path (sql_files($files))
		{
			my $sql = sql_code($files->{$path});
			report('create-or-replace', $path, $sql, $-[0], 'takes over what somebody has prepared')
				while $sql =~ /\bCREATE\s+OR\s+REPLACE\b/gi;
		}
	},
	'if-not-exists' => sub {
		my ($files) = @_;
		for my $path (sql_files($files))
		{
			my $sql = sql_code($files->{$path});
			report('if-not-exists', $path, $sql, $-[0], 'takes over what somebody has prepared')
				while $sql =~ /\bIF\s+NOT\s+EXISTS\b/gi;
		}
	},
	'security-definer' => sub {
		my ($files) = @_;
		for my $path (sql_files($files))
		{
			my $sql = sql_code($files->{$path});
			report('security-definer', $path, $sql, $-[0], 'rights are taken inside the frame of a call, in C')
				while $sql =~ /\bSECURITY\s+DEFINER\b/gi;
		}
	},
	'unqualified-object' => sub {
		my ($files) = @_;
		for my $path (sql_files($files))
		{
			my $sql = sql_bare($files->{$path});
			while ($sql =~ /\b(?:CREATE\s+(?:UNIQUE\s+)?(?:TABLE|VIEW|SEQUENCE|FUNCTION|TYPE|DOMAIN|AGGREGATE)|ALTER\s+(?:TABLE|VIEW|SEQUENCE|FUNCTION)|INSERT\s+INTO|DELETE\s+FROM|REFERENCES|(?:INDEX\s+\w+|POLICY\s+\w+)\s+ON)\s+(?:IF\s+NOT\s+EXISTS\s+)?(?!IF\b|oauth_vault\.|%)(\w\S*)/gi)
			{
				report('unqualified-object', $path, $sql, $-[0], "\"$1\" does not name its schema");
			}
			# what queries read
			my %with = map { $_ => 1 } $sql =~ /\b(\w+)\s+AS\s*\(/g;
			while ($sql =~ /(?<!DISTINCT )\b(?:FROM|JOIN)\s+(?:ONLY\s+)?(?!LATERAL\b|pg_catalog\.|oauth_vault\.|oauth_vault_|PUBLIC\b|[%(])([a-z_]\w*)(?![\w.]*\s*\()/gi)
			{
				report('unqualified-object', $path, $sql, $-[0], "\"$1\" does not name its schema") unless $with{$1};
			}
		}
	},
	'not-revoked' => sub {
		my ($files) = @_;
		my $all = one_line($files);
		for my $f (functions($files))
		{
			report('not-revoked', $f->{path}, $f->{sql}, $f->{at}, "$f->{call} is not revoked from PUBLIC")
				unless index($all, "REVOKE ALL ON FUNCTION $f->{call} FROM PUBLIC;") >= 0;
		}
	},
	'function-search-path' => sub {
		my ($files) = @_;
		for my $f (functions($files))
		{
			report('function-search-path', $f->{path}, $f->{sql}, $f->{at}, "$f->{call} is not in C and pins no search_path")
				unless $f->{rest} =~ /\bLANGUAGE\s+C\b/i || $f->{rest} =~ /\bSET\s+search_path\s*(?:=|TO)\s*pg_catalog, pg_temp\b/i;
		}
	},
	'no-comment' => sub {
		my ($files) = @_;
		my $all = one_line($files);
		for my $f (functions($files))
		{
			report('no-comment', $f->{path}, $f->{sql}, $f->{at}, "$f->{call} has no COMMENT")
				unless index($all, "COMMENT ON FUNCTION $f->{call} IS") >= 0;
		}
		for my $path (sql_files($files))
		{
			my $sql = sql_code($files->{$path});
			while ($sql =~ /CREATE\s+(TABLE|VIEW|SEQUENCE|POLICY)\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.]+)(?:\s+ON\s+([\w.]+))?/gi)
			{
				my ($at, $what) = ($-[0], uc($1) . " $2" . (uc $1 eq 'POLICY' ? " ON $3" : ''));
				report('no-comment', $path, $sql, $at, "$what has no COMMENT") unless $all =~ /COMMENT ON \Q$what\E IS/;
			}
		}
	},

	#
	# Statements in C
	#
	'statement-search-path' => sub {
		my ($files) = @_;
		for my $path (c_files($files))
		{
			my $c = c_code($files->{$path});
			# temporary objects come first where pg_temp is not named: a type of the caller's would run as the owner
			while ($c =~ /"search_path",\s*"([^"]*)"/g)
			{
				report('statement-search-path', $path, $c, $-[0], "search_path is \"$1\"") unless $1 eq 'pg_catalog, pg_temp';
			}
		}
	},
	'unqualified-table' => sub {
		my ($files) = @_;
		for my $path (c_files($files))
		{
			my $c = c_code($files->{$path});
			my %with = map { $_ => 1 } $c =~ /\b(\w+) AS (?:MATERIALIZED )?\(/g;
			# adjacent literals are one text
			while ($c =~ /"(?:[^"\\\n]|\\.)*"(?:\s*\\?\s*"(?:[^"\\\n]|\\.)*")*/g)
			{
				my ($at, $text) = ($-[0], substr($c, $-[0], $+[0] - $-[0]));
				$text =~ s/"\s*\\?\s*"//g;
				$text =~ s/\b(?:DISTINCT|DO) (?:FROM|UPDATE) //g;
				$text =~ s/\b(?:substring|extract|trim)\((?:[^()]|\([^()]*\))*?\bFROM\b//gi;
				while ($text =~ /\b(?:FROM|JOIN|INTO|UPDATE|LOCK TABLE) (?:ONLY )?(?!oauth_vault\.|pg_catalog\.|LATERAL\b|SET\b|\()([a-z_]\w*)(?!\w*\s*\()/g)
				{
					report('unqualified-table', $path, $c, $at, "\"$1\" does not name its schema") unless $with{$1};
				}
			}
		}
	},

	#
	# C
	#
	'banned-call' => sub {
		my ($files) = @_;
		for my $path (c_files($files))
		{
			my $c = c_code($files->{$path}, 1);
			report('banned-call', $path, $c, $-[0], "$1()")
				while $c =~ /(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|strtok|alloca|system|popen|gets|tmpnam|mktemp)\s*\(/g;
		}
	},
	# Whoever gets one of our states has to learn why, and what to do.
	'error-unexplained' => sub {
		my ($files) = @_;
		for my $path (c_files($files))
		{
			my $c = c_code($files->{$path});
			my $bare = c_code($files->{$path}, 1);
			while ($bare =~ /\b(?:ov_raise|ov_refuse|refuse)\s*(?=\()/g)
			{
				my ($at, $from) = ($-[0], $+[0]);
				my @args = arguments($c, $bare, $from);
				shift @args unless substr($bare, $at, 8) eq 'ov_raise';
				my ($state, undef, $detail, $hint) = @args;
				next unless defined $hint && $state =~ /\bERRCODE_OV_|"OV\d\d\d"/;
				report('error-unexplained', $path, $c, $at, "$state without DETAIL") if $detail =~ /(?:^|[?:]\s*)NULL$/;
				report('error-unexplained', $path, $c, $at, "$state without HINT") if $hint =~ /(?:^|[?:]\s*)NULL$/;
			}
		}
	},
	'core-includes' => sub {
		my ($files) = @_;
		for my $path (grep { m{^src/(?:core|bin)/} } c_files($files))
		{
			my $c = c_code($files->{$path});
			while ($c =~ /^[ \t]*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)/gm)
			{
				my ($at, $ours, $theirs) = ($-[0], $1, $2);
				if (defined $ours)
				{
					my $name = $ours =~ m{^core/} ? "src/$ours" : "src/core/$ours";
					report('core-includes', $path, $c, $at, "includes \"$ours\", which is not core")
						unless exists $files->{$name};
				}
				elsif ($theirs =~ m{postgres|libpq|(?:^|/)pg_|^(?:access|catalog|executor|fmgr|miscadmin|nodes|port|storage|utils)\b})
				{
					report('core-includes', $path, $c, $at, "includes <$theirs>, a header of PostgreSQL");
				}
			}
		}
	},
	'worker-includes' => sub {
		my ($files) = @_;
		for my $path (grep { m{^src/worker/} && !m{/utility\.c$} } c_files($files))
		{
			my $c = c_code($files->{$path});
			report('worker-includes', $path, $c, $-[0], "includes \"$1\": arrows go from vault to worker")
				while $c =~ /^[ \t]*#\s*include\s+"(vault\/[^"]+)"/gm;
		}
	},
	'server-version' => sub {
		my ($files) = @_;
		for my $path (grep { $_ ne 'src/compat.h' } c_files($files))
		{
			my $c = c_code($files->{$path}, 1);
			report('server-version', $path, $c, $-[0], 'only compat.h looks at PG_VERSION_NUM')
				while $c =~ /\bPG_VERSION_NUM\b/g;
		}
	},
	'provider-name' => sub {
		my ($files) = @_;
		# parts of names that are words of the trade
		my %general = map { $_ => 1 } qw(accounting ads analytics api app apps box business calendar connect drive lwa oauth
			login linear legacy notion oidc sandbox schema sheets sp square threads user x);
		my @names = grep { !$general{$_} } map { m{^providers/(\w+)\.json$} ? split(/_/, $1) : () } sort keys %$files;
		my $any = join '|', map { length > 5 ? quotemeta : "(?<![a-z])\Q$_\E(?![a-z])" } @names;
		for my $path (c_files($files), grep { !/catalogue/ } sql_files($files))
		{
			# comments too: code knows mechanisms, never companies
			report('provider-name', $path, $files->{$path}, $-[0], "names the provider \"$1\"")
				while $files->{$path} =~ /($any)/gi;
		}
	},
	'header-comment' => sub {
		my ($files) = @_;
		for my $path (c_files($files))
		{
			my ($name) = $path =~ m{([^/]+)$};
			report('header-comment', $path, '', 0, 'does not begin with a comment that names and describes it')
				unless $files->{$path} =~ m{^/\*\n \* \Q$name\E\n \*[ \t]+\S};
		}
	},
);

# A violation of each rule: where, what is replaced, by what
my %planted = (
	'script-search-path' => ['src/schema/00-roles.sql', qr/SET LOCAL search_path = pg_catalog, pg_temp;/, 'SET LOCAL search_path = oauth_vault;'],
	'create-or-replace' => ['src/schema/25-views.sql', qr/CREATE VIEW/, 'CREATE OR REPLACE VIEW'],
	'if-not-exists' => ['src/schema/10-tables.sql', qr/CREATE SEQUENCE (?=oauth_vault)/, 'CREATE SEQUENCE IF NOT EXISTS '],
	'security-definer' => ['src/schema/20-functions.sql', qr/LANGUAGE C VOLATILE/, 'LANGUAGE C SECURITY DEFINER VOLATILE'],
	'unqualified-object' => ['src/schema/25-views.sql', qr/FROM oauth_vault\.connection/, 'FROM connection'],
	'not-revoked' => ['src/schema/20-functions.sql', qr/REVOKE ALL ON FUNCTION oauth_vault\.oauth_discover\(text\) FROM PUBLIC;/, ''],
	'function-search-path' => ['src/schema/20-functions.sql', qr/LANGUAGE C IMMUTABLE/, 'LANGUAGE plpgsql IMMUTABLE'],
	'no-comment' => ['src/schema/20-functions.sql', qr/COMMENT ON FUNCTION oauth_vault\.oauth_claim\(boolean\) IS\s*'[^;]*;/, ''],
	'statement-search-path' => ['src/vault/call.c', qr/"pg_catalog, pg_temp"/, '"pg_catalog"'],
	'unqualified-table' => ['src/catalog.c', qr/FROM oauth_vault\.home/, 'FROM home'],
	'banned-call' => ['src/core/codec.c', qr/memset\(url, 0, sizeof\(\*url\)\);/, 'strcpy (url, s);'],
	'error-unexplained' => ['src/vault/identity.c', qr/ov_detail\("reason", "expired", NULL\)/, 'NULL'],
	'core-includes' => ['src/core/json.c', qr/#include <string\.h>/, "#include <postgres.h>"],
	'worker-includes' => ['src/worker/slots.c', qr/\n#include "/, "\n#include \"vault/vault.h\"\n#include \""],
	'server-version' => ['src/guc.c', qr/\n#include/, "\n#if PG_VERSION_NUM > 150000\n#endif\n#include"],
	'provider-name' => ['src/worker/refresh.c', qr/static /, "/* as Google wants it */ static "],
	'header-comment' => ['src/vault/token.c', qr/^/, "\n"],
);

my $files = read_tree();
die "no source below $tree\n" unless keys %$files > 50;

if ($self_test)
{
	my $bad = 0;
	my %before = map { ("$_->{rule} $_->{what}" => 1) } findings($files);
	for my $rule (sort keys %rules)
	{
		my ($path, $what, $by) = @{ $planted{$rule} // die "nothing is planted for $rule\n" };
		my %spoilt = %$files;
		die "$path, where $rule is tested, is not there\n" unless exists $spoilt{$path};
		$spoilt{$path} =~ s/$what/$by/ or die "$path has no place for a violation of $rule\n";
		my %new = map { $_->{rule} => 1 } grep { !$before{"$_->{rule} $_->{what}"} } findings(\%spoilt);
		next if join(' ', sort keys %new) eq $rule;
		print "a planted violation of $rule in $path was found by: ", join(' ', sort keys %new) || 'nothing', "\n";
		$bad++;
	}
	print scalar(keys %rules), " rules tested with a violation each\n" unless $bad;
	exit($bad ? 1 : 0);
}

sub findings
{
	my ($files) = @_;
	@found = ();
	$rules{$_}->($files) for sort keys %rules;
	return @found;
}

print "$_->{where}: $_->{rule}: $_->{what}\n" for findings($files);
printf "%d files, %d rules, %d findings\n", scalar(keys %$files), scalar(keys %rules), scalar(@found);
exit(@found ? 1 : 0);
