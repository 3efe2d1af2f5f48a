#!/bin/sh
# Starts the archive that follows this text: its beginning is a script, its end a zip file that Python runs.
#
# The images of jobs differ. Some have no Python on PATH before their entrypoint has run, so it comes first, but only if
# it can be seen to run its arguments: one that ignores them, e.g. to serve notebooks, would never end.
if [ -z "$MLJOBS_STARTED" ]; then
    export MLJOBS_STARTED=1
    for entrypoint in /usr/local/bin/entrypoint.sh /usr/local/bin/_entrypoint.sh; do
        if [ -x "$entrypoint" ] &&
            grep -v '^[[:space:]]*#' "$entrypoint" | grep -q -e 'exec .*[$]@' -e 'exec .*[$]{@'; then
            exec "$entrypoint" /bin/sh "$0"
        fi
    done
fi
unset MLJOBS_STARTED
for python in python python3; do
    if command -v "$python" >/dev/null; then
        exec "$python" "$0"
    fi
done
echo "This image has no Python: neither python nor python3 is on PATH ($PATH)." \
    "Choose a runtime_environment with Python 3.9 or newer, or put its directory on PATH in the image." >&2
exit 127
