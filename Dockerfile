# ViTune in a container, for machines without a GPU (target cpu, about 3 GB) and with one (target cuda, about 8 GB):
#
#   docker build --target cpu --tag vitune:cpu --build-arg PIP_OPTIONS="..." .   (see below)
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" vitune:cpu train digits
#
#   docker build --target cuda --tag vitune:cuda .
#   docker run --rm --gpus all --shm-size 8g --user "$(id -u):$(id -g)" --volume "$PWD:/work" vitune:cuda train folder DATA.DATAPATH photos
#
# The current folder is /work in the container: configs and data are read below it, and ./output is written there.
# --shm-size: several GPUs exchange gradients through shared memory (NCCL), of which Docker gives 64 MB.
#
# CI has no Docker, so the image itself has not been built. The steps of the target cuda were run by hand with Python 3.12
# (uv in place of pip), in an empty folder that held what .dockerignore lets through. The target cpu differs in one option,
# which could not be tried: PyTorch's own index was out of reach.
FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# MODEL.COMPILE needs a compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/vitune
COPY . .

FROM base AS cpu
# Where pip finds PyTorch's CPU wheels: the options that pytorch.org/get-started shows for "Compute Platform: CPU", added to
# PyPI and not in its place.
ARG PIP_OPTIONS
RUN test -n "$PIP_OPTIONS" || { echo "give --build-arg PIP_OPTIONS, from pytorch.org/get-started" >&2; exit 1; }
# Of the same version pip prefers 2.x.y+cpu, which PyPI does not have.
RUN pip install --constraint requirements.lock $PIP_OPTIONS ".[onnx,serve]"
WORKDIR /work
ENTRYPOINT ["vitune"]
CMD ["--help"]

FROM base AS cuda
# PyTorch's wheels on PyPI bring CUDA with them; the host needs only NVIDIA's driver and its container toolkit.
RUN pip install --constraint requirements.lock ".[onnx,serve]"
WORKDIR /work
ENTRYPOINT ["vitune"]
CMD ["--help"]
