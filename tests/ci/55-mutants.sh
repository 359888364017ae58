#!/usr/bin/env bash
# Models that cannot fail prove nothing: with each mutant of tests/model/mutants.txt chosen, the model named there must.
#   55-mutants.sh [NAME…]   only these mutants
# A mutant is a line `mutant("NAME")` in the lane: code that exists only under loom and is chosen when a model starts, by
# MICROFAAS_MUTANT. So the models of stage 50 are run again and nothing is compiled.
source "$(dirname "$0")/lib.sh"

LIST=tests/model/mutants.txt
MUTANT_SECONDS_MAX="${MUTANT_SECONDS_MAX:-120}"
[[ -f $LIST ]] || die "$LIST is missing"

listed="$(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$LIST" | sort -u)"
written="$(grep -rhoP '\bmutant\("\K[a-z0-9_]+(?="\))' core/lane/src | sort -u)"
[[ -n $listed ]] || die "$LIST names no mutant"
difference="$(comm -3 <(echo "$listed") <(echo "$written") | tr -d '\t' | paste -sd' ')"
[[ -z $difference ]] || die "in only one of $LIST and core/lane/src: $difference"

mapfile -t names <<<"$listed"
if (($#)); then names=("$@"); fi

logs="$TARGET/mutants"
mkdir -p "$logs"
logs="$(realpath "$logs")"
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$TARGET/loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}"

# As stage 50 runs them. Compiling may take longer than any model.
MODELS=(cargo test --quiet --package microfaas-model --tests --release --locked)
models() { timeout --kill-after=10 "$MUTANT_SECONDS_MAX" "${MODELS[@]}" "$@"; }

"${MODELS[@]}" --no-run
caught=0
survived=()
for name in "${names[@]}"; do
    [[ $'\n'$written$'\n' == *$'\n'"$name"$'\n'* ]] || die "there is no mutant $name"
    # The list's last word is the model that is there for this mutant. Only that one runs: others may go on for ever.
    model="$(sed -n "s/^${name}[[:space:]].* \([a-z_0-9]*\)$/\1/p" "$LIST")"
    [[ -n $model ]] || die "$LIST: the line of $name does not end with the name of a model"
    log="$logs/$name.log"
    status=0
    MICROFAAS_MUTANT="$name" models -- --exact "$model" >"$log" 2>&1 || status=$?
    # Everything is compiled, so 101 is the model that failed, by a panic or by an abort; a time-out (124) is neither,
    # and a model that does not exist passes.
    if ((status == 101)); then
        caught=$((caught + 1))
        say "$name: caught by $model"
    else
        survived+=("$name")
        say "$name: NOT caught by $model (exit $status, log in $log)"
    fi
done
echo "mutants: $caught caught, ${#survived[@]} survived"
((${#survived[@]} == 0)) || die "the models do not see: ${survived[*]}"
