# syntax=docker/dockerfile:1
# Builds the gateway and nothing else into a small image that runs without privileges.
#
#   docker build -t mailweave .
#   docker run --stop-timeout 40 -p 25:2525 -p 587:2587 -p 465:2465 -p 127.0.0.1:8080:8080 \
#     -v mailweave:/var/lib/mailweave -v /etc/mailweave/certs:/certs:ro \
#     -e MAILWEAVE_ADMIN_KEY="$(openssl rand -hex 32)" \
#     -e MAILWEAVE__DOMAINS__CAPTURE=bcc.example.com -e MAILWEAVE__DOMAINS__REPLY=reply.example.com \
#     -e MAILWEAVE__TLS__CERTIFICATE=/certs/fullchain.pem -e MAILWEAVE__TLS__PRIVATE_KEY=/certs/privkey.pem mailweave
#
# Keep the administrator's key: it makes workspaces and their keys. The certificate must be readable by uid 10001; without
# the last two variables the gateway makes a development certificate. Work in hand has 30 s to finish, hence --stop-timeout.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The caches outlive the build, so that a change of code does not compile the dependencies again.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --locked --profile dist --bin mailweave && cp target/dist/mailweave /usr/local/bin/mailweave

FROM debian:bookworm-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/mailweave --shell /usr/sbin/nologin mailweave \
 && install -d -o mailweave -g mailweave -m 0700 /var/lib/mailweave
COPY --from=build /usr/local/bin/mailweave /usr/local/bin/mailweave
COPY config /etc/mailweave/config
# Ports below 1024 need a privilege that the gateway has no other use for.
ENV MAILWEAVE__NODE__DATA_DIR=/var/lib/mailweave \
    MAILWEAVE__SMTP__MX__LISTEN=0.0.0.0:2525 \
    MAILWEAVE__SMTP__SUBMISSION__LISTEN=0.0.0.0:2587 \
    MAILWEAVE__SMTP__SUBMISSIONS__LISTEN=0.0.0.0:2465 \
    MAILWEAVE__HTTP__LISTEN=0.0.0.0:8080 \
    MAILWEAVE__LOG__FORMAT=json
# The commented configuration is read below the working directory.
WORKDIR /etc/mailweave
USER mailweave
VOLUME /var/lib/mailweave
EXPOSE 2525 2587 2465 8080
STOPSIGNAL SIGTERM
# Asks the API; a container without the role "http" is run with --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["mailweave", "health", "--url", "http://127.0.0.1:8080"]
ENTRYPOINT ["mailweave"]
CMD ["serve"]
