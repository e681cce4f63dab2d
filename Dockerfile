# jitauth in a container: built from the sources, run as nobody in particular, with nothing but glibc around it.
#
#   docker build --build-arg REVISION=$(git describe --always --abbrev=12 --dirty --exclude='*') -t jitauth .
#   docker run --read-only -e JITAUTH_PROFILE=production … jitauth

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
# Without the history, git cannot be asked which commit this is.
ARG REVISION=
# The toolchain is the image's own, whatever rust-toolchain.toml would fetch.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    rm -f rust-toolchain.toml && JITAUTH_COMMIT="$REVISION" cargo build --release --locked --bin jitauth && \
    cp target/release/jitauth /usr/local/bin/jitauth && strip /usr/local/bin/jitauth

FROM debian:12.11-slim
RUN install -d -o 65532 -g 65532 /var/lib/jitauth
COPY --from=build /usr/local/bin/jitauth /usr/local/bin/jitauth
USER 65532:65532
# With the embedded profile the database file lies here; mount a volume.
WORKDIR /var/lib/jitauth
ENV JITAUTH_LOG__FORMAT=json
EXPOSE 8080
# The drain takes 20 s at most (pipeline.drain_timeout_ms): give the container 30 s or more to stop.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 CMD ["jitauth", "health"]
ENTRYPOINT ["jitauth"]
CMD ["serve"]
