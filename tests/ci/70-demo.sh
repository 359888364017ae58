#!/usr/bin/env bash
# The demo is a promise: it runs, end to end, and its answers are right.
source "$(dirname "$0")/lib.sh"

exec bash tests/ci/demo.sh
