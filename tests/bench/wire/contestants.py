# SPDX-License-Identifier: Apache-2.0
#
# The servers that a load is put on, as processes that never outlive this one, and the load itself.
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

# How long a server may take to become ready; the rival loads libraries of gigabytes.
READY_S = 120
# How long a load may take beyond anything it is asked for.
LOAD_S = 600
# How long a server may take to end by itself.
STOP_S = 10

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Failure(Exception):
    """A program that does not do what it should, in a sentence."""


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    """Returns a port of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Contestant:
    """A running server. As a context manager it ends with the block, whatever the block did."""

    def __init__(self, name, command, port, environment=None):
        self.name = name
        self.address = f"127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                         env={**os.environ, **(environment or {})}, start_new_session=True,
                                         preexec_fn=_die_with_parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Ends the server and whatever it has started."""
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(STOP_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._log.close()

    @property
    def pid(self):
        """The server's process."""
        return self._process.pid

    def check_runs(self):
        """Raises a Failure with the end of the log if the server has ended."""
        if self._process.poll() is None:
            return
        self._log.seek(0)
        log = "".join(self._log.readlines()[-20:])
        raise Failure(f"{self.name} ended with {self._process.returncode}; the end of its log:\n{log}")


class Load:
    """A run of swiglu-bench against a contestant."""

    def __init__(self, bench, contestant, flags):
        self._contestant = contestant
        command = [str(bench), f"--server={contestant.address}", f"--server_pid={contestant.pid}", "--json", *flags]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, text=True, preexec_fn=_die_with_parent)

    def result(self, timeout_s=LOAD_S):
        """Waits for the end and returns the JSON. Raises a Failure if there is none, and if the server ends first."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                out, err = self._process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    self.stop()
                    raise Failure(f"the load on {self._contestant.name} does not end within {timeout_s} s") from None
            try:
                self._contestant.check_runs()
            except Failure:
                self.stop()
                raise
        if self._process.returncode != 0:
            raise Failure(f"the load on {self._contestant.name} ended with {self._process.returncode}: {err.strip()}")
        return json.loads(out)

    def check_runs(self):
        """Raises a Failure if the load has ended."""
        if self._process.poll() is not None:
            out, err = self._process.communicate()
            raise Failure(f"the load beside, on {self._contestant.name}, ended too early: {err.strip() or out.strip()}")

    def stop(self):
        """Ends the load without a result. It may take a moment to give back its regions."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def wait_ready(bench, contestant):
    """Waits until the server takes requests; raises a Failure if it does not, or ends."""
    Load(bench, contestant, [f"--wait_ready={READY_S}s", "--requests=1", "--warm_up=0", "--in_flight=1",
                             "--connections=1"]).result(READY_S + 10)


def start_echo(bench, request_bytes, threads):
    """Starts the bare echo for requests of those sizes, separated by commas."""
    port = free_port()
    # The wait for readiness asks with 64 KiB.
    sizes = request_bytes if "64KiB" in request_bytes.split(",") else f"{request_bytes},64KiB"
    return Contestant(f"echo T={threads}", [str(bench), f"--serve_echo=127.0.0.1:{port}", f"--echo_threads={threads}",
                                            f"--echo_bytes={sizes}"], port)


def start_server(program, flags, name="server"):
    """Starts the server with its defaults, but for its addresses and `flags`."""
    port = free_port()
    return Contestant(name, [str(program), f"--grpc_address=127.0.0.1:{port}",
                             f"--metrics_address=127.0.0.1:{free_port()}", *flags], port)


def start_rival(folder):
    """Starts the rival's `run` in its folder, which takes the port from the environment."""
    port = free_port()
    return Contestant("rival", [str(pathlib.Path(folder) / "run")], port, {"PORT": str(port)})
