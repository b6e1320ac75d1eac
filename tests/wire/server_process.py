# SPDX-License-Identifier: Apache-2.0
#
# Starts and stops the programs for the tests of this folder: a server on free ports whose log lines can be waited for,
# and runs of a program to its end. Every wait ends with a line, with the process or at a deadline; nothing sleeps.
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

# Far beyond what any step takes, so that only a hang reaches it, under a sanitizer on a busy machine too.
DEADLINE_S = 60

# For so long after the first stop signal the server takes a further one for the same order (StopSource::kSameOrder).
SAME_ORDER_S = 1
# What the server says of a model by the name 'nope'.
UNKNOWN_MODEL = ("unknown model 'nope': this server has swiglu_forward_fp16, swiglu_forward_bf16, swiglu_forward_fp32, "
                 "swiglu_backward_fp16, swiglu_backward_bf16, swiglu_backward_fp32")

# The paths of the programs, filled by main().
SERVER = ""
CLIENT = ""
BENCH = ""
# The folder of the C++ examples.
EXAMPLES = ""
# Of the tests: the server over devices that fail, and over CUDA devices that can be broken.
FAULT_SERVER = ""
CUDA_FAULT_SERVER = ""
# Of the tests: the server that reads weights only when it is told to.
WEIGHTS_SERVER = ""


def main():
    """Takes --server, --client, --bench, --examples, --fault_server, --cuda_fault_server and --weights_server=PATH from the command
    line and runs the tests of the calling module."""
    global SERVER, CLIENT, BENCH, EXAMPLES, FAULT_SERVER, CUDA_FAULT_SERVER, WEIGHTS_SERVER
    rest = []
    for argument in sys.argv:
        if argument.startswith("--server="):
            SERVER = argument.partition("=")[2]
        elif argument.startswith("--client="):
            CLIENT = argument.partition("=")[2]
        elif argument.startswith("--bench="):
            BENCH = argument.partition("=")[2]
        elif argument.startswith("--examples="):
            EXAMPLES = argument.partition("=")[2]
        elif argument.startswith("--fault_server="):
            FAULT_SERVER = argument.partition("=")[2]
        elif argument.startswith("--cuda_fault_server="):
            CUDA_FAULT_SERVER = argument.partition("=")[2]
        elif argument.startswith("--weights_server="):
            WEIGHTS_SERVER = argument.partition("=")[2]
        else:
            rest.append(argument)
    unittest.main(argv=rest)


def skip(test, reason):
    """Skips the running test and says why on a line of its own, as tests/style/skip_reasons.py reads it."""
    print(f"skipped: {reason}", flush=True)
    test.skipTest(reason)


def run(program, *arguments, **options):
    """Runs a program to its end and returns subprocess's CompletedProcess, with text."""
    return subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=DEADLINE_S, **options)


def probe_health(address, service=None):
    """Runs `swiglu-server --health` against `address`."""
    return run(SERVER, "--health" if service is None else f"--health={service}", f"--grpc_address={address}")


class Server:
    """A running server. As a context manager it ends with the block, whatever the block did."""

    def __init__(self, *flags, program=None, has_defaults=True, stdin=subprocess.DEVNULL):
        """Starts the server on free ports of this machine and on the CPU, unless `flags` say otherwise. `program` is run instead
        of the server, if it is given, with `flags` alone unless it `has_defaults`."""
        defaults = ("--grpc_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0", "--device=cpu") if has_defaults else ()
        self._process = subprocess.Popen([program or SERVER, *defaults, *flags], stdin=stdin,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._changed = threading.Condition()
        self._lines = []
        self._ended = False
        self._is_reading = True
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def log(self):
        """The lines so far."""
        with self._changed:
            return list(self._lines)

    @property
    def address(self):
        """Where it serves gRPC, as a client takes it. Waits until it does."""
        return self.wait_for(r'serving gRPC on ([^\s"]+)').group(1)

    @property
    def metrics_port(self):
        """The port of the metrics page. Waits until it is open."""
        return int(self.wait_for(r"metrics on http://127\.0\.0\.1:(\d+)/metrics$").group(1))

    @property
    def pid(self):
        """The number of its process."""
        return self._process.pid

    def wait_for(self, pattern):
        """Waits for a log line that matches `pattern` and returns the match."""
        def found():
            return next(filter(None, (re.search(pattern, line) for line in self._lines)), None)

        with self._changed:
            self._changed.wait_for(lambda: self._ended or found(), DEADLINE_S)
            if not found():
                raise AssertionError(f"no line like '{pattern}' in the server's log:\n" + "\n".join(self._lines))
            return found()

    def signal(self, number):
        """Sends a signal."""
        self._process.send_signal(number)

    def force(self, number):
        """Sends a stop signal that is an order of its own. The caller has seen that the server has taken the first."""
        time.sleep(SAME_ORDER_S)
        self.signal(number)

    def exit_code(self, within_s=DEADLINE_S):
        """Waits for the end, and at most so long, and returns the exit code; afterwards the log is complete."""
        code = self._process.wait(within_s)
        self._set_reading(True)
        self._reader.join(DEADLINE_S)
        return code

    def command(self, line):
        """Writes a line to the process's stdin, which must be a pipe."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code()

    def resident_bytes(self, at_most=False):
        """The memory that its process has in use; `at_most`: that it ever had."""
        field = "VmHWM" if at_most else "VmRSS"
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return int(re.search(rf"^{field}:\s+(\d+) kB", status.read(), re.MULTILINE).group(1)) * 1024

    def is_running(self):
        """Whether the process has not ended."""
        return self._process.poll() is None

    def stop_taking_log(self):
        """Reads no further line of the log until take_log_again or the end of the process, and fills the pipe: the next line
        blocks who writes it."""
        # Opened anew, so that the process's own end goes on blocking.
        pipe = os.open(f"/proc/self/fd/{self._process.stderr.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            self._set_reading(False)
            # Wakes the reader, which then stays here.
            os.write(pipe, b"no further line is read\n")
            self.wait_for("no further line is read")
            for chunk_bytes in (4096, 1):
                try:
                    while True:
                        os.write(pipe, b"." * chunk_bytes)
                except BlockingIOError:
                    pass
        finally:
            os.close(pipe)

    def take_log_again(self):
        """Ends stop_taking_log."""
        self._set_reading(True)

    def kill(self):
        """Ends the process, if it has not ended, without a word."""
        self._process.kill()
        self.exit_code()
        self._process.stderr.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def get(self, path="/metrics", method="GET"):
        """Asks the metrics port for a page; returns the response, read, and its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=DEADLINE_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()

    def metric(self, name, **labels):
        """Returns the value of one series of the metrics page."""
        page = self.get()[1]
        for line in page.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and dict(re.findall(r'(\w+)="([^"]*)"', series)) == labels:
                return float(value)
        raise AssertionError(f"no series {name} with {labels} on the page")

    def wait_for_metric(self, value, name, **labels):
        """Reads the metrics page until that series has that value: what is counted may be so a moment after a caller has heard."""
        deadline = time.monotonic() + DEADLINE_S
        while self.metric(name, **labels) != value:
            if not self.is_running() or time.monotonic() > deadline:
                raise AssertionError(f"{name} of {labels} is not {value}:\n" + "\n".join(self.log))

    def _set_reading(self, is_reading):
        with self._changed:
            self._is_reading = is_reading
            self._changed.notify_all()

    def _read_log(self):
        for line in self._process.stderr:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_reading)
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class ServerTest(unittest.TestCase):
    """One server, with the class's flags, for all tests of a class, which must stop as it should."""

    SERVER_FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.SERVER_FLAGS)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        cls.server.kill()
        if code != 0:
            raise AssertionError(f"the server ended with {code}:\n" + "\n".join(cls.server.log))
