# SPDX-License-Identifier: Apache-2.0
#
# A machine whose first process is systemd, in namespaces of this one: for the tests of packages. Works inside
# `tests/image/engine.sh build`, as root.
import pathlib
import subprocess
import time

# Far beyond what any step takes, so that only a hang reaches it.
DEADLINE_S = 120

IMAGE = "localhost/swiglu-systemd"
HERE = pathlib.Path(__file__).resolve().parent
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def output(*command):
    """Runs a program and returns what it prints; an error is an AssertionError with its words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def reason_not_to_boot():
    """Returns why no machine can boot here, or None."""
    if subprocess.run(["podman", "image", "exists", IMAGE], stdin=subprocess.DEVNULL).returncode != 0:
        return "there is no image with systemd"
    try:
        (CGROUPS / "swiglu-probe").mkdir()
        (CGROUPS / "swiglu-probe").rmdir()
    except OSError as error:
        return f"no control group can be made: {error}"
    return None


class Machine:
    """A machine that boots at the beginning of the block; it and its files are gone at the end. `root` is its root folder."""

    def __enter__(self):
        self._container = output("buildah", "from", "--pull-never", IMAGE).strip()
        self.root = pathlib.Path(output("buildah", "mount", self._container).strip())
        # systemd takes the control group in which it starts for the whole tree.
        self._cgroup = CGROUPS / self._container
        self._cgroup.mkdir(exist_ok=True)
        script = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
        namespaces = [f"--{kind}" for kind in ("mount", "pid", "net", "uts", "ipc", "cgroup")]
        # However the test ends, the machine ends with it.
        self._unshare = subprocess.Popen(
            ["sh", "-c", script, "sh", self._cgroup, "setpriv", "--pdeathsig=KILL", "unshare", *namespaces, "--fork",
             "--kill-child", "--propagation=private", HERE / "boot.sh", self.root],
            stdin=subprocess.DEVNULL)
        self.wait_for(lambda: self._first_process() and self.run("test", "-S", "/run/systemd/private").returncode == 0, "boot")
        self.output("systemctl", "start", "multi-user.target")
        return self

    def __exit__(self, *_):
        self._unshare.kill()
        self._unshare.wait(DEADLINE_S)
        folders = [self._cgroup, *self._cgroup.rglob("*/")]
        self.wait_for(lambda: "populated 0" in (self._cgroup / "cgroup.events").read_text(), "the end of all processes")
        for folder in sorted(filter(pathlib.Path.is_dir, folders), reverse=True):
            folder.rmdir()
        output("buildah", "rm", self._container)

    def _first_process(self):
        children = pathlib.Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        return children[0] if children else None

    def start(self, *command):
        """Starts a program in the machine and returns its Popen."""
        return subprocess.Popen(["nsenter", "--all", "--target", self._first_process(), "--", *map(str, command)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *command):
        """Runs a program in the machine and returns its CompletedProcess, with the text of both streams."""
        process = self.start(*command)
        text, _ = process.communicate(timeout=DEADLINE_S)
        return subprocess.CompletedProcess(command, process.returncode, text)

    def output(self, *command):
        """Runs a program in the machine and returns what it prints; an error is an AssertionError with its words."""
        done = self.run(*command)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
        return done.stdout

    def properties(self, unit, *names):
        """Returns properties of a unit by name."""
        lines = self.output("systemctl", "show", unit, "--property", ",".join(names)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def files(self):
        """Returns the names of all files that lie in the image's file system."""
        return {line for line in self.output("find", "/", "-xdev").splitlines()}

    @staticmethod
    def wait_for(condition, what):
        """Asks until a condition holds; fails when it does not come to hold."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {DEADLINE_S} s")
