# Four images from one source: server, node, api and dashboard. Build one with: docker build --target server .
# Each runs as a fixed user without rights, needs no writable root file system, and keeps its state under
# /var/lib/aevorium. docs/DEPLOYMENT.md says what belongs there.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# The package, built once. Nothing of this stage but the wheel goes further.
FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM ${PYTHON_IMAGE} AS base
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    AEVORIUM_WORKSPACE=/var/lib/aevorium/workspace \
    AEVORIUM_KEY_FILE=/var/lib/aevorium/keys/checkpoint.key \
    AEVORIUM_AUDIT_KEY_FILE=/var/lib/aevorium/audit/audit.key \
    AEVORIUM_NODE_HOME=/var/lib/aevorium/node
# A new volume takes over owner and mode of the folder that it is mounted on: no step as root is needed for it.
RUN groupadd --gid 10001 aevorium \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin aevorium \
    && for folder in workspace keys audit public enrolled node; do \
         install -d -o 10001 -g 10001 -m 0700 "/var/lib/aevorium/${folder}" || exit 1; \
       done
WORKDIR /opt/aevorium
COPY deploy/health.py deploy/setup.py ./
# SIGINT is Ctrl-C: a server finishes the exchange that goes on and lets its nodes go.
STOPSIGNAL SIGINT
LABEL org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

# PyTorch alone comes from its own index, the one that has builds without CUDA, 2 GB smaller. For a GPU give another
# of PyTorch's indices with --build-arg TORCH_INDEX=...
FROM base AS torch
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m pip install --index-url "${TORCH_INDEX}" "torch==${TORCH_VERSION}"

FROM torch AS server
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    python -m pip install "$(echo /dist/*.whl)[server,api,postgresql]"
LABEL org.opencontainers.image.title="aevorium-server" \
      org.opencontainers.image.description="Conducts studies; sees what nodes release, never a record"
USER 10001:10001
EXPOSE 8091
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 CMD ["python", "/opt/aevorium/health.py", "server"]
ENTRYPOINT ["aevorium"]
CMD ["server", "--queue", "--host", "0.0.0.0"]

FROM torch AS node
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    python -m pip install "$(echo /dist/*.whl)[node]"
LABEL org.opencontainers.image.title="aevorium-node" \
      org.opencontainers.image.description="Holds one table and answers within its steward's policy"
USER 10001:10001
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=8 CMD ["python", "/opt/aevorium/health.py", "node"]
ENTRYPOINT ["aevorium"]
CMD ["node", "--authority", "/var/lib/aevorium/public/ca.crt"]

FROM torch AS api
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    python -m pip install "$(echo /dist/*.whl)[api,postgresql]"
LABEL org.opencontainers.image.title="aevorium-api" \
      org.opencontainers.image.description="Serves what has passed a gate over HTTP"
ENV AEVORIUM_API_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=4 CMD ["python", "/opt/aevorium/health.py", "api"]
ENTRYPOINT ["aevorium"]
CMD ["api", "--no-worker"]

FROM base AS dashboard
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    python -m pip install "$(echo /dist/*.whl)[dashboard]"
LABEL org.opencontainers.image.title="aevorium-dashboard" \
      org.opencontainers.image.description="Shows what the API serves"
USER 10001:10001
EXPOSE 8501
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=4 CMD ["python", "/opt/aevorium/health.py", "dashboard"]
ENTRYPOINT ["aevorium"]
CMD ["dashboard", "--host", "0.0.0.0"]
