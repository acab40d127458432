# A node as one static file in an empty image: no shell, no libraries, not root. The image also has
# the client, which makes certificates and configurations at the first start of a cluster.
#
#   docker build -t cortado .
#
# If the base image can't be downloaded, scripts/image.sh makes the same image with the local
# toolchain.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
# With --target, only the programs are linked statically; build scripts and macros can't be.
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
# Membership, data between nodes, clients, all UDP; HTTP.
EXPOSE 7400/udp 7401/udp 7402/udp 7403/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=4s --retries=2 --start-period=60s \
    CMD ["/cortado-node", "health", "--data", "/data"]
ENTRYPOINT ["/cortado-node"]
CMD ["--config", "/etc/cortado/node.toml"]
