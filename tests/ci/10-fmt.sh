#!/usr/bin/env bash
# Every Rust file of the repository is formatted, whatever crate it is in. `--fix` formats instead of complaining.
source "$(dirname "$0")/lib.sh"

check=(--check)
if [[ "${1:-}" == --fix ]]; then check=(); fi
git ls-files -z --cached --others --exclude-standard -- '*.rs' |
    while IFS= read -r -d '' file; do
        # Tracked and deleted is no file.
        if [[ -f $file ]]; then printf '%s\0' "$file"; fi
    done |
    xargs -0 rustfmt --edition 2024 --config-path . "${check[@]}"
