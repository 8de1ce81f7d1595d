# Puts the file $1, which must have $4 bytes ("" for any) and the SHA-256 $5 ("" for any), at $2 with mode $3, at once and durably.
# What was at $2 stays as $6 ("" for nowhere).
set -e
trap 'rm -f -- "$1"' EXIT
bytes=$(wc -c <"$1" | tr -d ' ')
if [ -n "$4" ] && [ "$bytes" != "$4" ]; then
    echo "$bytes of $4 bytes arrived" >&2
    exit 3
fi
verified=unknown
if [ -n "$5" ]; then
    digest=
    if command -v sha256sum >/dev/null 2>&1; then
        digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
    elif busybox sha256sum --help >/dev/null 2>&1; then
        digest=$(busybox sha256sum <"$1" | cut -d ' ' -f 1)
    fi
    if [ -n "$digest" ]; then
        if [ "$digest" != "$5" ]; then
            echo "the digest is $digest and should be $5" >&2
            exit 3
        fi
        verified=yes
    fi
fi
chmod -- "$3" "$1"
sync -- "$1" 2>/dev/null || sync
# One that is kept already has not been replaced by anything that proved itself.
if [ -n "$6" ] && [ -f "$2" ] && [ ! -e "$6" ]; then
    ln -- "$2" "$6" 2>/dev/null || cp -p -- "$2" "$6"
fi
mv -f -- "$1" "$2"
folder=${2%/*}
sync -- "${folder:-/}" 2>/dev/null || sync
trap - EXIT
printf '%s %s\n' "$bytes" "$verified"
