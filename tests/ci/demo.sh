#!/usr/bin/env bash
# `make demo`: builds everything, serves the example functions over HTTP, calls each with curl on the inputs that ship with
# the repository, shows the answers and checks them. Exit code 0 only if all are right and the server stopped in order.
source "$(dirname "$0")/lib.sh"

EXAMPLES=core/sdk/examples
DATA="$EXAMPLES/data"
MODULES="$TARGET/modules"
WAIT_SECONDS=60

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
    got="$(curl --silent --show-error --max-time "$WAIT_SECONDS" --output "$scratch/body" --dump-header "$scratch/head" \
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

# all COMMAND ARG…: whether COMMAND is true for each ARG.
all() {
    local command="$1" arg
    for arg in "${@:2}"; do "$command" "$arg" || return 1; done
}

# header TEXT: whether a line of the answer's head begins with it.
header() { grep -qi -- "^$1" "$scratch/head"; }

# field NAME VALUE: whether the answer is JSON that has it, as Python prints it.
field() { [[ "$(python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <"$scratch/body")" == "$2" ]]; }

# png_size: width and height that the answer's header states, nothing if it is no PNG.
png_size() {
    python3 -c '
import struct, sys
head = sys.stdin.buffer.read(24)
if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR":
    print(*struct.unpack(">II", head[16:24]))
' <"$scratch/body"
}

# show [LINES]: the answer's first lines, indented.
show() {
    head -n "${1:-8}" "$scratch/body" | cut -c1-160 | sed 's/^/      /'
    echo
}

# ready: whether the server says so.
ready() { curl --silent --fail --max-time "$WAIT_SECONDS" --output /dev/null "$base/healthz"; }

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
mapfile -t folders < <(crates "$EXAMPLES" | xargs -n 1 dirname)
# One target folder for all: what two functions depend on is compiled once.
CARGO_TARGET_DIR="$(realpath -m "$TARGET/examples")" "$microfaas" build "${folders[@]}" -o "$MODULES"
ls "$MODULES" | sed 's/^/      /'

title "serve"
"$microfaas" serve --modules "$MODULES" --http 127.0.0.1:0 </dev/null >"$scratch/said" 2>"$scratch/log" &
server=$!
within "$WAIT_SECONDS" grep -q '^ready$' "$scratch/said" ||
    { tail -20 "$scratch/log" >&2; die "the server was not ready in $WAIT_SECONDS s"; }
base="$(sed -n 's/^listening on //p' "$scratch/said")"
expect "it says that it is well" ready
echo "      $base, process $server"

title "hello: a greeting"
call 200 hello --data-binary "Ada"
show
expect "it greets by name" test "$(cat "$scratch/body")" = "Hello, Ada!"

title "sha512: the function that the paper measures with"
call 200 sha512 --data-binary "@$DATA/sample.md"
show
expect "the digest is what sha512sum says" test "$(cat "$scratch/body")" = "$(sha512sum <"$DATA/sample.md" | cut -d' ' -f1)"

title "jwt-verify: a good token, HS256"
call 200 jwt-verify --header "authorization: Bearer $(cat "$DATA/hs256.jwt")"
show
expect "it allows" field allow True
expect "and says who it is" contains '"sub":"alice"'

title "jwt-verify: a good token, ES256"
call 200 jwt-verify --header "authorization: Bearer $(cat "$DATA/es256.jwt")"
show
expect "it allows" field allow True

title "jwt-verify: a token that has expired"
call 401 jwt-verify --header "authorization: Bearer $(cat "$DATA/expired.jwt")"
show
expect "it denies" field allow False
expect "and says why" field reason ExpiredSignature

title "jwt-verify: a forged token"
call 401 jwt-verify --header "authorization: Bearer $(cat "$DATA/forged.jwt")"
show
expect "it denies" field allow False
expect "and says why" field reason InvalidSignature

title "jwt-verify: a public key taken for a secret"
call 401 jwt-verify --header "authorization: Bearer $(cat "$DATA/confused.jwt")"
show
expect "it denies" field allow False

title "markdown: a page to HTML"
call 200 markdown --data-binary "@$DATA/sample.md"
show 12
expect "it says what it is" header "content-type: text/html"
expect "it has a heading, a table and code" all contains "<h1>" "<table>" '<code class="language-rust">'

title "thumbnail: a photo, 128 pixels wide"
call 200 thumbnail --data-binary "@$DATA/photo.jpg"
expect "it says what it is" header "content-type: image/png"
expect "a PNG of 128 x 85 from a JPEG of $(wc -c <"$DATA/photo.jpg") bytes" test "$(png_size)" = "128 85"

title "thumbnail: a drawing, 64 pixels"
call 200 "thumbnail?w=64" --data-binary "@$DATA/drawing.png"
expect "a PNG of 64 x 48" test "$(png_size)" = "64 48"

title "thumbnail: no picture at all"
call 415 thumbnail --data-binary "GIF89a"
show

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
