#!/bin/sh
# Keeps the simulation honest: plants each bug of tests/sim/planted in a scratch worktree, one at a time, and demands that
# the seeds or the scenarios find it. Says which assertion found it, at which seed.
#   tests/sim/planted.sh [NAME...]      TIDEGATE_PLANTED_SEEDS (6000): seeds that a bug has at the most
set -eu
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-planted.XXXXXX")
export CARGO_TARGET_DIR="${TIDEGATE_PLANTED_TARGET:-$root/target/planted}"
trap 'git -C "$root" worktree remove --force "$scratch" >/dev/null 2>&1 || true' EXIT
git -C "$root" worktree add --quiet --detach --force "$scratch" HEAD
[ $# -gt 0 ] || set -- $(cd "$root/tests/sim/planted" && ls ./*.patch | sed 's|^\./||; s|\.patch$||')
missed=0
for name in "$@"; do
    git -C "$scratch" checkout --quiet .
    if ! git -C "$scratch" apply "$root/tests/sim/planted/$name.patch"; then
        echo "STALE   $name: the patch does not apply any more"
        missed=1
        continue
    fi
    (cd "$scratch" && cargo build --quiet -p tidegate-sim)
    if TIDEGATE_SIM_SEEDS="${TIDEGATE_PLANTED_SEEDS:-6000}" "$CARGO_TARGET_DIR/debug/tidegate-sim" >"$scratch/out" 2>&1; then
        if (cd "$scratch" && cargo test --quiet -p tidegate-sim --test scenarios) >"$scratch/out" 2>&1; then
            echo "MISSED  $name: no seed and no scenario fails"
            missed=1
        else
            echo "found   $name by the scenario $(sed -n 's/^    \([a-z_]*::[a-z_0-9]*\)$/\1/p' "$scratch/out" | head -n 1)"
        fi
    else
        seed=$(sed -n 's/^seed \([0-9]*\) fails.*/\1/p' "$scratch/out" | head -n 1)
        what=$(sed -n 's/^at [0-9]* ms: //p' "$scratch/out" | head -n 1 | cut -c 1-160)
        echo "found   $name at seed $seed: $what"
    fi
done
exit $missed
