# syntax=docker/dockerfile:1
# Two images: `docker build --target worker .` and `docker build --target operator .`; `make images` builds both.
# The base images are arguments, so that you can use a mirror. Pin them by digest for repeatable builds.
ARG RUST=docker.io/library/rust:1.94-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST} AS build
WORKDIR /src
COPY . .
# Builds for several platforms share the cache, so each uses a separate folder in it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    export CARGO_TARGET_DIR="/target/$(uname -m)" \
 && cargo build --release --locked -p rowlock-worker \
 && cargo build --release --locked -p rowlock-operator --features kube \
 && mkdir /out && cp "$CARGO_TARGET_DIR/release/rowlock-worker" "$CARGO_TARGET_DIR/release/rowlock-operator" /out/

FROM ${BASE} AS worker
LABEL org.opencontainers.image.title="rowlock-worker" \
      org.opencontainers.image.description="Claims tasks from Postgres and sends them to the handler in the same pod" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/rowlock-worker /usr/local/bin/
# A numeric user, so that Kubernetes can verify `runAsNonRoot`.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/rowlock-worker"]

FROM ${BASE} AS operator
LABEL org.opencontainers.image.title="rowlock-operator" \
      org.opencontainers.image.description="Deploys and scales the workers of every TaskQueue in a cluster" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/rowlock-operator /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/rowlock-operator"]
