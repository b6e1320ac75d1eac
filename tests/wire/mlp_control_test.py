#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The weights of MLPs are loaded and replaced while the server serves: by the stock Python client, under load, with bad files, and with
# a loader that waits (weights_server.cc), so that the server can be stopped and refuse calls in the middle of a load.
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest

import numpy
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import mlp_test
import server_process
from mlp_test import BF16, HIDDEN, INTERMEDIATE, LAYERS, SHAPES, bits, random_weights, write_model
from plain_grpc import LOAD, Connection, field
from server_process import Server
from triton_fixture import CHANNEL, TritonTest

CALLERS = 4


def install(path, layers):
    """Puts a model at `path`, as a user should: the file there is an old one or a new one at any time."""
    write_model(f"{path}.new", layers)
    os.replace(f"{path}.new", path)


def sha256_of(layer):
    return hashlib.sha256(b"".join(layer[name].tobytes() for name in SHAPES)).hexdigest()


def forward(client, mlp, number, x):
    """The layer's y, as bytes, and the weights that the response names."""
    result = client.infer(f"mlp_{mlp}_{number}_forward", [triton.InferInput("x", list(x.shape), "BF16").set_data_from_numpy(x)])
    return result.as_numpy("y").tobytes(), result.get_response().parameters["weights_sha256"].string_param


class Caller(threading.Thread):
    """Asks layer after layer, on a connection of its own, until it is told to stop."""

    def __init__(self, address, x, changed):
        super().__init__()
        self.answers = []  # (layer, y, weights)
        self.error = None
        self._address, self._x, self._changed = address, x, changed
        self._is_stopping = False

    def run(self):
        client = triton.InferenceServerClient(self._address, channel_args=CHANNEL)
        try:
            while not self._is_stopping:
                for number in range(LAYERS):
                    answer = (number, *forward(client, "tiny", number, self._x))
                    with self._changed:
                        self.answers.append(answer)
                        self._changed.notify_all()
        except Exception as error:  # pylint: disable=broad-exception-caught
            with self._changed:
                self.error = error
                self._changed.notify_all()
        finally:
            client.close()

    def stop(self):
        self._is_stopping = True


class ControlTest(TritonTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.path = str(pathlib.Path(cls.folder, "tiny.safetensors"))
        cls.versions = [random_weights(seed) for seed in range(4)]
        install(cls.path, cls.versions[0])
        write_model(f"{cls.folder}/other.safetensors", random_weights(9))
        cls.SERVER_FLAGS = ("--device=cpu", "--mlp_control=on", f"--mlp=tiny={cls.path}", f"--mlp=other={cls.folder}/other.safetensors")
        super().setUpClass()
        cls.server.wait_for("all weights are loaded")

    def setUp(self):
        super().setUp()
        self.x = numpy.random.default_rng(3).normal(0, 1, (7, HIDDEN)).astype(BF16)
        self.load(self.versions[0])

    def load(self, layers):
        install(self.path, layers)
        self.client.load_model("mlp_tiny")

    def answers(self, mlp="tiny"):
        """What every layer answers now."""
        return [forward(self.client, mlp, number, self.x) for number in range(LAYERS)]

    def loads(self, result, model="mlp_tiny"):
        return self.server.metric("swiglu_mlp_loads_total", model=model, result=result)

    def test_each_answer_is_of_the_weights_that_it_names(self):
        """Under load each y is, bit for bit, that of the weights that its response names, and no caller sees old weights of any layer
        after new ones of another."""
        expected = {}  # by weights: the number of the version, and y
        for version, layers in enumerate(self.versions):
            self.load(layers)
            for layer, (y, weights) in zip(layers, self.answers()):
                self.assertEqual(weights, sha256_of(layer))
                expected[weights] = (version, y)
                near = mlp_test.forward(self.x.astype(numpy.float32), layer)
                found = numpy.frombuffer(y, BF16).astype(numpy.float32).reshape(near.shape)
                numpy.testing.assert_allclose(found / numpy.abs(near).max(), near / numpy.abs(near).max(), atol=0.02)
        self.load(self.versions[0])
        changed = threading.Condition()
        callers = [Caller(self.server.address, self.x, changed) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
            self.addCleanup(caller.join)
            self.addCleanup(caller.stop)

        def has_heard(caller, version):
            return caller.error or caller.answers and expected[caller.answers[-1][2]][0] == version

        for version, layers in enumerate(self.versions):
            self.load(layers)
            with changed:
                self.assertTrue(changed.wait_for(lambda now=version: all(has_heard(caller, now) for caller in callers),
                                                 server_process.DEADLINE_S))
            self.assertTrue(self.client.is_server_ready())
        for caller in callers:
            caller.stop()
            caller.join()
            self.assertIsNone(caller.error)
            versions = [expected[weights][0] for _, _, weights in caller.answers]
            self.assertEqual(versions, sorted(versions))
            for number, y, weights in caller.answers:
                self.assertEqual(y, expected[weights][1])
                self.assertEqual(weights, sha256_of(self.versions[expected[weights][0]][number]))

    def test_a_bad_file_leaves_the_old_weights(self):
        before, failures, successes = self.answers(), self.loads("failure"), self.loads("success")
        wide = dict(self.versions[1][0], **{name: numpy.zeros((INTERMEDIATE + 8, HIDDEN), BF16) for name in ("gate", "up")},
                    down=numpy.zeros((HIDDEN, INTERMEDIATE + 8), BF16))
        bad = {
            "cannot open: No such file or directory": lambda: os.remove(self.path),
            "not a .safetensors file: it has 4 bytes": lambda: pathlib.Path(self.path).write_bytes(b"none"),
            "layer 3 has an MLP; this server has no model of it": lambda: install(self.path, [*self.versions[1], self.versions[1][0]]),
            "layer 2 has no MLP; this server has a model of it": lambda: install(self.path, self.versions[1][:2]),
            "layer 1 is BF16 with H = 64 and I = 184; this server's model of it is BF16 with H = 64 and I = 176":
                lambda: install(self.path, [self.versions[1][0], wide, self.versions[1][2]]),
        }
        for number, (sentence, spoil) in enumerate(bad.items(), 1):
            with self.subTest(sentence):
                spoil()
                whole = f"the weights of 'mlp_tiny' stay as they were: {self.path}: {sentence}"
                self.assert_refused("FAILED_PRECONDITION", whole, lambda: self.client.load_model("mlp_tiny"))
                self.server.wait_for(f"W mlp tiny: the weights stay as they were: {self.path}: {sentence}".replace("[", "."))
                self.assertEqual(self.answers(), before)
                self.assertEqual(self.loads("failure"), failures + number)
        self.load(self.versions[1])
        self.assertEqual([weights for _, weights in self.answers()], [sha256_of(layer) for layer in self.versions[1]])
        self.assertEqual(self.loads("success"), successes + 1)

    def test_replaces_the_weights_of_one_mlp(self):
        before = self.answers("other")
        self.load(self.versions[2])
        self.assertEqual(self.answers("other"), before)
        self.assertEqual(self.loads("success", model="mlp_other"), 1)

    def test_takes_the_name_of_a_whole_mlp_alone(self):
        load = self.client.load_model
        self.assert_refused("NOT_FOUND", "unknown MLP 'tiny': this server has mlp_tiny, mlp_other", lambda: load("tiny"))
        self.assert_refused("INVALID_ARGUMENT", "model 'mlp_tiny_0_forward' is a part of the MLP 'mlp_tiny'; load the whole MLP",
                            lambda: load("mlp_tiny_0_forward"))
        self.assert_refused("INVALID_ARGUMENT", "parameter 'config' is not supported", lambda: load("mlp_tiny", config="{}"))
        self.assert_refused("UNIMPLEMENTED", "RepositoryModelUnload: the models of this server are fixed",
                            lambda: self.client.unload_model("mlp_tiny"))

    def test_log_tells_what_has_changed(self):
        mixed = [self.versions[3][0], *self.versions[0][1:]]
        self.load(mixed)
        self.server.wait_for(f"mlp tiny: layer 0 has new weights, sha256 {sha256_of(mixed[0])} after {sha256_of(self.versions[0][0])}$")
        self.server.wait_for(r"mlp tiny: the weights were read anew in [\d.]+ s; 1 of 3 layers have changed$")

    def test_metrics_tell_of_weights_and_tokens(self):
        file_bytes = sum(matrix.nbytes for layer in self.versions[0] for matrix in layer.values())
        metric = self.server.metric
        self.assertEqual(metric("swiglu_mlp_load_size_bytes", model="mlp_tiny"), file_bytes)
        self.assertEqual(metric("swiglu_mlp_loaded_bytes", model="mlp_tiny"), file_bytes)
        self.assertEqual(metric("swiglu_mlp_loading", model="mlp_tiny"), 0)
        # Packed once for forward and once for backward, with some filling.
        self.assertGreaterEqual(metric("swiglu_mlp_weight_bytes", model="mlp_tiny", device="cpu"), 2 * file_bytes)
        self.assertLess(metric("swiglu_mlp_weight_bytes", model="mlp_tiny", device="cpu"), 3 * file_bytes)
        self.assertGreater(metric("swiglu_mlp_last_load_timestamp_seconds", model="mlp_tiny"), 1.6e9)
        self.assertGreater(metric("swiglu_mlp_last_load_duration_seconds", model="mlp_tiny"), 0)
        forward_tokens = {"model": "mlp_tiny", "op": "mlp_forward"}
        tokens, batches = (metric(name, **forward_tokens) for name in ("swiglu_mlp_tokens_total", "swiglu_mlp_batch_tokens_count"))
        self.answers()
        self.assertEqual(metric("swiglu_mlp_tokens_total", **forward_tokens), tokens + LAYERS * 7)
        self.assertEqual(metric("swiglu_mlp_batch_tokens_count", **forward_tokens), batches + LAYERS)
        self.assertEqual(metric("swiglu_mlp_tokens_total", model="mlp_tiny", op="mlp_backward"), 0)


class WaitingServer(Server):
    """A server whose loader waits before each layer, until it is told to go on."""

    def __init__(self, *flags):
        super().__init__("--mlp_control", *flags, program=server_process.WEIGHTS_SERVER, stdin=subprocess.PIPE)
        self._num_orders = 0

    def order(self, order):
        """Tells the loader what to do from here on."""
        self._num_orders += 1
        self.command(order)
        self.wait_for(f"obeyed order {self._num_orders}: {order}$")


class LoadingFixture(unittest.TestCase):
    FLAGS = ()

    def setUp(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = f"{folder}/m.safetensors"
        install(self.path, random_weights(1))
        self.server = WaitingServer(f"--mlp=m={self.path}", *self.FLAGS)
        self.addCleanup(self.server.kill)
        self.client = triton.InferenceServerClient(self.server.address, channel_args=CHANNEL)
        self.addCleanup(self.client.close)

    def load_weights(self):
        self.server.order("release")
        self.server.wait_for("all weights are loaded")

    def begin_load(self):
        """Begins a load that waits before its first layer; returns its thread, and the list that gets its error or None."""
        self.server.order("hold")
        results = []

        def load():
            client = triton.InferenceServerClient(self.server.address, channel_args=CHANNEL)
            try:
                client.load_model("mlp_m")
                results.append(None)
            except InferenceServerException as error:
                results.append((error.status(), error.message()))
            finally:
                client.close()

        thread = threading.Thread(target=load)
        thread.start()
        self.addCleanup(thread.join)
        self.server.wait_for("mlp m: the weights are being read anew")
        return thread, results

    def hang(self):
        """From here on, loads that wait hang. Returns once one does."""
        self.server.order("hang")
        self.server.wait_for("a layer hangs")

    def assert_load_refused(self, code, sentence):
        TritonTest.assert_refused(self, code, sentence, lambda: self.client.load_model("mlp_m"))

    def forward(self):
        return forward(self.client, "m", 0, numpy.ones((1, HIDDEN), BF16))


class HangingLoadTest(LoadingFixture):
    """A load that hangs does not keep the server from ending."""
    FLAGS = ("--drain_timeout=50ms",)

    def test_first_load_that_hangs_is_left_behind(self):
        self.server.wait_for("layer 0 waits")
        self.hang()
        self.assertEqual(self.server.stop(), 0)
        self.assertRegex(self.server.log[-1], "W drain timeout passed: weights are still being loaded$")

    def test_later_load_that_hangs_is_a_request_that_is_cut_off(self):
        self.load_weights()
        thread, results = self.begin_load()
        self.hang()
        self.assertEqual(self.server.stop(), 1)
        self.assertRegex(self.server.log[-1], "E drain timeout of 50ms passed: 1 requests cut off$")
        thread.join()
        self.assertEqual(results[0][0], "StatusCode.UNAVAILABLE")


class LoadingTest(LoadingFixture):
    def test_stops_while_the_first_weights_are_loaded(self):
        self.server.wait_for("layer 0 waits")
        self.assertFalse(self.client.is_server_ready())
        self.assert_load_refused("UNAVAILABLE", "the weights of 'mlp_m' are still being loaded for the first time")
        with self.assertRaises(InferenceServerException) as raised:
            self.forward()
        self.assertEqual(raised.exception.message(), "the weights of 'mlp_m_0_forward' are still being loaded")
        self.server.wait_for_metric(1, "swiglu_rejected_total", reason="loading")
        self.assertEqual(self.server.metric("swiglu_mlp_loading", model="mlp_m"), 1)
        self.assertEqual(self.server.stop(), 0)
        self.assertNotIn("all weights are loaded", "".join(self.server.log))

    def test_ends_if_the_first_weights_cannot_be_loaded(self):
        self.server.wait_for("layer 0 waits")
        self.server.command("fail")
        self.assertEqual(self.server.exit_code(), 1)
        self.assertRegex(self.server.log[-1], "E exiting: mlp m: no room, as the test wants it$")

    def test_a_load_without_room_leaves_the_old_weights(self):
        self.load_weights()
        before = self.forward()
        install(self.path, random_weights(2))
        self.server.order("fail")
        self.assert_load_refused("RESOURCE_EXHAUSTED", "the weights of 'mlp_m' stay as they were: no room, as the test wants it")
        self.assertEqual(self.forward(), before)

    def test_refuses_a_load_beside_another(self):
        self.load_weights()
        before = self.forward()
        install(self.path, random_weights(2))
        thread, results = self.begin_load()
        self.assert_load_refused("ABORTED", "the weights of 'mlp_m' are being loaded by another call already")
        self.assertTrue(self.client.is_server_ready())
        self.assertEqual({model.state for model in self.client.get_model_repository_index().models}, {"READY"})
        self.assertEqual(self.server.metric("swiglu_mlp_loading", model="mlp_m"), 1)
        self.assertEqual(self.forward(), before)
        self.server.order("release")
        thread.join()
        self.assertEqual(results, [None])
        self.assertNotEqual(self.forward(), before)

    def test_a_drain_ends_a_load(self):
        self.load_weights()
        thread, results = self.begin_load()
        self.assertEqual(self.server.stop(), 0)
        thread.join()
        self.assertEqual(results, [("StatusCode.UNAVAILABLE", "server is draining")])

    def test_a_load_ends_with_its_caller(self):
        self.load_weights()
        before = self.forward()
        install(self.path, random_weights(2))
        self.server.order("hold")
        with Connection(self.server.address) as connection:
            call = connection.open(LOAD)
            call.send(field(2, "mlp_m"))
            self.server.wait_for("mlp m: the weights are being read anew")
            call.reset()
            self.server.wait_for_metric(1, "swiglu_mlp_loads_total", model="mlp_m", result="cancelled")
        self.assertEqual(self.forward(), before)
        self.server.order("release")
        self.client.load_model("mlp_m")
        self.assertNotEqual(self.forward(), before)


if __name__ == "__main__":
    server_process.main()
