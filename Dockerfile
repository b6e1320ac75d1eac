# The server and the client as an image: built from a clean base with the packages of deploy/setup.sh and the pinned CUDA
# compiler of deploy/fetch_cuda.sh, then copied as one folder. Runs with or without a GPU; needs no CUDA in the image.
#
#   docker build -t swiglu .
#   docker run --rm --gpus all -p 8001:8001 -p 8002:8002 swiglu
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
COPY deploy/setup.sh deploy/fetch_cuda.sh deploy/find_cuda.sh deploy/cuda-requirements.txt deploy/
RUN deploy/setup.sh build
# ON: with CUDA. OFF: the CPU alone.
ARG SWIGLU_ENABLE_CUDA=ON
RUN deploy/find_cuda.sh
COPY . .
RUN deploy/build.sh release && cmake --install build/release --strip --prefix /opt/swiglu

FROM ${BASE}
COPY --from=build /opt/swiglu/bin /opt/swiglu/bin
COPY --from=build /opt/swiglu/lib /opt/swiglu/lib
ENV PATH=/opt/swiglu/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --timeout=3s CMD ["/opt/swiglu/bin/swiglu-server", "--health"]
ENTRYPOINT ["/opt/swiglu/bin/swiglu-server"]
CMD ["--grpc_address=0.0.0.0:8001", "--metrics_address=0.0.0.0:8002"]
