#!/bin/sh
# Runs inside fresh namespaces, as their pid 1: makes a root of its own and becomes systemd in it. See bed.py.
#   boot.sh LOWER SCRATCH [SOURCE TARGET]...     LOWER: the tree to boot; SCRATCH: an empty folder; binds are read-only
# The root is an overlay, so nothing that happens in it reaches LOWER. The kernel is shared: no unit that would set
# kernel variables, load modules, set the clock or look at devices is left in it.
set -eu
lower=$1 scratch=$2
shift 2

mount -t tmpfs -o size=1g,mode=0755 bed "$scratch"
root=$scratch/root
mkdir "$scratch/changed" "$scratch/work" "$root"
mount -t overlay -o "lowerdir=$lower,upperdir=$scratch/changed,workdir=$scratch/work" bed "$root"

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
# In a cgroup namespace: its root is the bed's own group.
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup" 2>/dev/null || {
    mount -t tmpfs -o mode=0755 cgroups "$root/sys/fs/cgroup"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
}
for folder in dev run tmp; do mount -t tmpfs -o mode=0755 "$folder" "$root/$folder"; done
chmod 1777 "$root/tmp"
for device in null zero full random urandom tty; do cp -a "/dev/$device" "$root/dev/"; done
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/run/lock"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

# Of what the distribution starts by itself only the journal and the message bus stay.
units=$root/usr/lib/systemd
find "$units/system" -path '*.wants/*' ! -name 'systemd-journald*' ! -name 'dbus.socket' -delete
rm -rf "$units/system-generators" "$units/user-generators" "$units/user/"*.wants
for own in system user; do rm -rf "$root/etc/systemd/$own" && mkdir -p "$root/etc/systemd/$own"; done
: > "$root/etc/fstab"
rm -f "$root/etc/machine-id"
tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
ln -s /dev/null "$root/etc/systemd/system/modprobe@.service"  # asked for by logind
printf '%s\n' '[Unit]' 'Description=The bed is made' 'Requires=basic.target' 'After=basic.target' 'AllowIsolate=yes' \
    > "$root/etc/systemd/system/bed.target"

while [ $# -ge 2 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done

cd "$root"
mkdir -p .before
pivot_root . .before
umount -l /.before
rmdir /.before
# As at a real boot; with private propagation a mount that comes later would not reach a unit's own namespace.
mount --make-rshared /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=bed \
    /usr/lib/systemd/systemd --system --unit=bed.target --log-target=journal --show-status=no < /dev/null
