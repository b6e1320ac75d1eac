# SPDX-License-Identifier: Apache-2.0
#
# What a server sees in operation, in a few seconds: every model, small and large requests, tensors in a region, an MLP and new
# weights for it, more than it can hold at once, and callers that ask for what is wrong, unknown, too large or too late, or that go away.
import json
import pathlib
import struct
import subprocess

import plain_grpc
import server_process
from plain_grpc import Connection, field, forward_request, infer_once, infer_request, varint

MODELS = [f"swiglu_{op}_{dtype}" for op in ("forward", "backward") for dtype in ("fp16", "bf16", "fp32")]

# Little memory, so that a small load is too much for it, and a small largest message.
# Requests wait for others, so that one whose timeout is a microsecond is late for sure.
SERVER_FLAGS = ("--memory_budget_bytes=64MiB", "--max_request_bytes=16MiB", "--max_queue_delay=1ms",
                "--system_shared_memory=on")


def bench(server, *flags):
    """Runs swiglu-bench against the server; returns its report."""
    result = server_process.run(server_process.BENCH, f"--server={server.address}", "--json", "--warm_up=0",
                                "--wait_ready=60s", *flags)
    if not result.stdout:
        raise AssertionError(f"swiglu-bench ended with {result.returncode}: {result.stderr}")
    return json.loads(result.stdout)


def write_mlp(path):
    """Writes a small MLP; returns the flags for a server that has it. All weights are zero."""
    names = [f"{part}_proj.weight" for part in ("gate", "up", "down")]
    header = json.dumps({name: {"dtype": "F16", "shape": [8, 8], "data_offsets": [128 * place, 128 * (place + 1)]}
                         for place, name in enumerate(names)}).encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(header)) + header + bytes(128 * len(names)))
    return f"--mlp=tiny={path}", "--mlp_control=on"


class SteadyLoad:
    """A small load of one model beside all else, until the end of the block."""

    def __init__(self, server, model):
        self._process = subprocess.Popen(
            [server_process.BENCH, f"--server={server.address}", f"--model={model}", "--connections=2",
             "--request_bytes=16KiB*9,256KiB", "--rate=100", "--duration=10m", "--wait_ready=60s"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is not None:
            raise AssertionError(f"the steady load ended by itself, with {self._process.returncode}")
        self._process.kill()
        self._process.wait()


def serve_every_model(server, duration):
    """Small requests and now and then a larger one, of each model for `duration`."""
    for model in MODELS:
        report = bench(server, f"--model={model}", "--request_bytes=16KiB*30,256KiB*3,2MiB", "--connections=4",
                       "--rate=200", f"--duration={duration}")
        if report["requests"] == 0:
            raise AssertionError(f"{model}: nothing was served: {report}")


def overload(server, duration):
    """More large requests at once than the memory budget has room for."""
    report = bench(server, "--request_bytes=8MiB", "--connections=16", "--in_flight=16", f"--duration={duration}")
    if "UNAVAILABLE" not in report["errors"]:
        raise AssertionError(f"nothing was refused: {report}")


def share_memory(server):
    """Requests with tensors in a region, for long enough to be scraped a few times."""
    report = bench(server, "--shared_memory=system", "--request_bytes=64KiB", "--rate=100", "--duration=4s")
    if report["requests"] == 0:
        raise AssertionError(f"nothing was served from a region: {report}")


def use_mlp(server, path):
    """Requests for the MLP that `write_mlp` wrote to `path`, a load of new weights, and one that fails."""
    rows = bytes(2 * 8 * 5)
    for name, tensors in (("forward", {"x": rows}), ("backward", {"x": rows, "dy": rows})):
        code, sentence = infer_once(server.address, infer_request(f"mlp_tiny_0_{name}", "FP16", [5, 8], tensors))
        if code != plain_grpc.OK:
            raise AssertionError(f"the MLP's {name} ended with {code}: {sentence}")
    load = "/inference.GRPCInferenceService/RepositoryModelLoad"
    if plain_grpc.call_once(server.address, load, field(2, "mlp_tiny")) is None:
        raise AssertionError("the weights of the MLP were not loaded")
    pathlib.Path(path).write_bytes(b"")
    if plain_grpc.call_once(server.address, load, field(2, "mlp_tiny")) is not None:
        raise AssertionError("weights were loaded from an empty file")


def make_mistakes(server):
    """One caller after the other that gets another code than OK."""
    address, good = server.address, forward_request()
    hurried = field(4, field(1, "timeout") + field(2, b"\x10" + varint(1)))
    expected = {
        "INVALID_ARGUMENT": infer_request("swiglu_forward_fp32", "FP32", [4], {"e": bytes(16), "wrong": bytes(16)}),
        "NOT_FOUND": infer_request("nothing_of_the_kind", "FP32", [4], {"e": bytes(16), "g": bytes(16)}),
        "DEADLINE_EXCEEDED": hurried + forward_request(1500),
    }
    codes = {"INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5, "RESOURCE_EXHAUSTED": 8}
    for name, message in expected.items():
        code, sentence = infer_once(address, message)
        if code != codes[name]:
            raise AssertionError(f"{name} was expected, not {code}: {sentence}")
    if plain_grpc.call_once(address, "/inference.GRPCInferenceService/SystemSharedMemoryRegister", field(1, "r")) is not None:
        raise AssertionError("a region without bytes was registered")
    too_large = infer_once(address, good, [("swiglu-request-bytes", str(1 << 30))])
    if too_large[0] != codes["RESOURCE_EXHAUSTED"]:
        raise AssertionError(f"a request of 1 GiB ended with {too_large}")
    with Connection(address) as connection:
        for _ in range(20):
            call = connection.open(plain_grpc.INFER)
            call.send(good)
            call.reset()
