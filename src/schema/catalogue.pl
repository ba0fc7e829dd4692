#!/usr/bin/perl
# catalogue.pl FILE.json...: the catalogue of providers as SQL, for the install
# script, and its last statement, which notes what all of it has made.  A file's
# name is the provider's name.  Plain perl, no modules: it runs wherever
# PostgreSQL's own build does.
use strict;
use warnings;

my %seen;

print "\n-- The built-in catalogue of providers, a row for each file in providers/.\n";
foreach my $file (@ARGV)
{
	my ($name) = $file =~ m{([^/]+)\.json$} or die "$file: not a .json file\n";
	next if $name eq 'schema';
	$name =~ /^[a-z0-9][a-z0-9_]{0,62}$/ or die "$file: a provider's name is made of a-z, 0-9 and _\n";
	die "$file: there are two providers of this name\n" if $seen{$name}++;

	open(my $fh, '<:raw', $file) or die "$file: $!\n";
	my $json = do { local $/; <$fh> };
	close($fh) or die "$file: $!\n";

	# The script is read in the database's encoding, which may be any.
	die "$file: only ASCII, please; use \\u escapes\n" if $json =~ /[^\x09\x0a\x0d\x20-\x7e]/;
	# What CREATE EXTENSION would substitute, and the end of our quote.
	die "$file: may not contain \"$1\"\n" if $json =~ /(\$rules\$|\@ext\w+\@|MODULE_PATHNAME)/;
	$json =~ s/\s+\z//;
	print "INSERT INTO oauth_vault.provider_builtin (name, rules) VALUES ('$name', \$rules\$$json\$rules\$);\n";
}

print "\n-- What there is now, for oauth_selfcheck (28-selfcheck.sql)\n";
# a restore switches row security off, which would refuse to read past a policy as the owner
print "SET LOCAL row_security = on;\n";
print "INSERT INTO oauth_vault.manifest (object, field, value) SELECT object, field, value FROM oauth_vault.present_state;\n";
