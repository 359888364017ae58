#!/usr/bin/env bash
# Every crate of the repository is formatted. `--fix` formats instead of complaining.
source "$(dirname "$0")/lib.sh"

check=(--check)
if [[ "${1:-}" == --fix ]]; then check=(); fi
failed=0
while read -r manifest; do
    cargo fmt --manifest-path "$manifest" --all -- "${check[@]}" || failed=1
done < <(manifests)
exit "$failed"
