# The embedded server and retrains. Build from the repository's root, with the torch build for your card or for a CPU:
#   docker build -f deploy/docker/model.Dockerfile -t nocap:model .
#   docker build -f deploy/docker/model.Dockerfile -t nocap:model --build-arg TORCH='torch==2.13.0' .
FROM python:3.12-slim AS build
ARG TORCH=torch==2.13.0
WORKDIR /src
RUN python -m venv /opt/nocap \
    && /opt/nocap/bin/pip install --no-cache-dir "${TORCH}"
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY bots bots
COPY inference inference
COPY nocap nocap
COPY retrain retrain
COPY storage storage
# The torch that is there stays: a constraint on it would replace a build for another driver.
RUN grep -v '^torch==' constraints.txt > kept.txt \
    && /opt/nocap/bin/pip install --no-cache-dir -c kept.txt '.[model]'

FROM python:3.12-slim
# bitsandbytes and triton compile small kernels when first used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev postgresql-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/nocap --create-home nocap
COPY --from=build /opt/nocap /opt/nocap
ENV PATH=/opt/nocap/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HOME=/var/lib/nocap/huggingface \
    TRITON_CACHE_DIR=/tmp/triton \
    NOCAP_DATA_DIR=/var/lib/nocap \
    NOCAP_METRICS__HOST=0.0.0.0 \
    NOCAP_INFERENCE__HOST=0.0.0.0
USER 10001
WORKDIR /var/lib/nocap
VOLUME /var/lib/nocap
ENTRYPOINT ["nocap"]
CMD ["serve"]
