# syntax=docker/dockerfile:1

FROM rust:1-slim-bookworm AS build
# Feature `tls` links OpenSSL; librdkafka itself is built from source with a C compiler and make.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ libc6-dev make pkg-config libssl-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /clicktide
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/clicktide/target,sharing=locked \
    cargo build --locked --release --features s3,tls --bin clicktide \
    && cp target/release/clicktide /usr/local/bin/clicktide

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin clicktide \
    # A new volume that is mounted here takes over the owner.
    && install -d -o clicktide -g nogroup /var/lib/clicktide/checkpoints
COPY --from=build /usr/local/bin/clicktide /usr/local/bin/clicktide
COPY config /etc/clicktide
USER 10001
EXPOSE 8080
# The one image is the job, the generator and the tools, and not all of them have health: whoever runs it asks, over HTTP
# (/healthz, /readyz) or by `clicktide health`.
HEALTHCHECK NONE
ENTRYPOINT ["clicktide"]
CMD ["--help"]
