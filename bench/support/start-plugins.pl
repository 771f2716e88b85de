#!/usr/bin/perl
# Starts CNI plugins as a runtime does, and says how long each took. A small process, because to start one from Node takes
# Node's event loop two milliseconds, a fifth of what the reference plugin needs for a whole ADD.
#
# usage: start-plugins.pl CLOCK_GETTIME      the number of that system call
# stdin:  a line for each round: CNI_COMMAND, plugin, file of the configuration, then container ids, which also name the
#         namespaces; all of them are started at once
# stdout: a line for each round: milliseconds of each call, or "error" and what the first that failed has said
use strict;
use warnings;

my ($clock_gettime) = @ARGV;
$| = 1;
while (my $line = <STDIN>) {
    chomp $line;
    my ($command, $plugin, $config, @ids) = split / /, $line;
    my (%started, @took, $error);
    for my $id (@ids) {
        my $start = now();
        my $pid = fork // die "fork: $!";
        if ($pid == 0) {
            %ENV = (
                PATH            => $ENV{PATH},
                CNI_COMMAND     => $command,
                CNI_CONTAINERID => $id,
                CNI_NETNS       => "/run/netns/$id",
                CNI_IFNAME      => 'eth0',
                CNI_PATH        => '/usr/lib/cni',
            );
            open STDIN,  '<', $config           or die "$config: $!";
            open STDOUT, '>', "$config.$id.out" or die "$config.$id.out: $!";
            exec $plugin or die "$plugin: $!";
        }
        $started{$pid} = [$start, $id];
    }
    while ((my $pid = wait) > 0) {
        my ($start, $id) = @{ $started{$pid} };
        push @took, now() - $start;
        my $status = $?;
        my $said = '';
        if (open my $out, '<', "$config.$id.out") { local $/; $said = <$out> // ''; }
        unlink "$config.$id.out";
        $said =~ s/\s+/ /g;
        $error //= "error $command $id ended with $status: $said" if $status != 0;
    }
    print $error // join(' ', @took), "\n";
}

# CLOCK_MONOTONIC in milliseconds. The module that has it is not in every Debian's Perl.
sub now {
    my $time = pack 'q2', 0, 0;
    syscall($clock_gettime + 0, 1, $time) == 0 or die "clock_gettime: $!";
    my ($seconds, $nanoseconds) = unpack 'q2', $time;
    return $seconds * 1e3 + $nanoseconds / 1e6;
}
