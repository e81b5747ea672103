#!/bin/sh
# Prints the first of the given Pythons that can run this project: 3.11 to 3.14, on Linux. Used by the Makefile.
if [ "$(uname -s)" != Linux ]; then
    echo "One-to-All runs on Linux, and this is $(uname -s): use a Linux machine, a virtual machine or a container (infra/Dockerfile)." >&2
    exit 1
fi
for python in "$@"; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$python has no venv module: install it, e.g. with \`apt-get install python3-venv\`." >&2
            exit 1
        fi
        echo "$python"
        exit 0
    fi
done
echo "No Python 3.11, 3.12, 3.13 or 3.14 found (tried: $*): install one, e.g. with \`apt-get install python3 python3-venv\`, or name it: make PYTHON=/path/to/python3" >&2
exit 1
