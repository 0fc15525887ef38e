#!/usr/bin/env bash
# Builds both Debian packages from the debug binaries and installs them for real, below a directory of its own: what is in
# them runs, the example settings pass their check, the units are tight, and a purge leaves nothing. Needs root, cargo-deb
# and `cargo build --workspace --bins`.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
touch "$root/var/lib/dpkg/status"
dpkg_here() { dpkg --root="$root" --force-script-chrootless --force-depends --log=/dev/null "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

rm -f target/debian/*.deb
deploy/package.sh debug
dpkg_here -i target/debian/tidegate_*.deb target/debian/tidegate-edge_*.deb 2>&1 | grep -v "dependency problem\|depends on\|^$" || true

for program in tidegate tidegate-edge; do
    "$root/usr/bin/$program" --version | grep -q "^$program " || fail "$program does not run"
    [ -s "$root/usr/share/bash-completion/completions/$program" ] || fail "$program: no completion"
    zcat "$root/usr/share/man/man1/$program.1.gz" | grep -q "^.TH $program" || fail "$program: no manual page"
    unit=$root/lib/systemd/system/$program.service
    [ -s "$unit" ] || fail "$program: no unit"
    # Every directive is known, and the exposure stays below 2.0. The binary is not where the unit will find it.
    if command -v systemd-analyze >/dev/null; then
        if systemd-analyze verify "$unit" 2>&1 | grep -v "is not executable\|Command 'man \|^$"; then fail "$program: the unit"; fi
        systemd-analyze security --offline=yes --threshold=20 "$unit" >/dev/null || fail "$program: the unit is too open"
    fi
done
"$root/usr/bin/tidegate" serve --check --config "$root/etc/tidegate/controller.toml"
"$root/usr/bin/tidegate-edge" run --check --config "$root/etc/tidegate/edge.toml"
[ "$(stat -c %a "$root/etc/tidegate/edge.toml")" = 600 ] || fail "edge.toml can be read by everybody"
doc=$root/usr/share/doc/tidegate-edge/examples
"$root/usr/bin/tidegate-edge" run --check --name gw-example --rules "$doc/rules"
dpkg_here --status tidegate-edge | grep -q "/etc/tidegate/edge.toml" || fail "edge.toml is no conffile"

dpkg_here --purge tidegate tidegate-edge >/dev/null
left=$(find "$root" -path "$root/var/lib/dpkg" -prune -o -type f -print)
[ -z "$left" ] || fail "left after the purge: $left"
echo "both packages install, run and go"
