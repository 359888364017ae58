# shellcheck shell=bash
# Sourced by every script here: strict mode, the repository's root as the current folder, a few words.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Where cargo builds; relative or absolute, as cargo takes it.
TARGET="${CARGO_TARGET_DIR:-target}"
# Tools that 00-install.sh brings live in here and nowhere else.
TOOLS="$TARGET/tools"
PATH="$(realpath -m "$TOOLS")/bin:$PATH"

# say WORDS…: what this script is doing, on standard error, so that output stays data.
say() { printf '    %s\n' "$*" >&2; }

# die WORDS…: the one line that says what is wrong.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# have COMMAND: whether it is installed.
have() { command -v "$1" >/dev/null 2>&1; }

# need COMMAND HINT…: it must be installed.
need() { have "$1" || die "$1 is not installed: ${*:2}"; }

# crates FOLDER: every Cargo.toml below it that is of no workspace: function crates, which `microfaas build` builds.
crates() { git ls-files --cached --others --exclude-standard -- "$1/*/Cargo.toml" | sort; }
