# docker build -t ringmaster .
# docker run --rm -p 8080:8080 --env-file .env ringmaster

FROM rust:1.95-bookworm AS builder
WORKDIR /build

# Layer 1: the dependencies. It is rebuilt only when Cargo.toml or Cargo.lock change, not with our own sources.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --locked --release \
    && rm -r src

# Layer 2: our own crate. The copied files may be older than the empty ones above; cargo compares times.
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --locked --release

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Ringmaster" \
      org.opencontainers.image.description="Outbound phone-call campaigns over Plivo: stateless containers, all state in MongoDB" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

# The carrier and the bots are called over TLS, checked against the system's roots.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*

COPY --from=builder /build/target/release/ringmaster /usr/local/bin/ringmaster

# Nothing is written to the container: a user without home and rights is enough. By number, so that a platform can
# tell that it is not root.
USER 10001:10001

# Cloud Run and its like set PORT themselves.
ENV PORT=8080
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["ringmaster", "healthcheck"]
ENTRYPOINT ["ringmaster"]
CMD ["serve"]
