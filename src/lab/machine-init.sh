# The first process of a lab machine. It runs in new PID, mount, network, UTS and IPC namespaces.
#
# usage: sh machine-init.sh NAME DIRECTORY     (DIRECTORY: the machine's own files, see files.ts)
#
# Gives the machine its own /run, /etc, /opt, /var/lib/tulle, /var/lib/containers and /var/lib/cni, then waits for
# its end and reaps orphans. Killing it ends every process of the machine, and the last one takes the mounts,
# links and namespaces along.
set -eu
name=$1
dir=$2

mount --make-rprivate /
for place in etc opt; do
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$dir/$place,workdir=$dir/$place.work" "/$place"
done
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$dir/lib,workdir=$dir/lib.work" /var/lib
for place in tulle containers cni rootfs; do
  mkdir -p "/var/lib/$place"
  mount --bind "$dir/$place" "/var/lib/$place"
done
for place in cni containers; do
  mkdir -p "/etc/$place"
  mount --bind "$dir/etc-$place" "/etc/$place"
done
mkdir -p /opt/cni/bin
mount --bind "$dir/log" /var/log
# podman keeps its locks there: shared with another machine, a first start would free that one's.
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount --bind "$dir/run" /run
mkdir -p /run/lock /run/netns

# The computer's own name servers are out of reach from here; nothing answers at the router's port 53.
rm -f /etc/resolv.conf
echo 'nameserver 192.0.2.1' >/etc/resolv.conf

hostname "$name"
echo "$name" >/etc/hostname
exec 3>&1 </dev/null >/dev/null 2>&1
echo ready >&3
exec 3>&-
# Ignoring SIGCHLD makes the kernel reap orphans at once.
exec perl -e '$SIG{CHLD} = "IGNORE"; $SIG{TERM} = sub { exit 0 }; sleep 3600 while 1' tulle-lab-machine "$dir"
