FROM golang:1.26 AS build
WORKDIR /src

# The modules change less often than the code: they get a layer of their own.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
ARG VERSION=dev
ARG COMMIT=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" \
      -o /out/stent ./cmd/stent

# The chat that ships, for deploy/compose.chat.yaml; left out unless its target
# is asked for.
FROM build AS build-chat
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o /out/chat ./cmd/chat && mkdir /out/data

FROM scratch AS chat
LABEL org.opencontainers.image.title="stent-chat" \
      org.opencontainers.image.description="A chat backend to run behind stent" \
      org.opencontainers.image.source="https://github.com/stentproxy/stent" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build-chat /out/chat /chat
# A volume that is mounted here belongs to the user below.
COPY --from=build-chat --chown=65532:65532 /out/data /data
USER 65532:65532
VOLUME /data
EXPOSE 9000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/chat"]
CMD ["backend", "--listen", ":9000", "--db", "/data/chat.db"]

FROM scratch
ARG VERSION=dev
ARG COMMIT=
LABEL org.opencontainers.image.title="stent" \
      org.opencontainers.image.description="WebSocket edge proxy with a supervised worker for each client" \
      org.opencontainers.image.source="https://github.com/stentproxy/stent" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"

# wss:// and https:// targets are verified against these.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/stent /stent

# serve reads stent.yaml of its working directory, unless STENT_TO is set:
#   docker run -v "$PWD/stent.yaml:/etc/stent/stent.yaml:ro" -p 4000:4000 stent
#   docker run -e STENT_TO=ws://backend:9000 -p 4000:4000 stent
WORKDIR /etc/stent
USER 65532:65532
EXPOSE 4000 4001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/stent", "health"]
ENTRYPOINT ["/stent"]
CMD ["serve"]
