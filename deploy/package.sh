#!/usr/bin/env bash
# Builds the two Debian packages, `tidegate` and `tidegate-edge`, into target/debian, from binaries that are built already:
#   cargo build --release --locked -p tidegate-cli -p tidegate-edge && deploy/package.sh
#   deploy/package.sh debug          # from target/debug, as tests/package.sh does
# Needs cargo-deb: cargo install --locked --no-default-features cargo-deb --version 3.8.0
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release}
case $profile in
    release) flags=(--profile release) ;;
    debug) flags=(--profile dev --fast --no-strip) ;;
    *) echo "usage: $0 [release|debug]" >&2; exit 2 ;;
esac
target=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

# What the programs say of themselves: completion and manual pages.
for program in tidegate tidegate-edge; do
    binary=$target/$profile/$program
    out=$target/package/$program
    rm -rf "$out"
    mkdir -p "$out/man"
    for shell in bash zsh fish; do "$binary" completion "$shell" >"$out/$shell"; done
done
"$target/$profile/tidegate-edge" man >"$target/package/tidegate-edge/man/tidegate-edge.1"
"$target/$profile/tidegate" man --out "$target/package/tidegate/man"
# The page of `tidegate edge` has the name of the agent's own page, which is the one that belongs there; `tidegate edge
# --help` says the same as the page that is left out.
rm "$target/package/tidegate/man/tidegate-edge.1"
gzip -9n "$target"/package/*/man/*.1

for package in tidegate-cli tidegate-edge; do
    cargo deb -p "$package" --no-build --locked "${flags[@]}" --output "$target/debian/"
done
