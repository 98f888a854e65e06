# mt on an NVIDIA GPU, for one user without root rights:
#
#   docker build -t mt .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" mt featurize --model dino --dataset folder:photos
#
# The feature cache, weights and scores are kept in /data/.mt, which is in the mounted folder.
FROM python:3.12-slim-bookworm AS build
# git tells the version.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git=1:2.39.* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# torch's wheels bring the CUDA runtime; the driver comes from the host.
FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[offline,dicom,tables,hub]" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 mt
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HOME=/data/.mt
USER 1000
WORKDIR /data
ENTRYPOINT ["mt"]
CMD ["--help"]
