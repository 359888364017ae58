#!/usr/bin/env bash
# `make demo`: builds everything, serves the example functions over HTTP, calls each with curl on the inputs that ship with
# the repository, shows the answers and checks them. Exit code 0 only if all are right and the server stopped in order.
source "$(dirname "$0")/lib.sh"

EXAMPLES=core/sdk/examples
DATA="$EXAMPLES/data"
MODULES="$TARGET/modules"
WAIT_SECONDS=20

need curl "run tests/ci/00-install.sh"
need python3 "run tests/ci/00-install.sh"

scratch="$(mktemp -d)"
server=""
right=0
wrong=0

# Ends the server whatever happened, by its id.
finish() {
    if [[ -n $server ]] && kill -0 "$server" 2>/dev/null; then kill -KILL "$server"; fi
    rm -rf "$scratch"
}
trap finish EXIT

# title WORDS…: a heading for people.
title() { printf '\n-- %s\n' "$*"; }

# call STATUS FUNCTION CURL-ARGS…: one request; the answer is in $scratch/body, its head in $scratch/head.
call() {
    local want="$1" path="/fn/$2" got
    shift 2
    got="$(curl --silent --show-error --max-time 10 --output "$scratch/body" --dump-header "$scratch/head" \
        --write-out '%{http_code}' "$@" "$base$path")" || die "$path: no answer"
    if [[ $got == "$want" ]]; then
        pass "$path answers $got"
    else
        fail "$path answers $got, not $want: $(head -c 300 "$scratch/body")"
    fi
}

pass() {
    right=$((right + 1))
    printf '   ok: %s\n' "$*"
}

fail() {
    wrong=$((wrong + 1))
    printf 'WRONG: %s\n' "$*"
}

# expect WHAT CONDITION…: one check, CONDITION is a command.
expect() {
    local what="$1"
    shift
    if "$@"; then pass "$what"; else fail "$what"; fi
}

# contains TEXT: whether the answer has it.
contains() { grep -qF -- "$1" "$scratch/body"; }

# show [LINES]: the answer's first lines, indented.
show() {
    head -n "${1:-8}" "$scratch/body" | cut -c1-160 | sed 's/^/      /'
    echo
}

# ready: whether the server says so.
ready() { curl --silent --fail --max-time 2 --output /dev/null "$base/healthz"; }

# stopped: whether the server is gone.
stopped() { ! kill -0 "$server" 2>/dev/null; }

# within SECONDS COMMAND…: tries until it is true.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if ((SECONDS >= end)); then return 1; fi
        sleep 0.1
    done
}

title "build"
cargo build --quiet --release --workspace --bins --locked
microfaas="$TARGET/release/microfaas"
rm -rf "$MODULES"
mapfile -t crates < <(find "$EXAMPLES" -mindepth 2 -maxdepth 2 -name Cargo.toml -printf '%h\n' | sort)
"$microfaas" build "${crates[@]}" -o "$MODULES"
ls "$MODULES" | sed 's/^/      /'

title "serve"
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
base="http://127.0.0.1:$port"
"$microfaas" serve --modules "$MODULES" --http "127.0.0.1:$port" </dev/null >"$scratch/log" 2>&1 &
server=$!
within "$WAIT_SECONDS" ready || { tail -20 "$scratch/log" >&2; die "the server did not answer /healthz in $WAIT_SECONDS s"; }
echo "      $base, process $server"

title "hello"
call 200 hello --data-binary "world"
show
expect "it greets by name" contains "world"

title "sha512: the paper's function"
call 200 sha512 --data-binary "@$DATA/article.md"
show
expect "the digest is sha512sum's" contains "$(sha512sum <"$DATA/article.md" | cut -d' ' -f1)"

title "markdown to HTML"
call 200 markdown --data-binary "@$DATA/article.md"
show
expect "it has a heading" contains "<h1"

title "no such function"
call 404 no-such-function

title "stop"
kill -TERM "$server"
if within "$WAIT_SECONDS" stopped; then
    status=0
    wait "$server" || status=$?
    expect "the server ends in order (exit $status)" test "$status" -eq 0
else
    fail "the server still runs $WAIT_SECONDS s after SIGTERM"
fi
server=""

printf '\ndemo: %d right, %d wrong\n' "$right" "$wrong"
((wrong == 0))
