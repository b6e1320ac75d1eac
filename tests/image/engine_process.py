# SPDX-License-Identifier: Apache-2.0
#
# Runs containers for the tests of the image; works inside `engine.sh run`.
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

# Far beyond what any step takes, so that only a hang reaches it.
DEADLINE_S = 120

# What README.md and the Kubernetes manifests ask for too.
HARDENED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")


def run(*command, **options):
    """Runs a program to its end and returns subprocess's CompletedProcess, with text."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S, **options)


def podman(*arguments):
    """Runs podman and returns what it prints; an error is an AssertionError with its words."""
    done = run("podman", *arguments)
    if done.returncode != 0:
        raise AssertionError(f"podman {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def inspect(kind, name):
    """Returns podman's description of an image or a container."""
    return json.loads(podman(kind, "inspect", name))[0]


def wait_until_healthy(container):
    """Asks the container's own health check until it says that it serves; fails when the container has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while run("podman", "healthcheck", "run", container).returncode != 0:
        if inspect("container", container)["State"]["Status"] != "running" or time.monotonic() > deadline:
            raise AssertionError(f"{container} does not serve:\n{logs(container)}")


def logs(container):
    """Returns what a container has written to either stream."""
    done = run("podman", "logs", container)
    return done.stdout + done.stderr


class Container:
    """A container of the image that runs in the background; removed at the end of the block, whatever the block did."""

    def __init__(self, name, *arguments):
        self.name = name
        podman("run", "--detach", f"--name={name}", *arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run("podman", "rm", "--force", "--time=0", self.name)


class Service:
    """podman's service of docker's protocol, for as long as the block lasts; programs find it by `environment`."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self._folder.name, "docker.sock")
        self.environment = os.environ | {"DOCKER_HOST": f"unix://{path}", "DOCKER_BUILDKIT": "0"}
        # podman takes over a socket that listens already, as from systemd, so nobody has to wait for it.
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            inherited = listener.fileno()
            self._process = subprocess.Popen(
                ["sh", "-c", f"exec env LISTEN_PID=$$ LISTEN_FDS=1 podman system service --time=0 3<&{inherited}"],
                pass_fds=[inherited], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(DEADLINE_S)
        self._folder.cleanup()
