# syntax=docker/dockerfile:1
# All programs, for processors (docs/install.md says how to run them):
#   docker build --build-arg VISUAL_RL_COMMIT=$(git rev-parse HEAD) -t visual-rl .

FROM rust:1.95-slim-bookworm AS build
# What a run says of the program that made it.
ARG VISUAL_RL_COMMIT=""
WORKDIR /src
COPY . .
# The image has the C compiler that a few dependencies (Oniguruma, mozjpeg, zstd, ring) take. Caches stay between builds,
# so the programs leave them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=visual-rl-cpu \
    cargo build --locked --release \
    && mkdir /out \
    && find target/release -maxdepth 1 -type f -executable -exec install -t /out {} +

FROM debian:bookworm-slim
# For rewards in Python: --build-arg PACKAGES="python3 python3-numpy".
ARG PACKAGES=""
# hadolint ignore=DL3008,SC2086
RUN if [ -n "$PACKAGES" ]; then \
      apt-get update && apt-get install -y --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi
# Whoever runs it (--user) may write where a run writes.
RUN useradd --create-home --uid 1000 visual-rl && install -d -m 1777 /work /hub /cache
COPY --from=build /out/ /usr/local/bin/
ENV HF_HOME=/hub XDG_CACHE_HOME=/cache
WORKDIR /work
VOLUME ["/work", "/hub", "/cache"]
USER 1000:1000
# A run writes a checkpoint before it ends: `docker stop --time 300`.
STOPSIGNAL SIGTERM
CMD ["train", "--help"]
