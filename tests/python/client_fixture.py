# SPDX-License-Identifier: Apache-2.0
#
# What the tests of the Python client have in common: the helpers of tests/wire, a server with a client for each class, random arrays,
# and a peer that takes connections and never answers.
import ctypes
import pathlib
import socket
import subprocess
import sys
import threading

import ml_dtypes
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/wire"))
import contract  # noqa: E402
import swiglu  # noqa: E402
from server_process import DEADLINE_S, ServerTest  # noqa: E402

BF16 = numpy.dtype(ml_dtypes.bfloat16)
# The dtypes of NumPy, by those of the contract.
DTYPES = {contract.FP16: numpy.dtype("float16"), contract.BF16: BF16, contract.FP32: numpy.dtype("float32")}


def random_arrays(count, shape=(3, 37), dtype="float32", seed=1):
    """So many arrays of random numbers."""
    source = numpy.random.default_rng(seed)
    return [source.normal(0, 2, shape).astype(dtype) for _ in range(count)]


class ClientTest(ServerTest):
    """A server for the class, and a client of it for each test."""

    def setUp(self):
        self.client = swiglu.Client(self.server.address)
        self.addCleanup(self.client.close)

    def assert_same(self, found, expected):
        """Two arrays have the same dtype, shape and bits."""
        self.assertEqual((found.dtype, found.shape), (expected.dtype, expected.shape))
        self.assertEqual(found.tobytes(), expected.tobytes())

    def assert_code(self, code, call, *arguments, **options):
        """A call raises swiglu.Error with that code; returns the exception."""
        with self.assertRaises(swiglu.Error) as raised:
            call(*arguments, **options)
        self.assertIs(raised.exception.code, code, raised.exception)
        return raised.exception


class FakeGpuArray:
    """An array of floats that DLPack places on a GPU. It has no memory there, so only one without elements can be sent."""

    class _Tensor(ctypes.Structure):
        """DLManagedTensor of DLPack."""
        _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device", ctypes.c_int32), ("num_dims", ctypes.c_int32),
                    ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                    ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
                    ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]

    def __init__(self, *shape, bits=32):
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._tensor = self._Tensor(device_type=2, num_dims=len(shape), code=2, bits=bits, lanes=1, shape=self._shape)

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **_):
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return make(ctypes.addressof(self._tensor), b"dltensor", None)


class SilentPeer:
    """Takes connections, reads what comes, and never answers. As a context manager it ends with the block."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections = []
        self._is_connected = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self):
        """What a client connects to."""
        return "127.0.0.1:%d" % self._listener.getsockname()[1]

    def wait_for_connection(self):
        """Waits until a client has connected."""
        if not self._is_connected.wait(DEADLINE_S):
            raise AssertionError("no client has connected")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE_S)
        for connection in self._connections:
            connection.close()

    def _accept(self):
        try:
            while True:
                self._connections.append(self._listener.accept()[0])
                self._is_connected.set()
        except OSError:
            return


class Relay:
    """Takes one connection and hands bytes on between it and a server, by threads of this process. As a context manager it ends with
    the block."""

    def __init__(self, address):
        self._host, _, self._port = address.rpartition(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self):
        """What a client connects to."""
        return "127.0.0.1:%d" % self._listener.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        for end in self._ends:
            end.close()

    def _accept(self):
        self._ends = [self._listener.accept()[0], socket.create_connection((self._host, self._port))]
        for source, sink in (self._ends, reversed(self._ends)):
            self._threads.append(threading.Thread(target=self._hand_on, args=(source, sink), daemon=True))
            self._threads[-1].start()

    @staticmethod
    def _hand_on(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return


def start_python(code, *arguments):
    """Starts this interpreter on code of its own; its stdout and stderr are pipes of text."""
    return subprocess.Popen([sys.executable, "-B", "-c", code, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def run_script(path, *arguments):
    """Runs a file to its end. Returns the exit code, stdout and stderr."""
    result = subprocess.run([sys.executable, "-B", path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=DEADLINE_S, check=False)
    return result.returncode, result.stdout, result.stderr


def run_python(code, *arguments):
    """The same for code."""
    process = start_python(code, *arguments)
    said, complained = process.communicate(timeout=DEADLINE_S)
    return process.returncode, said, complained
