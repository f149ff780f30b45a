# Bots, scheduler and operators' commands: no torch. Build from the repository's root:
#   docker build -f deploy/docker/light.Dockerfile -t nocap:light .
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/nocap
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY bots bots
COPY inference inference
COPY nocap nocap
COPY retrain retrain
COPY storage storage
RUN /opt/nocap/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim
# pg_dump and psql, for `nocap db backup` and `restore`; take a newer client where the server is newer.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/nocap --create-home nocap
COPY --from=build /opt/nocap /opt/nocap
ENV PATH=/opt/nocap/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NOCAP_DATA_DIR=/var/lib/nocap \
    NOCAP_METRICS__HOST=0.0.0.0
USER 10001
WORKDIR /var/lib/nocap
VOLUME /var/lib/nocap
ENTRYPOINT ["nocap"]
CMD ["--help"]
