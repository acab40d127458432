#!/usr/bin/env bash
# Builds the image of a node with the local Rust toolchain: the same image as `docker build .`, but
# without downloads from an image registry.
#
#   scripts/image.sh [TAG]                  TAG is `cortado` if not given
#   PROGRAM=FILE scripts/image.sh [TAG]     uses this cortado-node, the cortado beside it and their
#                                           libraries, and builds no programs; for tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=${1:-cortado}
missing() { echo "image: $1 is missing" >&2; exit 1; }
command -v docker >/dev/null || missing docker

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/image"
programs=(cortado-node cortado)
if [[ -n ${PROGRAM:-} ]]; then
    for program in "${programs[@]}"; do
        built=$(dirname "$PROGRAM")/$program
        cp "$built" "$context/image/"
        strip --strip-debug "$context/image/$program" 2>/dev/null || true
        # The loader and the libraries, at the paths where the loader looks for them. Since glibc
        # 2.34, libc itself resolves host names.
        ldd "$built" | grep -o '/[^ ]*' | while read -r library; do
            mkdir -p "$context/image${library%/*}"
            cp -L "$library" "$context/image$library"
        done
    done
else
    command -v cargo >/dev/null || missing cargo
    target=$(rustc -vV | sed -n 's/^host: //p')
    RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --release --locked "${programs[@]/#/--bin=}" --target "$target"
    cp "${programs[@]/#/${CARGO_TARGET_DIR:-target}/$target/release/}" "$context/image/"
fi
# The container may run as any user, so all may write here; a volume takes the mode from the image.
mkdir -m 1777 "$context/image/data"

# The final stage of the Dockerfile, with the files from above.
{
    echo 'FROM scratch'
    echo 'COPY image/ /'
    sed -n '/^FROM scratch/,$p' Dockerfile | grep -v -e '^FROM' -e '^COPY'
} >"$context/Dockerfile"
docker build --quiet --tag "$tag" "$context" >/dev/null
docker image inspect --format "$tag: {{.Size}} bytes" "$tag"
