# SPDX-License-Identifier: Apache-2.0
#
# What a table has to say about where it comes from.
import os
import pathlib
import platform
import re
import subprocess


def _first(pattern, path):
    found = re.search(pattern, pathlib.Path(path).read_text(), re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def _output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def available_gib():
    """Memory that can be had now."""
    return int(_first(r"^MemAvailable:\s*(\d+)", "/proc/meminfo")) / 2**20


def cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def facts(server_program, bench, other_program=None):
    """Returns what machine this is, and which programs these are."""
    return {
        "cpu": _first(r"^model name\s*:(.*)$", "/proc/cpuinfo"),
        "cores": cores(),
        "memory_gib": round(int(_first(r"^MemTotal:\s*(\d+)", "/proc/meminfo")) / 2**20, 1),
        "kernel": platform.release(),
        "gpu": _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or "none",
        "server": _output(server_program, "--version"),
        **({"other": _output(other_program, "--version")} if other_program else {}),
        "bench": _output(bench, "--version"),
    }
