# Read by `sh -s -- BINARY STATE SOCKET PIDFILE` on a host: prints what an installation has to know as key=value lines. Changes nothing.
# Where modprobe is, which users other than root are not told.
PATH=$PATH:/usr/sbin:/sbin
binary=$1 state=$2 socket=$3 pidfile=$4

say() { printf '%s=%s\n' "$1" "$2"; }
have() { command -v "$1" >/dev/null 2>&1; }

say system "$(uname -s)"
say arch "$(uname -m)"
say kernel "$(uname -r)"
(. /etc/os-release 2>/dev/null && say os "${PRETTY_NAME:-$ID}")

as=
if [ "$(id -u)" = 0 ]; then
    say root root
elif said=$(sudo -n true 2>&1); then
    say root sudo
    as='sudo -n --'
else
    say root none
    say root_problem "$(printf '%s' "$said" | tr '\n' ' ')"
fi

init=none
if [ -d /run/systemd/system ] && have systemctl; then
    init=systemd
elif [ -d /run/openrc ] && have rc-service; then
    init=openrc
fi
say init "$init"

# yes, no, or unknown where nothing can tell.
feature() { # KEY WORD-IN-/proc/filesystems-OR-- MODULE CONFIG
    if [ "$2" != - ] && grep -qw "$2" /proc/filesystems 2>/dev/null; then
        say "$1" yes
    elif [ -d "/sys/module/$3" ] || grep -q "^$3 " /proc/modules 2>/dev/null; then
        say "$1" yes
    elif have modprobe && modprobe -n -q "$3" 2>/dev/null; then
        say "$1" yes
    elif setting=$( (zcat /proc/config.gz || cat "/boot/config-$(uname -r)") 2>/dev/null | grep -E "^(# )?$4[= ]"); then
        # A module is only there with its file, and hosts without modprobe hardly have any.
        case $setting in
        *=y) say "$1" yes ;;
        *=m) if find "/lib/modules/$(uname -r)" -name "$3.ko*" 2>/dev/null | grep -q .; then say "$1" yes; else say "$1" no; fi ;;
        *) say "$1" no ;;
        esac
    elif [ "$2" != - ]; then
        say "$1" no
    else
        say "$1" unknown
    fi
}
feature overlayfs overlay overlay CONFIG_OVERLAY_FS
feature nftables - nf_tables CONFIG_NF_TABLES

for name in pid net mnt ipc uts; do
    [ -e "/proc/self/ns/$name" ] && namespaces="$namespaces $name"
done
say namespaces "${namespaces# }"

v1=$(grep -c ' - cgroup ' /proc/self/mountinfo 2>/dev/null)
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    say cgroup v2
elif [ "${v1:-0}" -gt 0 ] && grep -q ' - cgroup2 ' /proc/self/mountinfo; then
    say cgroup hybrid
elif [ "${v1:-0}" -gt 0 ]; then
    say cgroup v1
else
    say cgroup none
fi

unpack=no
if have gzip || busybox gzip --help >/dev/null 2>&1 || have zcat; then unpack=yes; fi
say gzip "$unpack"

# The first folder above that is there says which file system it will be on.
free() {
    folder=$1
    while [ ! -d "$folder" ] && [ -n "$folder" ]; do folder=${folder%/*}; done
    df -Pk "${folder:-/}" 2>/dev/null | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }'
}
say free_binary "$(free "${binary%/*}")"
say free_state "$(free "$state")"

if [ -f "$binary" ]; then
    if have sha256sum; then
        say digest "$(sha256sum <"$binary" | cut -d ' ' -f 1)"
    elif busybox sha256sum --help >/dev/null 2>&1; then
        say digest "$(busybox sha256sum <"$binary" | cut -d ' ' -f 1)"
    elif [ -f "$binary.sha256" ]; then
        say digest "$(cat "$binary.sha256")"
    fi
    limit=
    have timeout && limit='timeout 5'
    say version "$($limit "$binary" --version 2>/dev/null </dev/null | head -n 1)"
fi

pid=
if [ "$init" = systemd ]; then
    pid=$(systemctl show -p MainPID windlassd.service 2>/dev/null | cut -d = -f 2)
fi
if [ "${pid:-0}" = 0 ] && [ -f "$pidfile" ]; then pid=$(cat "$pidfile"); fi
running=no
if [ "${pid:-0}" != 0 ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$socket"; then
    running=yes
    # Under OpenRC that is the supervisor.
    case $(tr '\0' ' ' <"/proc/$pid/cmdline") in
    supervise-daemon*) pid=$(cut -d ' ' -f 1 <"/proc/$pid/task/$pid/children" 2>/dev/null) ;;
    esac
    case $($as readlink "/proc/$pid/exe" 2>/dev/null) in
    *' (deleted)') running=stale ;;
    esac
fi
say running "$running"

for docker in /run/docker.sock /var/run/docker.sock; do
    if [ -S "$docker" ]; then
        say docker "$docker"
        break
    fi
done
say end yes
