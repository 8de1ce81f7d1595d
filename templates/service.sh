# Run by root on a host: writes the service where it differs, and starts or restarts it where that is needed.
# $1 init, $2 engine binary, $3 state, $4 runtime folder, $5 socket, $6 log file, $7 unit file, $8 its text, $9 no, yes to restart, or stop.
set -e
PATH=$PATH:/usr/sbin:/sbin
umask 022
init=$1 binary=$2 state=$3 run=$4 socket=$5 log=$6 unit=$7 text=$8 restart=$9
pidfile=$run/windlassd.pid
mkdir -p -- "$state" "$run" "${log%/*}"

# Stays until the service runs as its file says: whoever is stopped in between leaves that to the next.
pending=$run/windlassd.pending
shows() { printf '%s\n' "$shown" | grep -qx "$1"; }
look() { shown=$(systemctl show -p LoadState -p NeedDaemonReload windlassd.service 2>/dev/null) || true; }
needs_reload() {
    [ "$init" = systemd ] || return 1
    look
    shows NeedDaemonReload=yes
}
changed=no
if [ "$init" != none ] && { [ -e "$pending" ] || [ ! -f "$unit" ] || [ "$(cat -- "$unit")" != "$text" ] || needs_reload; }; then
    : >"$pending"
    mode=644
    [ "$init" = openrc ] && mode=755
    printf '%s\n' "$text" >"$unit.new"
    chmod "$mode" "$unit.new"
    mv -f -- "$unit.new" "$unit"
    # A reload looks at every unit of the host; systemd reads a new one by itself when it is asked for it.
    if [ "$init" = systemd ]; then
        look
        if ! shows LoadState=loaded || ! shows NeedDaemonReload=no; then systemctl daemon-reload; fi
    fi
    changed=yes
fi

# Where no init system keeps the engine, whoever has renamed its process file away may start and stop it, and nobody else does:
# the first process of a local machine starts one that has ended again, and has the file as $pidfile.init meanwhile.
mine=$pidfile.install
alive() { # FILE
    [ -f "$1" ] && tr '\0' ' ' <"/proc/$(cat "$1")/cmdline" 2>/dev/null | grep -qF -- "$socket"
}
pause() { sleep 0.1 2>/dev/null || sleep 1; }
# Without such a file there is no engine, or one that an interrupted installation has left with its own.
take() {
    tries=0
    until mv -f -- "$pidfile" "$mine" 2>/dev/null; do
        # In this order: the file comes back before the other is gone.
        if [ ! -e "$pidfile.init" ] && [ ! -e "$pidfile" ]; then return 0; fi
        if [ $tries -ge 100 ]; then
            echo "cannot take $pidfile" >&2
            exit 1
        fi
        pause
        tries=$((tries + 1))
    done
}
stop_alone() {
    pid=$(cat "$mine")
    kill "$pid" 2>/dev/null || true
    tries=0
    while alive "$mine" && [ $tries -lt 100 ]; do
        pause
        tries=$((tries + 1))
    done
    if alive "$mine"; then kill -9 "$pid" 2>/dev/null || true; fi
    rm -f -- "$mine"
}
start_alone() {
    if [ -f "$log" ] && [ "$(wc -c <"$log")" -gt 10485760 ]; then mv -f -- "$log" "$log.old"; fi
    apart=
    if command -v setsid >/dev/null 2>&1; then
        apart=setsid
    elif busybox setsid true >/dev/null 2>&1; then
        apart='busybox setsid'
    fi
    trap '' HUP
    $apart "$binary" --root "$state" --run "$run" --socket "$socket" </dev/null >>"$log" 2>&1 &
    echo $! >"$mine"
    mv -f -- "$mine" "$pidfile"
}

if [ "$restart" = stop ]; then
    case $init in
    systemd) systemctl disable -q --now windlassd.service ;;
    openrc)
        rc-update del windlassd default >/dev/null
        rc-service -q windlassd stop >/dev/null
        ;;
    none)
        take
        if alive "$mine"; then stop_alone; fi
        rm -f -- "$mine"
        ;;
    esac
    rm -f -- "$pending"
    exit 0
fi

since=$(date +%s)
from=0
[ -f "$log" ] && from=$(wc -c <"$log" | tr -d ' ')
action=none
case $init in
systemd)
    systemctl is-enabled -q windlassd.service 2>/dev/null || systemctl enable -q --no-reload windlassd.service
    if systemctl is-active -q windlassd.service; then
        if [ "$restart" = yes ] || [ $changed = yes ]; then
            systemctl restart windlassd.service
            action=restarted
        fi
    else
        systemctl reset-failed windlassd.service 2>/dev/null || true
        systemctl start windlassd.service
        action=started
    fi
    ;;
openrc)
    rc-update show default | grep -qw windlassd || rc-update add windlassd default >/dev/null
    if rc-service -q windlassd status >/dev/null 2>&1; then
        if [ "$restart" = yes ] || [ $changed = yes ]; then
            rc-service -q windlassd restart >/dev/null
            action=restarted
        fi
    else
        rc-service -q windlassd zap >/dev/null 2>&1 || true
        rc-service -q windlassd start >/dev/null
        action=started
    fi
    ;;
none)
    if [ "$restart" = yes ] || ! alive "$pidfile"; then
        take
        if ! alive "$mine"; then
            start_alone
            action=started
        elif [ "$restart" = yes ]; then
            stop_alone
            start_alone
            action=restarted
        else
            mv -f -- "$mine" "$pidfile"
        fi
    fi
    ;;
esac
rm -f -- "$pending"
printf 'unit=%s\naction=%s\nsince=%s\nfrom=%s\n' "$changed" "$action" "$since" "$from"
