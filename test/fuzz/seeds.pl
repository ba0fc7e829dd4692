# seeds.pl TREE OUT: writes the seed corpora, a directory a harness, a file a
# seed, and OUT.dict, a dictionary of the words that src/core compares with.
#
# seeds/HARNESS.txt has one seed a line; lines that begin with # are comments.
# \n \r \t \\ \xNN stand for bytes, \rep{TEXT,N} for N times TEXT.  Where a
# harness takes a provider first, "@N " chooses one; otherwise they take turns.
use strict;
use warnings;
use File::Path qw(make_path remove_tree);

my ($tree, $out) = @ARGV;
my %with_provider = map { $_ => 1 } qw(token_response error_response revocation callback);

sub unescape
{
	my ($s) = @_;
	my %one = (n => "\n", r => "\r", t => "\t", '\\' => '\\');
	1 while $s =~ s/\\rep\{([^{}]*?),(\d+)\}/$1 x $2/e;
	$s =~ s/\\(?:x([0-9a-fA-F]{2})|([nrt\\]))/defined $1 ? chr(hex $1) : $one{$2}/ge;
	return $s;
}

sub put
{
	my ($harness, $n, $bytes) = @_;
	my $path = sprintf '%s/%s/%03d', $out, $harness, $n;
	open my $f, '>:raw', $path or die "$path: $!\n";
	print $f $bytes;
	close $f or die "$path: $!\n";
}

sub slurp
{
	my ($path) = @_;
	open my $f, '<:raw', $path or die "$path: $!\n";
	local $/;
	return scalar <$f>;
}

remove_tree($out);
for my $list (sort glob "$tree/test/fuzz/seeds/*.txt")
{
	my ($harness) = $list =~ m{([^/]+)\.txt$};
	my $n = 0;
	make_path("$out/$harness");
	open my $f, '<:raw', $list or die "$list: $!\n";
	while (my $line = <$f>)
	{
		chomp $line;
		next if $line =~ /^#/ || $line eq '';
		my $provider = $line =~ s/^@(\d+) // ? $1 : $n % 11;
		my $seed = unescape($line);
		put($harness, $n++, $with_provider{$harness} ? chr($provider) . $seed : $seed);
	}
	die "$list: no seed\n" unless $n;
	# Rules are read from the catalogue itself.
	if ($harness eq 'provider')
	{
		for my $file (sort glob "$tree/providers/*.json")
		{
			next if $file =~ /schema\.json$/;
			my $variables = $file =~ /shopify/ ? '{"shop":"a.myshopify.com"}' : '';
			put($harness, $n++, "$variables\n\nshop=a.myshopify.com&code=c&realmId=1\n" . slurp($file));
		}
	}
}

my %word = map { $_ => 1 } split(/ /, q({ } [ ] , : " \\ / % & = # ? . \\u0000 \\ud83d\\ude00 %00 null true {} [] 1800000600)), "\n";
for my $file (glob "$tree/src/core/*.c")
{
	my $text = slurp($file);
	$text =~ s{/\*.*?\*/}{}gs;
	$text =~ s/^#include.*$//gm;
	$word{$1} = 1 while $text =~ m{"([A-Za-z0-9_./:+-]{2,60})"}g;
}
open my $dict, '>', "$out.dict" or die "$out.dict: $!\n";
for my $w (sort keys %word)
{
	$w =~ s/([^A-Za-z0-9_.:+-])/sprintf '\\x%02x', ord $1/ge;
	print $dict "\"$w\"\n";
}
close $dict or die "$out.dict: $!\n";
