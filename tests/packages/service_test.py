#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The life of the package swiglu-server on a machine with systemd: installed, serving, drained, set up wrong, killed, upgraded,
# removed, purged. `service_test.py PACKAGES` takes the package from that folder; it runs inside `tests/image/engine.sh build`.
import pathlib
import re
import shutil
import struct
import sys
import unittest

import machine
from machine import Machine

UNIT = "swiglu-server.service"
SETTINGS = "/etc/swiglu/server.conf"
# What `systemd-analyze security` may rate the unit at, from 0 to 100: less is safer.
WORST_EXPOSURE = 25
# What dpkg and systemd write down whatever is installed.
KEPT = ("/var/log/", "/var/lib/dpkg/", "/var/lib/systemd/", "/var/cache/", "/etc/machine-id", "/swiglu-server.deb")
PACKAGES = pathlib.Path()


def npy(values):
    """Returns the bytes of an .npy file of FP32."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(values)},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack(f"<{len(values)}f", *values)


class ServiceTest(unittest.TestCase):
    def test_the_life_of_the_package(self):
        (package,) = PACKAGES.glob("swiglu-server_*.deb")
        with Machine() as self.machine:
            self.root = self.machine.root
            files_before = self.machine.files()
            shutil.copyfile(package, self.root / "swiglu-server.deb")
            self._starts_nothing_where_policy_forbids_it()
            self._serves_when_installed()
            self._is_confined()
            self._makes_the_device_files_of_gpus()
            self._reaches_the_device_files_of_gpus()
            self._takes_the_settings_that_the_file_suggests()
            self._shares_memory_with_clients_of_the_same_user()
            self._finishes_a_call_when_stopped()
            self._does_not_restart_with_wrong_settings()
            self._restarts_when_it_fails()
            self._keeps_settings_and_restarts_on_an_upgrade()
            self._stays_disabled_on_an_upgrade()
            self._stops_and_keeps_settings_when_removed()
            self._leaves_nothing_when_purged(files_before)

    def _starts_nothing_where_policy_forbids_it(self):
        policy = self.root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        self._install()
        self.assertEqual(self._state(), "inactive")
        policy.unlink()
        self.machine.output("dpkg", "--purge", "swiglu-server")

    def _serves_when_installed(self):
        self._install()
        # Nobody waits: the service has started when it serves.
        self.machine.output("swiglu", "status")
        self.assertEqual(self._state(), "active")
        self.assertEqual(self.machine.output("systemctl", "is-enabled", UNIT).strip(), "enabled")
        load = self.machine.output("swiglu-bench", "--requests=100", "--warm_up=0", "--client=library", "--check")
        self.assertRegex(load, "errors +none")

    def _is_confined(self):
        self.machine.output("systemd-analyze", "verify", "--man=no", UNIT)
        print(self.machine.output("systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={WORST_EXPOSURE}",
                                  f"/usr/lib/systemd/system/{UNIT}").splitlines()[-1], flush=True)
        process = self.machine.properties(UNIT, "MainPID")["MainPID"]
        lines = self.machine.output("cat", f"/proc/{process}/status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        self.assertNotIn("0", status["Uid"].split())
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"], status["CapBnd"]), ("1", "2", "0" * 16))

    def _makes_the_device_files_of_gpus(self):
        modprobe = self.root / "usr/bin/nvidia-modprobe"
        modprobe.write_text("#!/bin/sh\necho \"$@\"\n")
        modprobe.chmod(0o755)
        for minor in (0, 3):
            folder = self.root / f"gpus/0000:0{minor}:00.0"
            folder.mkdir(parents=True)
            (folder / "information").write_text(f"Model: \t\t NVIDIA H100\nDevice Minor: \t {minor}\n")
        made = self.machine.output("/usr/lib/swiglu/prepare-gpus", "/gpus")
        self.assertEqual(made.splitlines(), ["-u", "-c 0", "-c 3"])
        modprobe.unlink()
        shutil.rmtree(self.root / "gpus")

    def _reaches_the_device_files_of_gpus(self):
        # A device without a driver, with the group that Debian's driver gives it.
        self.machine.output("sh", "-c", "mknod --mode=0660 /dev/nvidia0 c 195 0 && chgrp video /dev/nvidia0")
        self._drop_in("ExecStartPre=-/bin/dd if=/dev/nvidia0 count=1")
        self.machine.output("systemctl", "restart", UNIT)
        self.assertIn("failed to open '/dev/nvidia0': No such device or address",
                      self.machine.output("journalctl", "--unit", UNIT, "--identifier", "dd"))
        self._drop_in("")

    def _shares_memory_with_clients_of_the_same_user(self):
        self._drop_in("DynamicUser=no\nUser=games")
        self._set("system_shared_memory = on\ngrpc_address = unix:/run/swiglu/socket")
        self.machine.output("systemctl", "restart", UNIT)
        load = self.machine.output("runuser", "--user=games", "--", "swiglu-bench", "--server=unix:/run/swiglu/socket",
                                   "--shared_memory=system", "--requests=100", "--warm_up=0", "--check")
        self.assertRegex(load, "errors +none")
        self._drop_in("")

    def _takes_the_settings_that_the_file_suggests(self):
        lines = re.findall(r"^#([a-z_]+ = .*)$", (self.root / SETTINGS[1:]).read_text(), re.MULTILINE)
        self.assertGreater(len(lines), 5)
        self._set("\n".join(line for line in lines if not line.startswith("mlp")))
        self.machine.output("systemctl", "restart", UNIT)
        self.machine.output("runuser", "--user=nobody", "--", "swiglu", "status", "--server=unix:/run/swiglu/socket")

    def _finishes_a_call_when_stopped(self):
        self._set("max_queue_delay = 3s")
        self.machine.output("systemctl", "restart", UNIT)
        (self.root / "e.npy").write_bytes(npy([0.0, 1.0]))
        (self.root / "g.npy").write_bytes(npy([3.0, 2.0]))
        call = self.machine.start("swiglu", "forward", "--e=/e.npy", "--g=/g.npy", "--out=/h.npy")
        page = "exec 3<>/dev/tcp/127.0.0.1/8002; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
        self.machine.wait_for(lambda: "swiglu_queued_requests 1" in self.machine.output("bash", "-c", page), "a queued call")
        self.machine.output("systemctl", "stop", UNIT)
        text, _ = call.communicate()
        self.assertEqual(call.returncode, 0, text)
        h = struct.unpack("<2f", (self.root / "h.npy").read_bytes()[-8:])
        self.assertEqual([round(value, 4) for value in h], [0.0, 1.4621])
        self.assertEqual(self.machine.properties(UNIT, "Result", "ExecMainCode", "ExecMainStatus"),
                         {"Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0"})
        for name in ("e", "g", "h"):
            (self.root / f"{name}.npy").unlink()

    def _does_not_restart_with_wrong_settings(self):
        self._set("no_such_flag = 1")
        self.assertNotEqual(self.machine.run("systemctl", "start", UNIT).returncode, 0)
        self.assertEqual(self.machine.properties(UNIT, "ActiveState", "ExecMainStatus", "NRestarts"),
                         {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"})
        self.assertIn("no_such_flag", self.machine.output("journalctl", "--unit", UNIT))

    def _restarts_when_it_fails(self):
        self._set("log_level = warning")
        self.machine.output("systemctl", "start", UNIT)
        self.machine.output("systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT)
        self.machine.wait_for(lambda: self.machine.properties(UNIT, "ActiveState", "NRestarts") ==
                              {"ActiveState": "active", "NRestarts": "1"}, "a restart")

    def _keeps_settings_and_restarts_on_an_upgrade(self):
        process = self.machine.properties(UNIT, "MainPID")
        self._install()
        self.assertEqual((self.root / SETTINGS[1:]).read_text(), "log_level = warning\n")
        self.machine.output("swiglu", "status")
        self.assertNotEqual(self.machine.properties(UNIT, "MainPID"), process)

    def _stays_disabled_on_an_upgrade(self):
        self.machine.output("systemctl", "disable", "--now", UNIT)
        self._install()
        self.assertEqual(self.machine.run("systemctl", "is-enabled", UNIT).stdout.strip(), "disabled")
        self.assertEqual(self._state(), "inactive")
        self.machine.output("systemctl", "enable", "--now", UNIT)

    def _stops_and_keeps_settings_when_removed(self):
        process = self.machine.properties(UNIT, "MainPID")["MainPID"]
        self.machine.output("dpkg", "--remove", "swiglu-server")
        self.assertNotEqual(self.machine.run("test", "-e", f"/proc/{process}").returncode, 0)
        self.assertTrue((self.root / SETTINGS[1:]).exists())

    def _leaves_nothing_when_purged(self, files_before):
        self.machine.output("dpkg", "--purge", "swiglu-server")
        self.assertEqual(self.machine.output("dpkg-query", "--list").count("swiglu"), 0)
        left = {name for name in self.machine.files() - files_before if not name.startswith(KEPT)}
        self.assertEqual(left, set())
        self.assertEqual({name for name in left | self.machine.files() if "swiglu" in name}, {"/swiglu-server.deb"})

    def _install(self):
        self.machine.output("dpkg", "--install", "/swiglu-server.deb")

    def _state(self):
        return self.machine.properties(UNIT, "ActiveState")["ActiveState"]

    def _set(self, lines):
        (self.root / SETTINGS[1:]).write_text(lines + "\n")

    def _drop_in(self, lines):
        folder = self.root / f"etc/systemd/system/{UNIT}.d"
        shutil.rmtree(folder, ignore_errors=True)
        if lines:
            folder.mkdir()
            (folder / "override.conf").write_text(f"[Service]\n{lines}\n")
        self.machine.output("systemctl", "daemon-reload")


if __name__ == "__main__":
    PACKAGES = pathlib.Path(sys.argv.pop())
    reason = machine.reason_not_to_boot()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(77)
    unittest.main()
