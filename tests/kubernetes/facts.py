# SPDX-License-Identifier: Apache-2.0
#
# What the manifests have to agree with, read where it is decided: the Dockerfile's ports, the names of metrics and of health
# services, the image's name, the version, and the server's own judgement of its flags.
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def exposed_ports():
    """Returns the ports that the image exposes."""
    return {int(port) for line in re.findall(r"^EXPOSE (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
            for port in line.split()}


def metric_names():
    """Returns the name of every metric of the server."""
    return set(re.findall(r'"((?:swiglu|process)_\w+)"', (ROOT / "server/metrics/names.h").read_text()))


def label_values(array):
    """Returns the values in one of the arrays of label values, such as kMemoryKinds."""
    text = re.search(rf"{array} = {{(.*?)}};", (ROOT / "server/metrics/names.h").read_text(), re.DOTALL).group(1)
    return set(re.findall(r'"(\w+)"', text))


def health_services():
    """Returns the names that the health service answers for; the empty one is the server as a whole."""
    text = (ROOT / "server/service/health.cc").read_text()
    return set(re.findall(r'service == "([\w.]+)"', text)) | ({""} if "service.empty()" in text else set())


def image():
    """Returns the name under which README builds and runs the image."""
    readme = (ROOT / "README.md").read_text()
    return re.search(r"^docker build -t (\S+) \.$", readme, re.MULTILINE).group(1)


def version():
    """Returns the project's version."""
    return re.search(r"project\(swiglu VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)


def flag_fault(server, arguments):
    """Returns what the server says against its arguments, None if it takes them all. --help comes after all checks."""
    result = subprocess.run([server, *arguments, "--help"], capture_output=True, text=True, timeout=60, check=False)
    return None if result.returncode == 0 else result.stderr.strip()
