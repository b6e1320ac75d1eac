# SPDX-License-Identifier: Apache-2.0
#
# Runs containers for the tests of the image; works inside `engine.sh run`.
import json
import subprocess
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
