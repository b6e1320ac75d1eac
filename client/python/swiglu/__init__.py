# SPDX-License-Identifier: Apache-2.0
#
# The client of swiglu-server for Python. The calls are those of the C++ library, in the extension module.
"""SwiGLU on a swiglu-server: `swiglu.Client("HOST:PORT").forward(e, g)`."""
import atexit as _atexit
import os as _os

from swiglu import _core
from swiglu._core import CallStatistics, Client, Future, Mlp, SystemRegion, __version__, tune_process
from swiglu._types import (BackwardResult, Code, DeadlineExceededError, Error, InvalidArgumentError, MlpGradients, ModelCounters,
                           ModelInfo, ModelState, RegionInfo, ServerInfo, TensorInfo)

__all__ = [
    "BackwardResult", "CallStatistics", "Client", "Code", "DeadlineExceededError", "Error", "Future", "InvalidArgumentError", "Mlp",
    "MlpGradients", "ModelCounters", "ModelInfo", "ModelState", "RegionInfo", "ServerInfo", "SystemRegion", "TensorInfo",
    "__version__", "tune_process"
]


def _note_main_thread() -> None:
    import threading  # pylint: disable=import-outside-toplevel
    _core._note_main_thread(threading.main_thread().ident)


_note_main_thread()
_os.register_at_fork(after_in_child=_note_main_thread)
_atexit.register(_core._finish_abandoned)
