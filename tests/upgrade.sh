#!/usr/bin/env bash
# Upgrade from the data of another commit, the previous one unless told otherwise: builds it in a worktree of its own, lets it write
# fixtures, and lets the binaries of this tree open them. Takes a whole build; CI uses the committed fixtures instead.
#
#   tests/upgrade.sh [COMMIT]
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(git rev-parse --short "${1:-HEAD~1}")
dir=$(mktemp -d)
finish() { git worktree remove --force "$dir/tree" 2>/dev/null || true; rm -rf "$dir"; }
trap finish EXIT
git worktree add --quiet --detach "$dir/tree" "$commit"
(cd "$dir/tree" && CARGO_TARGET_DIR="$dir/target" cargo build --workspace --bins)
tests/e2e/fixtures/make.sh "$dir/target/debug" "$commit" "$dir/fixtures"
cargo build --workspace --bins
TIDEGATE_E2E_FIXTURES="$dir/fixtures" cargo test -p tidegate-e2e --features e2e --test scenarios -- upgrade --nocapture
