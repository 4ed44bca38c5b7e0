# Boots the machine's own systemd as process 1 of namespaces of its own, on a copy of the root that is written nowhere
# but into memory. Arguments: a folder that both sides share, the project's folder. Boots again when it reboots, with all that
# was written and another boot id. Ends when its standard input does.
set -eu
shared=$1 project=$2
exec 3<&0
mount --make-rprivate /
mkdir "$shared/cgroup" "$shared/layers"
mount -t tmpfs tmpfs "$shared/layers"
mount -t cgroup2 cgroup2 "$shared/cgroup"
# A control group of our own: process 1 takes all that it sees for its own.
home=$shared/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
group=$home/runlock-test-$$
mkdir "$group"

boot='
  set -eu
  cd "$shared/layers"
  mkdir -p upper work root
  mount -t overlay overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" root
  cd root
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,bind,ro proc/sys
  # There is one kernel, and its own does not change.
  cat /proc/sys/kernel/random/uuid >../boot_id
  mount --bind ../boot_id proc/sys/kernel/random/boot_id
  mount --rbind /dev dev
  mount -t tmpfs tmpfs sys
  mkdir -p sys/fs/cgroup mnt
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs tmpfs run
  mkdir -p ".$shared" ".$project"
  mount --bind "$shared" ".$shared"
  mount --bind "$project" ".$project"
  pivot_root . mnt
  umount -l /mnt
  if [ ! -e /etc/systemd/system/machine.target ]; then
    # None of the host'"'"'s own units: they would set up the host again.
    kept="systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
      reboot.target systemd-reboot.service shutdown.target final.target umount.target"
    mkdir /run/kept
    for unit in $kept; do cp "/usr/lib/systemd/system/$unit" /run/kept; done
    rm -rf /usr/lib/systemd/system/* /usr/lib/systemd/system-generators /etc/systemd/system /etc/systemd/system-generators
    # Some images say that no package may start or stop anything.
    rm -f /usr/sbin/policy-rc.d
    mkdir -p /etc/systemd/system /etc/systemd/journald.conf.d
    mv /run/kept/* /usr/lib/systemd/system
    for target in basic multi-user network network-online sysinit timers; do
      printf "[Unit]\nDefaultDependencies=no\n" >"/usr/lib/systemd/system/$target.target"
    done
    printf "[Journal]\nStorage=volatile\nReadKMsg=no\n" >/etc/systemd/journald.conf.d/machine.conf
    printf "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service timers.target multi-user.target\n" \
      >/etc/systemd/system/machine.target
  fi
  mount --make-rshared /
  exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C container=runlock-test \
    SYSTEMD_UNIT_PATH=/run/systemd/transient:/etc/systemd/system:/usr/lib/systemd/system SYSTEMD_LOG_TARGET=journal \
    /usr/lib/systemd/systemd --system --unit=machine.target --show-status=no
'
start() {
  (
    echo 0 >"$group/cgroup.procs"
    export shared project
    exec unshare --pid --fork --kill-child --mount --cgroup --uts --ipc sh -c "$boot" 3<&- </dev/null
  ) &
  machine=$!
  echo "$machine" >"$shared/machine.pid"
}
start
# SIGKILL: a reboot would be its answer to any other.
{ cat >/dev/null; touch "$shared/over"; kill -KILL "$(cat "$shared/machine.pid")" || true; } <&3 3<&- &
reader=$!
ended=0
wait "$machine" || ended=$?
# 129: its process 1 called reboot(2).
while [ "$ended" = 129 ] && [ ! -e "$shared/over" ]; do
  ended=0
  start
  wait "$machine" || ended=$?
done
kill "$reader" 2>/dev/null || true
# The kernel lets go of it when the last process is gone.
while [ -d "$group" ]; do
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || [ ! -d "$group" ] || sleep 0.05
done
umount -l "$shared/cgroup" "$shared/layers"
exit "$ended"
