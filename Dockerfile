# A node as one static file in an empty image: no shell, no libraries, not root. Beside it the client,
# which makes what a cluster needs when it is started for the first time.
#
#   docker build -t cortado .
#
# Where the base image can't be fetched, scripts/image.sh makes the same image with the local toolchain.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
# --target keeps build scripts and macros from being linked statically, which they can't be.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS='-C target-feature=+crt-static' \
       cargo build --release --locked --bin cortado-node --bin cortado --target "$target" \
    && mkdir -p /image/data \
    && cp "target/$target/release/cortado-node" "target/$target/release/cortado" /image/ \
    && chmod 1777 /image/data

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
VOLUME /data
# Membership, data between nodes, clients. All UDP.
EXPOSE 7400/udp 7401/udp 7402/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=4s --retries=2 --start-period=60s \
    CMD ["/cortado-node", "health", "--data", "/data"]
ENTRYPOINT ["/cortado-node"]
CMD ["--config", "/etc/cortado/node.toml"]
