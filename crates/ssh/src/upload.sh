# Takes stdin to a new file beside $1 and prints that file's name. $2: plain or gzip.
set -e
folder=${1%/*}
umask 022
mkdir -p -- "${folder:-/}"
umask 077
# What an upload whose connection was lost has left.
find "${folder:-/}" -maxdepth 1 -name '*.part-??????' -mmin +60 -exec rm -f -- {} + 2>/dev/null || true
new=$(mktemp "$1.part-XXXXXX")
trap 'rm -f -- "$new"' EXIT
case $2 in
plain) cat >"$new" ;;
gzip)
    if command -v gzip >/dev/null 2>&1; then
        gzip -dc >"$new"
    elif busybox gzip --help >/dev/null 2>&1; then
        busybox gzip -dc >"$new"
    elif command -v zcat >/dev/null 2>&1; then
        zcat >"$new"
    else
        echo "no gzip" >&2
        exit 127
    fi
    ;;
esac
trap - EXIT
printf '%s\n' "$new"
