#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The Python client in its process: other threads run while a call waits, Ctrl-C ends a call, fork() is noticed, and the process ends
# whatever is under way.
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import swiglu
from client_fixture import ClientTest, FakeGpuArray, Relay, SilentPeer, random_arrays, run_python, start_python
import server_process
from server_process import DEADLINE_S
from swiglu import Code

# What a process of its own begins with: a client of the address in its first argument.
BEGIN = """
import sys, numpy, swiglu
e = numpy.ones((4, 8), "float32")
client = swiglu.Client(sys.argv[1])
"""


class ProcessTest(ClientTest):
    def test_other_threads_run_while_a_call_waits(self):
        e, g = random_arrays(2)
        expected = self.client.forward(e, g)
        # Nothing comes through unless threads of this process run meanwhile.
        with Relay(self.server.address) as relay:
            client = swiglu.Client(relay.address, num_connections=1)
            self.assertTrue(client.server_live())
            self.assert_same(client.forward(e, g), expected)
            self.assert_same(client.forward_many([(e, g)] * 3)[2], expected)
            self.assert_same(client.forward_async(e, g).result(), expected)
            found = []
            thread = threading.Thread(target=lambda: found.extend((client.forward(e, g), client.server_live())))
            thread.start()
            thread.join(DEADLINE_S)
            self.assert_same(found[0], expected)
            client.close()

    def test_threads_call_at_once(self):
        calls = [random_arrays(2, (64,), seed=seed) for seed in range(8)]
        expected = [self.client.forward(*call) for call in calls]
        results = [[] for _ in calls]

        def run(index):
            for _ in range(20):
                results[index].append(self.client.forward(*calls[index]))

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        for found, right in zip(results, expected):
            self.assertEqual(len(found), 20)
            for each in found:
                self.assert_same(each, right)

    def test_ctrl_c_ends_a_call(self):
        waits = ("client.forward(e, e)", "client.forward_many([(e, e)] * 3)", "client.forward_async(e, e).result()",
                 "client.server_live(timeout=600)", "client.mlp('tiny', 0).forward(e.astype('float16'))")
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(SilentPeer()) for _ in waits]
            code = "import sys, numpy, swiglu\ne = numpy.ones((4, 8), 'float32')\n"
            for number, wait in enumerate(waits, 1):
                code += f"""
client = swiglu.Client(sys.argv[{number}], timeout=600)
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
            process = start_python(code, *(peer.address for peer in peers))
            # What does not end is not waited for.
            watch = threading.Timer(DEADLINE_S, process.kill)
            watch.start()
            stack.callback(watch.cancel)
            for wait, peer in zip(waits, peers):
                with self.subTest(wait):
                    peer.wait_for_connection()
                    process.send_signal(signal.SIGINT)
                    self.assertEqual(process.stdout.readline(), "interrupted\n")
            said, complained = process.communicate(timeout=DEADLINE_S)
            self.assertEqual((process.returncode, said, complained), (0, "", ""))

    def test_signal_handler_that_raises_nothing_does_not_end_a_call(self):
        code = BEGIN + """
import signal, threading
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
future = client.forward_async(e, e)
threading.Thread(target=lambda: (sys.stdin.readline(), future.cancel())).start()
print(future.exception().code.name)
"""
        with SilentPeer() as peer:
            process = subprocess.Popen([sys.executable, "-B", "-c", code, peer.address], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
            peer.wait_for_connection()
            process.send_signal(signal.SIGUSR1)
            self.assertEqual(process.stdout.readline(), "handled\n")
            said = process.communicate("\n", timeout=DEADLINE_S)[0]
            self.assertEqual((process.returncode, said), (0, "CANCELLED\n"))

    def test_child_of_fork_gets_an_error(self):
        e, g = random_arrays(2)
        with SilentPeer() as peer, swiglu.Client(peer.address) as silent:
            future = silent.forward_async(e, g)
            peer.wait_for_connection()

            def run(queue):
                def code_of(call):
                    try:
                        call()
                    except swiglu.Error as error:
                        return error.code, error.message.split(";")[0]
                    return None

                array = FakeGpuArray(4)
                queue.put([code_of(lambda: self.client.forward(e, g)), code_of(lambda: self.client.forward_async(e, g).result()),
                           code_of(lambda: self.client.forward(array, array)),
                           code_of(self.client.forward_many_async([(array, array)]).result),
                           code_of(self.client.server_live), code_of(future.result),
                           code_of(lambda: swiglu.Client(self.server.address)), future.cancel()])

            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            process = context.Process(target=run, args=(queue,))
            process.start()
            process.join(DEADLINE_S)
            self.assertEqual(process.exitcode, 0)
            before = (Code.FAILED_PRECONDITION, "this client was made before fork()")
            self.assertEqual(queue.get(), [
                before, before, before, before, before, (Code.FAILED_PRECONDITION, "this call was made before fork()"),
                (Code.FAILED_PRECONDITION, "this process was forked from one that had a client"), False])
        self.client.forward(e, g)

    def test_fork_before_the_first_client_is_fine(self):
        code = """
import os, sys, numpy, swiglu
e = numpy.ones((4, 8), "float32")
child = os.fork()
swiglu.Client(sys.argv[1]).forward(e, e)
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
        self.assertEqual(run_python(code, self.server.address), (0, "", ""))

    def test_process_ends_with_calls_under_way(self):
        for rest in ("futures = [client.forward_async(e, e) for _ in range(3)]", "client.forward_async(e, e)",
                     "import threading; threading.Thread(target=client.forward, args=(e, e), daemon=True).start()",
                     "cycle = [client.forward_async(e, e), client]; cycle.append(cycle)"):
            with self.subTest(rest), SilentPeer() as peer:
                code, said, complained = run_python(BEGIN + rest, peer.address)
                self.assertEqual((code, said, complained), (0, "", ""))

    def test_no_descriptor_or_thread_is_left(self):
        def count():
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

        def use():
            with swiglu.Client(self.server.address) as client:
                client.forward(*random_arrays(2))
                client.forward_many([random_arrays(2)] * 10)

        use()
        before = count()
        for _ in range(5):
            use()
        after = count()
        self.assertLessEqual(after[1], before[1])
        self.assertLessEqual(after[0], before[0] + 4)


if __name__ == "__main__":
    server_process.main()
