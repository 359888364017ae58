#!/usr/bin/env bash
# The quickstarts of README.md, as they stand there: every block that begins with ```sh run, each in a folder of its own.
source "$(dirname "$0")/lib.sh"

cargo build --quiet --release --locked --workspace --bins
TARGET="$(realpath "$TARGET")"
PATH="$TARGET/release:$PATH"
# The crates that `new` makes depend on the SDK of this checkout; all of them share what is compiled.
export CARGO_TARGET_DIR="$TARGET/readme"

blocks="$(mktemp -d)"
trap 'rm -rf "$blocks"' EXIT
awk -v dir="$blocks" '
    /^```sh run$/ { n++; on = 1; next }
    /^```/ { on = 0 }
    on { print > (dir "/" n ".sh") }
' README.md
count=0
for block in "$blocks"/*.sh; do
    count=$((count + 1))
    mkdir "$blocks/$count"
    printf -- '-- quickstart %d\n' "$count"
    answer="$(cd "$blocks/$count" && timeout 1200 bash -euo pipefail "$block" 2>&1)" || die "quickstart $count failed: $answer"
    printf '%s\n' "$answer" | tail -n 3
    grep -q 'world' <<<"$answer" || die "quickstart $count does not greet the world"
done
((count >= 2)) || die "README.md has $count quickstarts, not 2 or more"
