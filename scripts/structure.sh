#!/usr/bin/env bash
# Looks for files that import each other in a circle, and for parts of the core that know more than
# they may (docs/architecture.md, "The core in parts"). Exit code 1 if there are any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo run -q -p structure -- .
