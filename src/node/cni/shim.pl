#!/usr/bin/perl
# Tulle's CNI plugin. It hands the call over to the agent on this machine and prints the agent's answer.
#
# It is Perl because that is on every Debian (perl-base) and starts in a few milliseconds. It knows nothing of
# networks; only VERSION is answered here, so that it works without an agent.
#
# Only the ordinary call is compiled at first; what is needed when something is not as usual stands behind __DATA__.
# It loads no module, neither "strict" and "warnings" nor "Socket" or "Errno" (which "%!" loads): reading them takes
# several times as long as everything else here. A test checks the file with the first two.
#
# A frame, both ways: length of the rest (32 bits, big endian), then fields, each a length (32 bits) and bytes.
# Request: names and values of the CNI_* variables, then "stdin" and the standard input. Answer: exit status, output.

my $SOCKET       = '@SOCKET_PATH@';
# The kernel's numbers, the same on all architectures that Node runs on.
my $AF_UNIX      = 1;
my $SOCK_STREAM  = 1;
my $MSG_NOSIGNAL = 0x4000;
my $SOCKADDR_UN  = 'S Z108';          # struct sockaddr_un
my $ANSWER_S     = 60;                # for an answer
my $MAX_STDIN    = 1 << 20;           # the agent takes no more

my $command = $ENV{CNI_COMMAND} // '';
my ($stdin, $request, $answer, $sends, $late) = ('', '', '', 0, 0);
my $agent;

if ($command ne '') {
    binmode STDIN;
    binmode STDOUT;
    -t STDIN or 1 while length $stdin <= $MAX_STDIN && sysread STDIN, $stdin, 65536, length $stdin;
}
if ($command ne '' && $command ne 'VERSION' && length $stdin <= $MAX_STDIN) {
    my @fields = ((map { ($_, $ENV{$_}) } grep { /^CNI_/ } keys %ENV), 'stdin', $stdin);
    $request = pack 'N/a*', join '', map { pack 'N/a*', $_ } @fields;
    if (socket($agent, $AF_UNIX, $SOCK_STREAM, 0)
        && connect $agent, pack $SOCKADDR_UN, $AF_UNIX, $SOCKET) {
        $sends = 1;
        $SIG{ALRM} = sub { $late = 1 };    # ends the waiting
        alarm $ANSWER_S;
        if ((send($agent, $request, $MSG_NOSIGNAL) // 0) == length $request) {
            while (sysread $agent, $answer, 65536, length $answer) {
                next if length $answer < 4 || length $answer < 4 + unpack 'N', $answer;
                my (undef, $status, $output) = unpack 'N N/a* N/a*', $answer;
                print $output;
                exit $status;
            }
        }
        alarm 0;
    }
}
eval join '', <DATA>;
die $@;

__DATA__
my $VERSIONS     = '@VERSIONS@';      # JSON list
my $WAIT_S       = '@WAIT_SECONDS@';  # for an agent that is being restarted
my $MAX_SENDS    = 5;                 # times a call is sent when agents die while at it
my $MAX_ANSWER   = 1 << 20;
my $RETRY_EACH_S = 0.02;
my $EINTR        = 4;

if ($command eq '') {
    print STDERR "Tulle CNI plugin\nCNI protocol versions supported: $VERSIONS\n";
    exit 0;
}
my $version = $stdin =~ /"cniVersion"\s*:\s*"([0-9]+(?:\.[0-9]+)*)"/ ? $1 : '0.1.0';
fail(6, 'the network configuration is too long', "more than $MAX_STDIN bytes")
    if length $stdin > $MAX_STDIN;
if ($command eq 'VERSION') {
    print qq({"cniVersion":"$version","supportedVersions":$VERSIONS}\n);
    exit 0;
}
give_up() if $late;
$SIG{ALRM} = \&give_up;

# The agent was stopped while at it: the next one finishes or undoes it.
while ($sends++ < $MAX_SENDS) {
    $agent = connect_in_time();
    alarm $ANSWER_S;
    my $got = ask($agent);
    alarm 0;
    close $agent;
    next if !defined $got;
    my ($status, $output) = unpack 'N/a* N/a*', $got;
    print $output;
    exit $status;
}
fail(11, 'the Tulle agent closed the connection without an answer', "tried $MAX_SENDS times at $SOCKET");

sub give_up {
    fail(11, "the Tulle agent did not answer within $ANSWER_S seconds", $SOCKET);
}

# Connects, waiting a while for an agent that is being restarted.
sub connect_in_time {
    my $deadline = time + $WAIT_S;
    while (1) {
        socket my $socket, $AF_UNIX, $SOCK_STREAM, 0
            or fail(5, 'cannot make a unix socket', "$!");
        return $socket if connect $socket, pack($SOCKADDR_UN, $AF_UNIX, $SOCKET);
        my $reason = "$!";
        fail(11, 'the Tulle agent is not running', "cannot connect to $SOCKET: $reason")
            if time >= $deadline;
        select undef, undef, undef, $RETRY_EACH_S;
    }
}

# Sends the request and reads the answer's fields; undef if the connection ended before it was complete.
sub ask {
    my ($socket) = @_;
    my $sent = 0;
    while ($sent < length $request) {
        my $n = send $socket, substr($request, $sent), $MSG_NOSIGNAL;
        next if !defined $n && $! == $EINTR;
        return undef if !defined $n;
        $sent += $n;
    }
    $answer = '';
    while (1) {
        if (length $answer >= 4) {
            my $size = unpack 'N', $answer;
            fail(5, 'the answer of the Tulle agent is too long', "$size bytes") if $size > $MAX_ANSWER;
            return substr $answer, 4, $size if length $answer >= 4 + $size;
        }
        my $n = sysread $socket, $answer, 65536, length $answer;
        next if !defined $n && $! == $EINTR;
        return undef if !$n;
    }
}

# Prints a CNI error and ends.
sub fail {
    my ($code, $message, $details) = @_;
    s/(["\\])/\\$1/g, s/[^\x20-\x7e]/?/g for $message, $details;
    print qq({"cniVersion":"$version","code":$code,"msg":"$message","details":"$details"}\n);
    exit 1;
}
