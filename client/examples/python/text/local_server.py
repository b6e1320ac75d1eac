# SPDX-License-Identifier: Apache-2.0
#
# Starts a swiglu-server on this machine that serves a model's MLPs, and stops it. Waits until a server is ready.
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time

from tritonclient.utils import InferenceServerException

WAIT_SECONDS = 60
# A server may take 30 s for requests that it has accepted.
STOP_SECONDS = 40


@contextlib.contextmanager
def running(program, name, folder, device):
    """Runs a server for the length of a block. Gives its address and its process. If it fails, prints the end of its log. A server
    that does not end by itself is killed."""
    with tempfile.TemporaryDirectory() as place:
        address, log = f"unix:{place}/grpc", pathlib.Path(place, "log")
        command = [program, f"--grpc_address={address}", "--metrics_address=", f"--device={device}", f"--mlp={name}={folder}"]
        with open(log, "w") as file:
            process = subprocess.Popen(command, stderr=file)
        try:
            yield address, process
        finally:
            if stop(process) != 0:
                print(*log.read_text().splitlines()[-3:], sep="\n", file=sys.stderr)


def stop(process):
    """The exit code of a process, which is told to end."""
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"the server did not end within {STOP_SECONDS} s and was killed", file=sys.stderr)
        process.kill()
        return process.wait()


def wait_until_ready(client, process=None):
    """Returns when the server has loaded all weights. Fails if that takes too long, or if the server's process ends."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_ready(client):
        if process and process.poll() is not None:
            raise ChildProcessError(f"the server ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server is not ready after {WAIT_SECONDS} s")
        time.sleep(0.02)


def is_ready(client):
    try:
        return client.is_server_ready(client_timeout=5)
    except InferenceServerException:
        return False
