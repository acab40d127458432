#!/usr/bin/env bash
# Builds the image of a node with the local Rust toolchain: the same as `docker build .` gives, but
# nothing is fetched from an image registry.
#
#   scripts/image.sh [TAG]        TAG is `cortado` if not given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=${1:-cortado}
for program in cargo docker; do
    command -v "$program" >/dev/null || { echo "image: $program is missing" >&2; exit 1; }
done

target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --release --locked --bin cortado-node --target "$target"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/image"
cp "${CARGO_TARGET_DIR:-target}/$target/release/cortado-node" "$context/image/"
# Whoever the container runs as may write here; a volume takes it over from the image.
mkdir -m 1777 "$context/image/data"

# The final stage of the Dockerfile, fed from here.
{
    echo 'FROM scratch'
    echo 'COPY image/ /'
    sed -n '/^FROM scratch/,$p' Dockerfile | grep -v -e '^FROM' -e '^COPY'
} >"$context/Dockerfile"
docker build --quiet --tag "$tag" "$context" >/dev/null
docker image inspect --format "$tag: {{.Size}} bytes" "$tag"
