#!/usr/bin/env bash
# Checks that no files import each other in a circle, and that the core keeps its rules
# (docs/architecture.md, "The core in parts"). Exit code 1 if a check fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo run -q -p structure -- .
