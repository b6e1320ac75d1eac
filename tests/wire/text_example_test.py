#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The example that generates text (client/examples/python/text), on a tiny random model: conversion, tokens, attention, and equal
# text whether the server computes the MLPs or the process does. text_model_test.py runs the real model.
import contextlib
import hashlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest.mock
import warnings

import ml_dtypes
import numpy

import tiny_llama
# tiny_llama has put the example's folder on the path.
import checkpoint
import convert
import generate_text
import llama
import local_server
import mlps
import tokenizer

import server_process
from server_process import ServerTest

BF16 = ml_dtypes.bfloat16
QUESTION, TOKENS = "hello world, hello 42!", 12


def run_example(*arguments, question=QUESTION):
    """The answer, and the two lines that follow it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        generate_text.main([*arguments, f"--tokens={TOKENS}", question])
    answer, _, summary = out.getvalue().rpartition("\n\n")
    return answer, summary.splitlines()


class RecordingLlama(llama.Llama):
    """Keeps the scores that it has given."""

    def __init__(self, folder, mlp):
        super().__init__(folder, mlp)
        self.logits = []

    def next_logits(self, tokens):
        self.logits.append(super().next_logits(tokens))
        return self.logits[-1]


class TextExampleTest(ServerTest):
    @classmethod
    def setUpClass(cls):
        place = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, place)
        cls.gguf, cls.folder = pathlib.Path(place, "tiny.gguf"), pathlib.Path(place, "tiny")
        cls.tensors = tiny_llama.random_tensors()
        tiny_llama.write_gguf(cls.gguf, cls.tensors)
        convert.convert(cls.gguf, cls.folder)
        cls.SERVER_FLAGS = (f"--mlp={generate_text.NAME}={cls.folder}",)
        # The example connects to this machine whatever proxy the environment names.
        os.environ["no_proxy"] = "127.0.0.1"
        super().setUpClass()

    def setUp(self):
        self.model = f"--model={self.folder}"
        self.words = tokenizer.Tokenizer(self.folder)

    def failure(self, *arguments, question=QUESTION):
        """What the example says when it fails, and what else it writes to stderr."""
        with self.assertRaises(SystemExit) as raised, contextlib.redirect_stderr(io.StringIO()) as others:
            run_example(*arguments, question=question)
        return str(raised.exception), others.getvalue()

    def test_converts_tensors_to_those_of_hugging_face(self):
        converted = checkpoint.Tensors(self.folder)
        for name, array in self.tensors.items():
            with self.subTest(name):
                numpy.testing.assert_array_equal(converted[name].view(numpy.uint16), array.astype(BF16).view(numpy.uint16))

    def test_refuses_other_architectures(self):
        path = self.gguf.with_name("other.gguf")
        tiny_llama.write_gguf(path, self.tensors, architecture="phi3")
        with self.assertRaisesRegex(ValueError, "^the architecture is 'phi3'; this example converts 'llama'$"):
            convert.convert(path, self.folder.with_name("other"))
        self.assertFalse(checkpoint.exists(self.folder.with_name("other")))

    def test_joins_letters_in_the_order_of_the_merges(self):
        vocabulary = tiny_llama.vocabulary()
        self.assertEqual([vocabulary[token] for token in self.words.encode("hello hellollo world 42  !")],
                         ["hello", "Ġ", "hello", "ll", "o", "Ġw", "o", "r", "l", "d", "Ġ", "4", "2", "Ġ", "Ġ", "!"])

    def test_cuts_text_into_words(self):
        self.assertEqual(tokenizer.words_of("I'm a_b  naïve\n\n x²  42 «日本»"), [
            "I", "'m", " a", "_", "b", " ", " naïve", "\n\n", " x", "²", "  ", "4", "2", " «", "日本", "»"])

    def test_text_comes_back_from_its_tokens(self):
        text = "héllo 日本 🎉\t\n<|im_end|> 1½"
        self.assertEqual(b"".join(map(self.words.bytes_of, self.words.encode(text))).decode(), text)
        self.assertEqual(self.words.bytes_of(self.words.end), b"")

    def test_a_question_holds_no_special_tokens(self):
        self.assertEqual(self.words.chat("<|im_end|>").count(self.words.end), 2)

    def test_scores_are_those_of_the_formula_at_once_and_token_by_token(self):
        def mlp(layer, x):
            return (layer + 1) * x

        parts = [5, 70, 9], [9], [200], [31], [5], [120]
        expected = tiny_llama.next_logits(self.converted(), sum(parts, []), mlp)
        at_once = llama.Llama(self.folder, mlp).next_logits(sum(parts, []))
        model = llama.Llama(self.folder, mlp)
        token_by_token = [model.next_logits(part) for part in parts][-1]
        # The example rounds x of an MLP to BF16.
        for logits in (at_once, token_by_token):
            numpy.testing.assert_allclose(logits, expected, atol=0.01 * numpy.abs(expected).max())

    def test_the_server_and_the_process_write_the_same_text(self):
        by_server, server_says = run_example(self.model, f"--server={self.server.address}")
        in_process, process_says = run_example(self.model, "--in_process")
        self.assertEqual(by_server, in_process)
        tensors = checkpoint.Tensors(self.folder)
        matrices = [tensors[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")]
        sha256 = hashlib.sha256(b"".join(matrix.tobytes() for matrix in matrices)).hexdigest()
        for says, place in ((server_says, "by the server"), (process_says, "in this process")):
            self.assertRegex(says[0], r"^\d+ tokens read, 12 written in \d+\.\d\d s: \d+\.\d tokens/s$")
            self.assertEqual(says[1], f"24 MLPs computed {place}; weights_sha256 of layer 0: {sha256}")

    def test_the_process_rounds_where_the_server_does(self):
        x = numpy.random.default_rng(1).normal(0, 1, (50, tiny_llama.HIDDEN)).astype(BF16)
        with self.mlps_of_server() as by_server:
            for layer in range(tiny_llama.LAYERS):
                pair = [mlp(layer, x).view(numpy.uint16) for mlp in (by_server, mlps.InProcessMlps(self.folder))]
                # float32 sums in another order give another value now and then.
                self.assertGreater(numpy.mean(pair[0] == pair[1]), 0.98)

    def test_the_text_does_not_depend_on_last_bits(self):
        """The best score leads by far more than the scores of the server and of the process differ."""
        logits = []
        with self.mlps_of_server() as by_server:
            for mlp in (by_server, mlps.InProcessMlps(self.folder)):
                model = RecordingLlama(self.folder, mlp)
                tokens = list(llama.generate(model, self.words.chat(QUESTION), TOKENS, self.words.end))
                self.assertEqual(len(tokens), TOKENS)
                logits.append(numpy.array(model.logits))
        leads = numpy.diff(numpy.sort(logits[0])[:, -2:])
        self.assertGreater(leads.min(), 0.9)
        self.assertLess(numpy.abs(logits[0] - logits[1]).max(), 0.3)

    def test_starts_a_server_and_stops_it(self):
        by_own_server, _ = run_example(self.model, f"--server_program={server_process.SERVER}", "--device=cpu")
        self.assertEqual(by_own_server, run_example(self.model, "--in_process")[0])

    def test_says_why_a_server_did_not_start(self):
        said, log = self.failure(self.model, f"--server_program={server_process.SERVER}", "--device=none")
        self.assertEqual(said, "generate_text.py: the server ended with exit code 2")
        self.assertIn("--device", log)
        said, _ = self.failure(self.model, "--server_program=/none/here")
        self.assertEqual(said, "generate_text.py: [Errno 2] No such file or directory: '/none/here'")

    def test_says_what_the_server_refused(self):
        with server_process.Server() as server:
            said, _ = self.failure(self.model, f"--server={server.address}")
        self.assertRegex(said, r"^generate_text.py: \[StatusCode.NOT_FOUND\] unknown model 'mlp_smollm2_0_forward'")

    def test_says_which_layer_a_server_lacks(self):
        with server_process.Server(*self.SERVER_FLAGS, f"--mlp_layers={generate_text.NAME}=0:1") as server:
            said, others = self.failure(self.model, f"--server={server.address}")
        self.assertRegex(said, r"^generate_text.py: \[StatusCode.NOT_FOUND\] unknown model 'mlp_smollm2_1_forward'")
        self.assertEqual(others, "")

    def test_says_what_a_model_lacks(self):
        folder = self.folder.with_name("lacking")
        self.addCleanup(shutil.rmtree, folder)
        config, words = (checkpoint.read_json(self.folder, f"{name}.json") for name in ("config", "tokenizer"))
        tensors = {name: array.astype(BF16) for name, array in self.tensors.items() if ".1.mlp.up" not in name}
        checkpoint.write(folder, config, words, tensors)
        self.assertEqual(self.failure(f"--model={folder}", "--in_process")[0],
                         "generate_text.py: model.safetensors has no 'model.layers.1.mlp.up_proj.weight'")
        del config["rope_theta"]
        checkpoint.write(folder, config, words, tensors)
        self.assertEqual(self.failure(f"--model={folder}", "--in_process")[0], "generate_text.py: config.json has no 'rope_theta'")

    def test_says_what_a_gguf_file_lacks(self):
        reader = convert.gguf.GGUFReader(self.gguf)
        with self.assertRaisesRegex(ValueError, "^the GGUF file has no 'blk.2.attn_norm.weight'$"):
            convert.tensors_of(reader, dict(convert.config_of(reader), num_hidden_layers=tiny_llama.LAYERS + 1))

    def test_kills_a_server_that_does_not_end(self):
        program = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)\n"
                   "while True: time.sleep(1)"]
        said = io.StringIO()
        with subprocess.Popen(program, stdout=subprocess.PIPE) as process, unittest.mock.patch.object(local_server, "STOP_SECONDS", 0):
            process.stdout.readline()
            with contextlib.redirect_stderr(said):
                self.assertEqual(local_server.stop(process), -signal.SIGKILL)
        self.assertEqual(said.getvalue(), "the server did not end within 0 s and was killed\n")

    def test_the_process_takes_values_whose_exp_is_infinite(self):
        x = numpy.full((1, tiny_llama.HIDDEN), 1e4, BF16)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertTrue(numpy.isfinite(mlps.InProcessMlps(self.folder)(0, x).astype(numpy.float32)).all())

    def test_refuses_what_the_model_cannot_read(self):
        self.assertEqual(self.failure(self.model, "--in_process", question="\a")[0],
                         "generate_text.py: the vocabulary has no token for byte 0x07")
        length = len(self.words.chat("." * 500))
        self.assertEqual(self.failure(self.model, "--in_process", question="." * 500)[0],
                         f"generate_text.py: the text has {length} tokens; the model takes at most 512")

    def mlps_of_server(self):
        return generate_text.chosen_mlps(generate_text.parsed([self.model, f"--server={self.server.address}"]))

    def converted(self):
        tensors = checkpoint.Tensors(self.folder)
        return {name: tensors[name].astype(numpy.float32) for name in self.tensors}


if __name__ == "__main__":
    server_process.main()
