# SPDX-License-Identifier: Apache-2.0
#
# What calls return beside arrays, and what they raise. The extension module makes them.
import enum
from typing import Any, Dict, List, NamedTuple, Tuple


class Code(enum.IntEnum):
    """Why a call failed: the codes of gRPC."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Error(Exception):
    """A call that failed. The code decides what to do; the message is for people."""

    def __init__(self, message: str, code: Code) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class InvalidArgumentError(Error, ValueError):
    """INVALID_ARGUMENT: dtypes, shapes or sizes do not fit each other, or an option is out of range."""


class DeadlineExceededError(Error, TimeoutError):
    """DEADLINE_EXCEEDED: the timeout has passed."""


_CLASSES = {Code.INVALID_ARGUMENT: InvalidArgumentError, Code.DEADLINE_EXCEEDED: DeadlineExceededError}


def make_error(number: int, message: str) -> Error:
    """The exception for the number of a code."""
    code = Code(number)
    return _CLASSES.get(code, Error)(message, code)


class BackwardResult(NamedTuple):
    """What Client.backward returns."""

    h: Any  # SiLU(e) * g, as Client.forward returns it
    df: Any  # the gradient with respect to g (up)
    de: Any  # the gradient with respect to e (gate)


class MlpGradients(NamedTuple):
    """What Mlp.gradients returns. The gradients of the matrices are sums over the tokens of the call, in float32."""

    dx: Any
    d_gate_proj: Any  # [I, H]
    d_up_proj: Any  # [I, H]
    d_down_proj: Any  # [H, I]


class ServerInfo(NamedTuple):
    """What the server reports about itself."""

    name: str
    version: str
    extensions: List[str]


class TensorInfo(NamedTuple):
    """One input or output of a model."""

    name: str
    datatype: str
    shape: Tuple[int, ...]  # -1: any size


class ModelInfo(NamedTuple):
    """What the server reports about a model."""

    name: str
    platform: str
    versions: List[str]
    inputs: List[TensorInfo]
    outputs: List[TensorInfo]
    properties: Dict[str, str]  # "device" names the device that the model runs on


class ModelState(NamedTuple):
    """One entry of the server's list of models."""

    name: str
    version: str
    state: str  # READY or UNAVAILABLE
    reason: str  # why it is UNAVAILABLE


class ModelCounters(NamedTuple):
    """What the server has counted for a model since it started. Times are seconds, and sums over the requests that succeeded."""

    name: str
    version: str
    num_requests: int
    num_batches: int
    num_succeeded: int
    num_failed: int
    request_time: float
    queue_time: float
    compute_time: float


class RegionInfo(NamedTuple):
    """A region of shared memory that is registered at the server."""

    name: str
    size_bytes: int


class Memory:
    """Bytes that the extension module has allocated, for NumPy to look into."""

    def __init__(self, address: int, size_bytes: int, owner: object) -> None:
        self._owner = owner
        self.__array_interface__ = {"version": 3, "data": (address, False), "shape": (size_bytes,), "typestr": "|u1"}
