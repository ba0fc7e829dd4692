# Plot: horizontal bars on a logarithmic axis, as SVG.
package Plot;

use strict;
use warnings;
use Exporter 'import';
use POSIX qw(floor ceil);

our @EXPORT_OK = qw(bars);

sub _text { return $_[0] =~ s/&/&amp;/gr =~ s/</&lt;/gr; }
sub _round { my $v = shift; my $s = sprintf '%.0f', $v; 1 while $s =~ s/(\d)(\d{3})(?!\d)/$1,$2/; return $s; }

# bars FILE, title, unit, groups => [{label, bars => [{label, value}...]}...]
sub bars
{
	my ($file, %p) = @_;
	my @values = map { $_->{value} } map { @{ $_->{bars} } } @{ $p{groups} };
	my ($min, $max) = (sort { $a <=> $b } @values)[ 0, -1 ];
	my ($low, $high) = (floor(log($min) / log 10), ceil(log($max) / log 10));
	my ($left, $width, $y) = (230, 440, 60);
	my @colors = ('#1f5fa8', '#7a8794', '#c8662b');
	my $x = sub { return $left + $width * (log($_[0]) / log(10) - $low) / ($high - $low) };
	my $body = '';
	foreach my $g (@{ $p{groups} })
	{
		$body .= sprintf qq{<text x="10" y="%d" font-weight="bold">%s</text>\n}, $y + 12, _text($g->{label});
		$y += 22;
		my $i = 0;
		foreach my $b (@{ $g->{bars} })
		{
			my $end = $x->($b->{value});
			$body .= sprintf qq{<text x="%d" y="%d" text-anchor="end">%s</text>\n}, $left - 8, $y + 15, _text($b->{label});
			$body .= sprintf qq{<rect x="%d" y="%d" width="%.1f" height="20" fill="%s"/>\n}, $left, $y, $end - $left, $colors[ $i++ % 3 ];
			$body .= sprintf qq{<text x="%.1f" y="%d">%s</text>\n}, $end + 6, $y + 15, _round($b->{value});
			$y += 26;
		}
		$y += 14;
	}
	my $grid = '';
	foreach my $decade ($low .. $high)
	{
		my $at = $x->(10**$decade);
		$grid .= sprintf qq{<line x1="%.1f" x2="%.1f" y1="50" y2="%d" stroke="#d8dde2"/><text x="%.1f" y="%d" text-anchor="middle" fill="#55606b">%s</text>\n},
			$at, $at, $y, $at, $y + 16, _round(10**$decade);
	}
	open my $out, '>', $file or die "$file: $!";
	printf $out qq{<svg xmlns="http://www.w3.org/2000/svg" width="760" height="%d" font-family="sans-serif" font-size="13" fill="#20262c">\n}
		. qq{<rect width="100%%" height="100%%" fill="#ffffff"/>\n<text x="10" y="22" font-size="16" font-weight="bold">%s</text>\n}
		. qq{<text x="10" y="40" fill="#55606b">%s</text>\n%s%s</svg>\n}, $y + 30, _text($p{title}), _text($p{unit}), $grid, $body;
	close $out or die "$file: $!";
	return;
}

1;
