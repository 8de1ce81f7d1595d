# Run by root on a host while an engine is waited for: prints `up`, or `gone` and then the last it wrote.
# $1 init, $2 pid file, $3 log file, $4 seconds and $5 bytes from which on its words are of this start, $6 yes for the words anyway.
PATH=$PATH:/usr/sbin:/sbin
state=up
case $1 in
systemd)
    restarts=$(systemctl show -p NRestarts windlassd.service | cut -d = -f 2)
    if systemctl is-failed -q windlassd.service || [ "${restarts:-0}" -ge 3 ]; then state=gone; fi
    ;;
openrc)
    rc-service -q windlassd status >/dev/null 2>&1 || state=gone
    ;;
none)
    pid=$(cat "$2" 2>/dev/null)
    # One that has ended and was not waited for yet has no command line any more.
    tr '\0' ' ' <"/proc/${pid:-none}/cmdline" 2>/dev/null | grep -q . || state=gone
    # On a local machine one that has ended is started again.
    restarted=$(cat "$2.restarted" 2>/dev/null)
    if [ "${restarted:-0}" -gt "$4" ]; then state=gone; fi
    ;;
esac
echo $state
if [ $state = gone ] || [ "$6" = yes ]; then
    if [ "$1" = systemd ]; then
        journalctl _SYSTEMD_UNIT=windlassd.service --since "@$4" -n 15 --no-pager -o cat 2>/dev/null
    else
        tail -c "+$(($5 + 1))" "$3" 2>/dev/null | tail -n 15
    fi
fi
