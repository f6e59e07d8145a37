# The flows and the services in one image (docs/containers.md):
#   docker build -t sgpo .                                  for the CPU
#   docker build -t sgpo:gpu --build-arg EXTRA=gpu .        for NVIDIA GPUs
FROM debian:bookworm-slim
ARG EXTRA=cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ libnuma1 make python3.11-dev python3.11-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/sgpo
COPY Makefile ./
COPY requirements requirements
RUN make setup EXTRA=${EXTRA} \
    && .venv/bin/uv pip install --quiet --no-deps --python .venv/bin/python -r requirements/team.txt \
    && rm -rf /root/.cache
# Compiled ops are looked at under a lock; all else belongs to root.
RUN useradd --create-home --uid 1000 sgpo \
    && install --directory --owner sgpo --group sgpo /data \
    && chown --recursive sgpo:sgpo .venv/torch_extensions
COPY . .
ARG COMMIT=""
ENV PATH=/opt/sgpo/.venv/bin:$PATH SGPO_HOME=/data SGPO_COMMIT=${COMMIT} \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER sgpo
VOLUME /data
CMD ["sgpo", "--help"]
