# unfool on a CPU, as the command of the container:
#   docker build --tag unfool .
#   docker run --rm --volume "$PWD:/work" --user "$(id -u):$(id -g)" unfool evaluate --model net.py:build --data folder:images
FROM python:3.13-slim AS wheel
WORKDIR /source
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
# Builds of PyTorch from its own index bring no CUDA: the image is a fifth of the size.
ARG TORCH="torch>=2.10,<2.14"
# Extras of the package: --build-arg EXTRAS="[track,hf]"
ARG EXTRAS=""
RUN pip install --no-cache-dir "$TORCH" --index-url https://download.pytorch.org/whl/cpu
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(ls /wheels/unfool-*.whl)$EXTRAS"
# Whoever --user names can write here; HOME may not exist for them.
ENV UNFOOL_CACHE_DIR=/tmp/unfool MPLCONFIGDIR=/tmp/matplotlib OMP_WAIT_POLICY=PASSIVE
RUN useradd --create-home --uid 1000 unfool
USER 1000
WORKDIR /work
ENTRYPOINT ["unfool"]
CMD ["--help"]
