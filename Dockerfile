# The server and the command as an image of nothing but them, their libraries and the public certificates: built from a clean
# base with the packages of deploy/setup.sh and the pinned CUDA compiler of deploy/fetch_cuda.sh. Runs with or without a GPU.
# docs/operations/image.md says what is in it and how to build it bit for bit; README.md how to run it.
ARG BASE=docker.io/library/debian:bookworm-slim
ARG RUNTIME_BASE=scratch

FROM ${BASE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY deploy/setup.sh deploy/fetch_cuda.sh deploy/find_cuda.sh deploy/cuda-requirements.txt deploy/
RUN deploy/setup.sh build
# ON: with CUDA. OFF: the CPU alone.
ARG SWIGLU_ENABLE_CUDA=ON
RUN deploy/find_cuda.sh
COPY . .
# What --version and the labels report; the time in the bill of materials, in seconds; files compiled at a time.
ARG SWIGLU_COMMIT=unknown
ARG SOURCE_DATE_EPOCH=0
ARG JOBS
# A folder of compiled objects may be mounted at /ccache.
ENV CCACHE_DIR=/ccache
RUN deploy/build.sh image swiglu_server swiglu_cli && deploy/image/assemble.sh build/image /image

FROM ${RUNTIME_BASE}
ARG SWIGLU_COMMIT=unknown
LABEL org.opencontainers.image.title="swiglu" \
      org.opencontainers.image.description="SwiGLU as a service: a gRPC server for NVIDIA GPUs and CPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${SWIGLU_COMMIT}"
COPY --from=build /image /
# The driver's libraries come from the host; container runtimes mount them into one of these folders.
ENV PATH=/opt/swiglu/bin \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/lib/x86_64-linux-gnu:/usr/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --timeout=3s CMD ["/opt/swiglu/bin/swiglu-server", "--health"]
ENTRYPOINT ["/opt/swiglu/bin/swiglu-server"]
CMD ["--grpc_address=0.0.0.0:8001", "--metrics_address=0.0.0.0:8002"]
