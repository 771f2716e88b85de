# For tests: sends one message of neighbour discovery from eth0 to all nodes of the link.
# Arguments: ICMPv6 type, target address (of an advertisement), MAC that it is said to be at.
use strict;
use warnings;
use Socket qw(AF_INET6 SOCK_RAW IPPROTO_IPV6 inet_pton pack_sockaddr_in6);

my ($type, $target, $mac) = @ARGV;
open my $file, '<', '/sys/class/net/eth0/ifindex' or die "no eth0: $!";
chomp(my $index = <$file>);
my $ipproto_icmpv6 = 58;
my $ipv6_multicast_hops = 18;
my $override = 0x20000000;
socket my $socket, AF_INET6, SOCK_RAW, $ipproto_icmpv6 or die "socket: $!";
# Others take nothing that a router could have passed on.
setsockopt $socket, IPPROTO_IPV6, $ipv6_multicast_hops, pack('i', 255) or die "setsockopt: $!";
my $link_layer = pack('C2 H12', 2, 1, $mac =~ s/://gr);
my $body = $type == 134
    ? pack('C C n N N', 64, 0, 1800, 0, 0)    # hop limit, flags, lifetime as a router
    : pack('N', $override) . inet_pton(AF_INET6, $target) . $link_layer;
# The kernel puts in the checksum.
my $message = pack('C C n', $type, 0, 0) . $body;
send $socket, $message, 0, pack_sockaddr_in6(0, inet_pton(AF_INET6, 'ff02::1'), $index) or die "send: $!";
