# SPDX-License-Identifier: Apache-2.0
#
# The types of the extension module, and what its names do. Arrays are what README.md of client/python lists. A time is a number of
# seconds.
from types import TracebackType
from typing import Any, Generator, Generic, Iterable, Optional, Sequence, Type, TypeVar, Union

import numpy

from swiglu._types import BackwardResult, MlpGradients, ModelCounters, ModelInfo, ModelState, RegionInfo, ServerInfo

# NumPy's arrays, tensors of PyTorch, or objects with DLPack, the buffer protocol or the array interface. A result is a torch.Tensor
# on the same device if the first input is one, and a numpy.ndarray otherwise.
Array = Any
Result = TypeVar("Result", covariant=True)

__version__: str

class CallStatistics:
    """What happened to a call. Filled before the call returns, or when the result of its future is taken."""

    def __init__(self) -> None: ...
    @property
    def num_messages(self) -> int:
        """Messages sent for it: retries, second attempts and chunks count."""
    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...
    @property
    def num_joined(self) -> int:
        """Calls that shared the message, this one included."""
    @property
    def server(self) -> str:
        """The address of the server that answered last."""
    @property
    def queue_time(self) -> Optional[float]:
        """In the server, from the request's arrival to the start of its batch. None if the server has not told."""
    @property
    def compute_time(self) -> Optional[float]:
        """From there to the batch's end."""
    @property
    def weights_sha256(self) -> str:
        """Which weights computed the result of an MLP. Empty for other calls."""

class Future(Generic[Result]):
    """The result of a call that may not have ended. `await` it in a coroutine, or ask for the result in any thread. If it is
    destroyed before the call has ended, the call is cancelled."""

    def result(self, timeout: Optional[float] = None) -> Result:
        """Waits, and returns the result or raises the call's exception. Raises TimeoutError if the call has not ended after
        `timeout`. The call then goes on."""
    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """The same, but returns the call's exception, or None if it succeeded."""
    def done(self) -> bool:
        """Whether the call has ended."""
    def cancel(self) -> bool:
        """Asks the call to end. It ends soon with the code CANCELLED, unless it has been sent together with others or has just
        ended. False if it had ended before."""
    def __await__(self) -> Generator[Any, None, Result]: ...
    def _watch(self, notifier: Notifier, id: int) -> None: ...

class Notifier:
    """Wakes an event loop. For swiglu/_aio.py."""

    def __init__(self) -> None: ...
    def fileno(self) -> int: ...
    def take(self) -> list[int]: ...

class SystemRegion:
    """Memory that the client and a server on the same host share. Unregistered when the region and all of its arrays are gone."""

    @property
    def name(self) -> str:
        """The name at the server."""
    @property
    def size_bytes(self) -> int: ...
    def array(self, shape: Union[int, Sequence[int]], dtype: Any = "float32", offset: int = 0) -> numpy.ndarray:
        """A NumPy array of the region's memory from byte `offset` on. Calls with it move no bytes."""
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Mlp:
    """One layer of an MLP at the server. Client.mlp makes it. x has the shape [..., H], where H is the hidden size. Each call has
    the options of Client.forward."""

    @property
    def name(self) -> str: ...
    @property
    def layer(self) -> int: ...
    @property
    def forward_model(self) -> str:
        """The name of the layer's forward model at the server."""
    @property
    def backward_model(self) -> str: ...
    def forward(self, x: Array, *, out: Optional[Array] = None, timeout: Optional[float] = None, request_id: str = "",
                traceparent: str = "", priority: int = 0, statistics: Optional[CallStatistics] = None) -> Array:
        """y = (SiLU(x Wg^T) * (x Wu^T)) Wd^T."""
    def forward_async(self, x: Array, *, out: Optional[Array] = None, timeout: Optional[float] = None, request_id: str = "",
                      traceparent: str = "", priority: int = 0, statistics: Optional[CallStatistics] = None) -> Future[Array]: ...
    def backward(self, x: Array, dy: Array, *, out: Optional[Array] = None, timeout: Optional[float] = None, request_id: str = "",
                 traceparent: str = "", priority: int = 0, statistics: Optional[CallStatistics] = None) -> Array:
        """dx, the gradient with respect to x, where dy is the gradient with respect to y."""
    def backward_async(self, x: Array, dy: Array, *, out: Optional[Array] = None, timeout: Optional[float] = None,
                       request_id: str = "", traceparent: str = "", priority: int = 0,
                       statistics: Optional[CallStatistics] = None) -> Future[Array]: ...
    def gradients(self, x: Array, dy: Array, *, out: Optional[Sequence[Array]] = None, timeout: Optional[float] = None,
                  request_id: str = "", traceparent: str = "", priority: int = 0,
                  statistics: Optional[CallStatistics] = None) -> MlpGradients:
        """dx, and the gradients with respect to the layer's matrices. `out` has all four arrays."""

class Client:
    """A client of one server, or of several that are alike. Any number of threads may call it. It connects when it is first
    used. The options are those of the C++ library (swiglu/options.h), with its defaults."""

    def __init__(self, address: str, *, timeout: Optional[float] = None, num_connections: int = 0,
                 max_message_bytes: int = 2147483647, chunk_bytes: int = 33554432, max_attempts: int = 4, retry_budget: float = 0.1,
                 coalesce_bytes: int = 65536, hedge_delay: float = 0.0, streams: bool = True, spin: bool = False,
                 server_device: int = -1) -> None:
        """`address` is HOST:PORT, unix:/path, several of these with commas between them, or dns:///NAME:PORT. `server_device` is the
        server's number of the GPU that tensors are on; -1: that of this process."""
    @property
    def address(self) -> str: ...
    def close(self) -> None:
        """Drops the connections. Waits for calls that other threads run. Calls afterwards are FAILED_PRECONDITION."""
    def __enter__(self) -> Client: ...
    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 traceback: Optional[TracebackType]) -> None: ...
    def forward(self, e: Array, g: Array, *, out: Optional[Array] = None, timeout: Optional[float] = None, request_id: str = "",
                traceparent: str = "", priority: int = 0, statistics: Optional[CallStatistics] = None) -> Array:
        """h = SiLU(e) * g. `out` is written instead of a new array, and returned; it may be e. `timeout` overrides that of the
        client. `request_id` and `traceparent` are sent as metadata. The server takes lower priorities first; 0 is its default."""
    def forward_async(self, e: Array, g: Array, *, out: Optional[Array] = None, timeout: Optional[float] = None,
                      request_id: str = "", traceparent: str = "", priority: int = 0,
                      statistics: Optional[CallStatistics] = None) -> Future[Array]:
        """The same, but does not wait for the server."""
    def forward_many(self, calls: Iterable[Sequence[Array]], *, out: Optional[Sequence[Optional[Array]]] = None,
                     timeout: Optional[float] = None, return_exceptions: bool = False) -> list[Any]:
        """Makes one call for each (e, g), many at once, and returns the results in this order. If a call fails, raises the first
        exception when all have ended, or with `return_exceptions` returns the exceptions in the places of the results. All calls
        have the `timeout` together."""
    def forward_many_async(self, calls: Iterable[Sequence[Array]], *, out: Optional[Sequence[Optional[Array]]] = None,
                           timeout: Optional[float] = None, return_exceptions: bool = False) -> Future[list[Any]]:
        """The same, but does not wait for the server."""
    def backward(self, dw: Array, e: Array, g: Array, *, out: Optional[Sequence[Optional[Array]]] = None,
                 timeout: Optional[float] = None, request_id: str = "", traceparent: str = "", priority: int = 0,
                 statistics: Optional[CallStatistics] = None) -> BackwardResult:
        """h, and the gradients df with respect to g and de with respect to e, where dw is the gradient with respect to h. `out`
        has an array or None for each of h, df and de; they may be dw, e and g."""
    def backward_async(self, dw: Array, e: Array, g: Array, *, out: Optional[Sequence[Optional[Array]]] = None,
                       timeout: Optional[float] = None, request_id: str = "", traceparent: str = "", priority: int = 0,
                       statistics: Optional[CallStatistics] = None) -> Future[BackwardResult]: ...
    def backward_many(self, calls: Iterable[Sequence[Array]], *, out: Optional[Sequence[Optional[Sequence[Optional[Array]]]]] = None,
                      timeout: Optional[float] = None, return_exceptions: bool = False) -> list[Any]: ...
    def backward_many_async(self, calls: Iterable[Sequence[Array]], *,
                            out: Optional[Sequence[Optional[Sequence[Optional[Array]]]]] = None, timeout: Optional[float] = None,
                            return_exceptions: bool = False) -> Future[list[Any]]: ...
    def mlp(self, name: str, layer: int) -> Mlp:
        """Layer `layer` of the MLP that the server calls `name`. Sends nothing."""
    def system_region(self, size_bytes: int, *, name: str = "", file_prefix: str = "swiglu-", mode: int = 384,
                      timeout: Optional[float] = None) -> SystemRegion:
        """A new region of shared memory, all zero. The server needs --system_shared_memory=on."""
    def release_gpu_memory(self) -> None:
        """Unregisters all memory of GPUs that calls have used. No call may use any of it meanwhile."""
    def list_system_regions(self, *, timeout: Optional[float] = None) -> list[RegionInfo]: ...
    def list_cuda_regions(self, *, timeout: Optional[float] = None) -> list[RegionInfo]: ...
    def server_live(self, *, timeout: Optional[float] = None) -> bool:
        """Whether no device of the server has failed for good."""
    def server_ready(self, *, timeout: Optional[float] = None) -> bool:
        """Whether the server takes requests."""
    def model_ready(self, model: str, *, timeout: Optional[float] = None) -> bool: ...
    def server_metadata(self, *, timeout: Optional[float] = None) -> ServerInfo: ...
    def model_metadata(self, model: str, *, timeout: Optional[float] = None) -> ModelInfo: ...
    def list_models(self, *, timeout: Optional[float] = None) -> list[ModelState]: ...
    def model_statistics(self, model: str = "", *, timeout: Optional[float] = None) -> list[ModelCounters]:
        """The counters of one model, or of every model."""

def tune_process() -> None:
    """Sets the whole process up for large messages, as the first statement of a program: it keeps freed memory for reuse, so that
    throughput doubles, and the memory that it has in use stays at its highest."""

def _note_main_thread(ident: int) -> None: ...
def _finish_abandoned() -> None: ...
