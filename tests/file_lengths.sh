#!/bin/bash
# Fails for Rust files over 400 lines. (Clippy's too_many_lines limits functions.)
set -eu
cd "$(dirname "$0")/.."

limit=400
long=$(find . \( -name target -o -name .git \) -prune -o -name '*.rs' -print0 | xargs -0 wc -l | awk -v limit=$limit '$2 != "total" && $1 > limit')
[ -z "$long" ] || { echo "over $limit lines:" >&2; echo "$long" >&2; exit 1; }
[ ! -e ARCHITECTURE.md ] || [ "$(wc -l <ARCHITECTURE.md)" -le 150 ] || { echo "ARCHITECTURE.md is over 150 lines" >&2; exit 1; }
