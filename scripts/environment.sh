#!/bin/sh
# Makes the environment .venv, or leaves it alone where it is complete and fits the project. `make` calls this first.
#
#   TORCH   what to install as torch, in the words of `pip install` (the Makefile has a default)
#   PYTHON  the Python to use; by default the first of python3, python3.13, python3.12, python3.11 that is new enough
#
# .venv/complete is written last and says what the environment was made from. Where it is missing or says something
# else, .venv is made anew: so an interrupted run, a moved folder or a removed Python mends itself.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

say() { printf '%s\n' "$*" >&2; }

find_python() {  # prints the first of the Pythons named that is new enough; if in a virtual environment, the one below
    for candidate; do
        "$candidate" -c '
import sys
sys.version_info < (3, 11) and sys.exit(1)
print(sys._base_executable)' 2>/dev/null && return
    done
    say "wherefrom needs Python 3.11 or newer, and found none as: $*. Install one, or name it: make PYTHON=/its/path ..."
    return 1
}

origin() {  # prints what an environment made by the Python $1 depends on; settings of tools in pyproject.toml do not count
    "$1" -I - "$TORCH" <<'END'
import hashlib, json, os, sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
installed = [project["build-system"], project["project"], project.get("tool", {}).get("hatch")]
print("python", *sys.version_info[:2], os.path.realpath(sys.base_prefix))
print("folder", os.getcwd())
print("torch", sys.argv[1])
print("pyproject", hashlib.sha256(json.dumps(installed).encode()).hexdigest())
END
}

up_to_date() {
    [ -f .venv/complete ] && .venv/bin/python -c '' 2>/dev/null &&
        [ "$(origin "${PYTHON:-.venv/bin/python}" 2>/dev/null)" = "$(cat .venv/complete)" ]
}

lock() {  # one at a time; the kernel lets go when this script and what it started have ended, however they ended
    exec 9<scripts/environment.sh
    "$python" -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Another run is making .venv; waiting for it.", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # a file system without locks'
}

start_environment() {
    rm -f .venv/complete
    rm -rf .venv
    if "$python" -c 'import ensurepip, venv' 2>/dev/null && "$python" -m venv .venv; then
        way=venv  # Debian without python3-venv has venv but not ensurepip, and would fail half-way
    elif command -v uv >/dev/null; then
        way=uv
        rm -rf .venv
        uv venv --quiet --python "$python" .venv
    elif "$python" -m pip --version >/dev/null 2>&1; then
        way=pip
        "$python" -m venv --without-pip .venv
    else
        say "$python can make no environment: install its venv module (Debian: apt install python3-venv) or uv."
        exit 1
    fi
}

install() {
    case $way in
        venv) .venv/bin/python -m pip install "$@" ;;
        uv) UV_FIND_LINKS=$(find_links) uv pip install --python .venv/bin/python "$@" ;;
        pip) "$python" -m pip --python .venv/bin/python install "$@" ;;
    esac
}

find_links() {  # the user's own folders of wheels, comma between them: uv does not read pip's configuration
    if [ -n "${UV_FIND_LINKS:-}" ]; then printf '%s' "$UV_FIND_LINKS"; return; fi
    { "$python" -m pip config list 2>/dev/null || :; } | "$python" -c '
import ast, os, sys
settings = [line.partition("=") for line in sys.stdin]
values = [ast.literal_eval(value) for name, _, value in settings if name.endswith("find-links")]
print(*dict.fromkeys(" ".join([os.environ.get("PIP_FIND_LINKS", ""), *values]).split()), sep=",")'
}

make_environment() {
    start_environment &&
        say "Making the environment .venv with $python (some minutes; torch is the large part)." &&
        made_from=$(origin .venv/bin/python) &&
        install $TORCH &&  # unquoted: may hold options of `pip install`, which then count for torch alone
        install -e '.[dev]' &&
        printf '%s\n' "$made_from" >.venv/complete.new &&
        mv .venv/complete.new .venv/complete
}

up_to_date && exit 0
if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
python=$(find_python "$@")
lock
up_to_date && exit 0  # another run has made it meanwhile
make_environment || {
    say "The environment .venv is not complete; the lines above say why. Mend that and run the same command again."
    exit 1
}
say "The environment .venv is complete."
