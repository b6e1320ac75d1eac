#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Inference by the stock Python client of the protocol against the server: every model and rank, each of the client's ways to
# call, deadlines, and every sentence of a refusal that the client can provoke.
import queue

import ml_dtypes
import numpy
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import contract
import server_process
from server_process import DEADLINE_S, UNKNOWN_MODEL
from triton_fixture import TritonTest

NUMPY_TYPES = {"FP16": numpy.float16, "BF16": ml_dtypes.bfloat16, "FP32": numpy.float32}
INPUTS = {"forward": ("e", "g"), "backward": ("DW", "e", "g")}
OUTPUTS = {"forward": ("h",), "backward": ("h", "df", "de")}


def model_of(op, dtype):
    return f"swiglu_{op}_{dtype.name.lower()}"


def make_input(name, array):
    """An input as a user makes it."""
    datatype = {numpy_type: datatype for datatype, numpy_type in NUMPY_TYPES.items()}[array.dtype.type]
    made = triton.InferInput(name, list(array.shape), datatype)
    return made.set_data_from_numpy(array)


def make_inputs(op, dtype, shape, seed=0):
    """Random arrays by name, and the inputs made of them."""
    source = numpy.random.default_rng(seed)
    arrays = {name: numpy.asarray(source.normal(0, 2, shape), NUMPY_TYPES[dtype.name]) for name in INPUTS[op]}
    return arrays, [make_input(name, array) for name, array in arrays.items()]


def forward_inputs(shape=(3, 4), dtype=contract.FP16):
    return make_inputs("forward", dtype, shape)[1]


class ArithmeticTest(TritonTest):
    def assert_right(self, op, dtype, shape, arrays, result):
        """The result has every output, of the right type, shape and values."""
        raw = {name.lower(): array.tobytes() for name, array in arrays.items()}
        for name in OUTPUTS[op]:
            self.assertEqual(result.get_output(name).datatype, dtype.name)
            output = result.as_numpy(name)
            self.assertEqual((output.shape, output.dtype), (tuple(shape), NUMPY_TYPES[dtype.name]))
            raw[name] = output.tobytes()
        faults = contract.forward_faults if op == "forward" else contract.backward_faults
        self.assertEqual(faults(dtype, **raw), [])


class ResultTest(ArithmeticTest):
    def test_every_model_is_right_for_every_rank_and_for_no_elements(self):
        for op in INPUTS:
            for dtype in contract.DTYPES:
                for shape in ((), (1,), (257,), (5, 33), (2, 3, 37), (0,), (4, 0), (0, 2, 3)):
                    with self.subTest(op=op, dtype=dtype.name, shape=shape):
                        arrays, inputs = make_inputs(op, dtype, shape, seed=len(shape))
                        result = self.client.infer(model_of(op, dtype), inputs)
                        self.assert_right(op, dtype, shape, arrays, result)

    def test_special_values_follow_the_contract(self):
        e = numpy.array([numpy.nan, numpy.inf, -numpy.inf, -200, 0, -0.0], numpy.float32)
        result = self.client.infer("swiglu_forward_fp32", [make_input("e", e), make_input("g", numpy.ones_like(e))])
        h = result.as_numpy("h")
        self.assertEqual(str(h), "[nan inf nan -0.  0. -0.]")

    def test_requested_outputs_come_alone_and_in_that_order(self):
        arrays, inputs = make_inputs("backward", contract.FP32, (6,))
        outputs = [triton.InferRequestedOutput(name) for name in ("de", "h")]
        result = self.client.infer("swiglu_backward_fp32", inputs, outputs=outputs)
        response = result.get_response()
        self.assertEqual([output.name for output in response.outputs], ["de", "h"])
        self.assertEqual(len(response.raw_output_contents), 2)
        self.assertIsNone(result.as_numpy("df"))
        whole = self.client.infer("swiglu_backward_fp32", inputs)
        self.assert_right("backward", contract.FP32, (6,), arrays, whole)
        for name in ("de", "h"):
            self.assertEqual(result.as_numpy(name).tobytes(), whole.as_numpy(name).tobytes())

    def test_response_echoes_id_model_and_concrete_version(self):
        for version in ("", "1"):
            result = self.client.infer("swiglu_forward_fp16", forward_inputs(), model_version=version, request_id="a-7 ü")
            response = result.get_response()
            self.assertEqual((response.id, response.model_name, response.model_version),
                             ("a-7 ü", "swiglu_forward_fp16", "1"))

    def test_order_of_inputs_and_tolerated_parameters_change_nothing(self):
        arrays, inputs = make_inputs("forward", contract.BF16, (9,))
        result = self.client.infer("swiglu_forward_bf16", inputs[::-1], priority=3, timeout=60_000_000,
                                   parameters={"mine": "x", "answer": 42})
        self.assert_right("forward", contract.BF16, (9,), arrays, result)

    def test_compressed_request_is_refused(self):
        _, inputs = make_inputs("forward", contract.FP32, (50,))
        with self.assertRaises(InferenceServerException) as refused:
            self.client.infer("swiglu_forward_fp32", inputs, compression_algorithm="gzip")
        self.assertEqual((refused.exception.status(), refused.exception.message()),
                         ("StatusCode.UNIMPLEMENTED", "Compression algorithm 'gzip' is disabled."))

    def test_message_of_many_frames_is_right(self):
        arrays, inputs = make_inputs("forward", contract.FP16, (3, 100_000))
        result = self.client.infer("swiglu_forward_fp16", inputs)
        self.assert_right("forward", contract.FP16, (3, 100_000), arrays, result)

    def test_asynchronous_calls_all_come_back_right(self):
        results = queue.Queue()
        sent = {}
        for number in range(20):
            arrays, inputs = make_inputs("backward", contract.FP16, (number,), seed=number)
            sent[str(number)] = arrays
            self.client.async_infer("swiglu_backward_fp16", inputs, request_id=str(number),
                                    callback=lambda result, error: results.put((result, error)))
        for _ in range(20):
            result, error = results.get(timeout=DEADLINE_S)
            self.assertIsNone(error)
            number = result.get_response().id
            self.assert_right("backward", contract.FP16, (int(number),), sent.pop(number), result)
        self.assertEqual(sent, {})


class StreamTest(ArithmeticTest):
    def test_error_leaves_the_stream_open(self):
        answers = queue.Queue()
        self.client.start_stream(callback=lambda result, error: answers.put((result, error)))
        arrays, inputs = make_inputs("forward", contract.BF16, (2, 8))
        self.client.async_stream_infer("swiglu_forward_bf16", inputs, request_id="first")
        result, error = answers.get(timeout=DEADLINE_S)
        self.assertIsNone(error)
        self.assertEqual(result.get_response().id, "first")

        self.client.async_stream_infer("nope", inputs, request_id="second")
        result, error = answers.get(timeout=DEADLINE_S)
        self.assertIsNone(result)
        self.assertEqual(error.message(), UNKNOWN_MODEL)

        self.client.async_stream_infer("swiglu_forward_bf16", inputs, request_id="third")
        result, error = answers.get(timeout=DEADLINE_S)
        self.assertIsNone(error)
        self.assertEqual(result.get_response().id, "third")
        self.assert_right("forward", contract.BF16, (2, 8), arrays, result)
        self.client.stop_stream()
        self.assertTrue(answers.empty())

    def test_error_ends_the_stream_with_its_code_where_that_is_asked_for(self):
        answers = queue.Queue()
        self.client.start_stream(callback=lambda result, error: answers.put((result, error)),
                                 headers={"triton_grpc_error": "true"})
        _, inputs = make_inputs("forward", contract.BF16, (2, 8))
        self.client.async_stream_infer("swiglu_forward_bf16", inputs, request_id="first")
        self.assertEqual(answers.get(timeout=DEADLINE_S)[0].get_response().id, "first")
        self.client.async_stream_infer("swiglu_forward_bf16", inputs, model_version="7")
        result, error = answers.get(timeout=DEADLINE_S)
        self.assertIsNone(result)
        self.assertEqual((error.status(), error.message()),
                         ("StatusCode.NOT_FOUND", "model 'swiglu_forward_bf16' has version 1, not 7"))
        self.client.stop_stream()
        self.client.infer("swiglu_forward_bf16", inputs)

    def test_answer_is_marked_as_final_where_that_is_asked_for(self):
        answers = queue.Queue()
        self.client.start_stream(callback=lambda result, error: answers.put((result, error)))
        arrays, inputs = make_inputs("forward", contract.BF16, (2, 8))
        for asked in (True, False):
            self.client.async_stream_infer("swiglu_forward_bf16", inputs, enable_empty_final_response=asked)
            result, error = answers.get(timeout=DEADLINE_S)
            self.assertIsNone(error)
            self.assert_right("forward", contract.BF16, (2, 8), arrays, result)
            marks = {name: value.bool_param for name, value in result.get_response().parameters.items()}
            self.assertEqual(marks, {"triton_final_response": True} if asked else {})
        self.client.stop_stream()

    def test_many_requests_of_all_dtypes_each_get_their_own_answer(self):
        answers = queue.Queue()
        self.client.start_stream(callback=lambda result, error: answers.put((result, error)))
        sent = {}
        for number in range(30):
            dtype = contract.DTYPES[number % 3]
            arrays, inputs = make_inputs("forward", dtype, (number,), seed=number)
            sent[str(number)] = (dtype, arrays)
            self.client.async_stream_infer(model_of("forward", dtype), inputs, request_id=str(number))
        self.client.stop_stream()
        self.assertEqual(answers.qsize(), 30)
        while not answers.empty():
            result, error = answers.get()
            self.assertIsNone(error)
            number = result.get_response().id
            dtype, arrays = sent.pop(number)
            self.assert_right("forward", dtype, (int(number),), arrays, result)


class DeadlineTest(TritonTest):
    # A request waits for others, and so beyond a microsecond.
    SERVER_FLAGS = ("--max_queue_delay=10ms",)

    def test_client_timeout_gives_deadline_exceeded(self):
        with self.assertRaises(InferenceServerException) as raised:
            self.client.infer("swiglu_forward_fp16", forward_inputs((1000, 1000)), client_timeout=1e-4)
        self.assertEqual(raised.exception.status(), "StatusCode.DEADLINE_EXCEEDED")
        self.client.infer("swiglu_forward_fp16", forward_inputs())

    def test_timeout_parameter_gives_deadline_exceeded_by_the_server(self):
        self.assert_refused("DEADLINE_EXCEEDED", "deadline passed before execution",
                            lambda: self.client.infer("swiglu_forward_fp16", forward_inputs((1000, 100)), timeout=1))


class RefusalTest(TritonTest):
    def infer(self, inputs, model="swiglu_forward_fp16", **options):
        return lambda: self.client.infer(model, inputs, **options)

    def tearDown(self):
        self.client.infer("swiglu_forward_fp16", forward_inputs())

    def test_unknown_model_or_version_is_named(self):
        good = forward_inputs()
        self.assert_refused("NOT_FOUND", UNKNOWN_MODEL, self.infer(good, "nope"))
        self.assert_refused("NOT_FOUND", "model 'swiglu_forward_fp16' has version 1, not 7",
                            self.infer(good, model_version="7"))
        self.assert_refused("INVALID_ARGUMENT", "model version 'x' is not an integer", self.infer(good, model_version="x"))

    def test_wrong_inputs_are_named(self):
        e, g = forward_inputs()
        up = make_input("up", numpy.zeros((3, 4), numpy.float16))
        self.assert_refused("INVALID_ARGUMENT", "input 'e' is missing", self.infer([g]))
        self.assert_refused("INVALID_ARGUMENT", "unknown input 'up': 'swiglu_forward_fp16' takes e, g", self.infer([e, up]))
        self.assert_refused("INVALID_ARGUMENT", "input 'e' is given twice", self.infer([e, g, e]))

    def test_wrong_outputs_are_named(self):
        h, y = triton.InferRequestedOutput("h"), triton.InferRequestedOutput("y")
        self.assert_refused("INVALID_ARGUMENT", "unknown output 'y': 'swiglu_forward_fp16' gives h",
                            self.infer(forward_inputs(), outputs=[y]))
        self.assert_refused("INVALID_ARGUMENT", "output 'h' is given twice", self.infer(forward_inputs(), outputs=[h, h]))

    def test_wrong_datatype_is_named(self):
        self.assert_refused("INVALID_ARGUMENT", "input 'e' is FP32; 'swiglu_forward_fp16' takes FP16",
                            self.infer(forward_inputs(dtype=contract.FP32)))

    def test_wrong_shapes_are_shown(self):
        e, g = forward_inputs((3, 4))[0], forward_inputs((4, 3))[1]
        self.assert_refused("INVALID_ARGUMENT", "shape of 'g' is [4,3]; 'e' has [3,4]", self.infer([e, g]))
        for shape, sentence in (([-3, 4], "shape of 'e' has a negative dimension: [-3,4]"),
                                ([2**40, 2**40], f"shape of 'e' is too large: [{2**40},{2**40}]"),
                                ([4, 8], "input 'e' has 24 bytes; shape [4,8] of FP16 needs 64")):
            inputs = forward_inputs((3, 4))
            self.assert_refused("INVALID_ARGUMENT", sentence, self.infer([each.set_shape(shape) for each in inputs]))

    def test_missing_data_and_foreign_parameters_are_named(self):
        empty = [triton.InferInput(name, [2], "FP16") for name in ("e", "g")]
        self.assert_refused("INVALID_ARGUMENT", "input 'e' has no data; shape [2] of FP16 needs 4 bytes", self.infer(empty))
        self.assert_refused("INVALID_ARGUMENT", r"parameter 'sequence_\w+' is not supported",
                            self.infer(forward_inputs(), sequence_id=5), pattern=True)
        classified = [triton.InferRequestedOutput("h", class_count=2)]
        self.assert_refused("INVALID_ARGUMENT", "parameter 'classification' is not supported",
                            self.infer(forward_inputs(), outputs=classified))

    def test_shared_memory_is_unimplemented_and_names_the_region_alone(self):
        inputs = forward_inputs()
        inputs[0].set_shared_memory("region", 24)
        self.assert_refused(
            "UNIMPLEMENTED", "'e' lies in shared memory region 'region', but this server takes no shared memory",
            self.infer(inputs))


if __name__ == "__main__":
    server_process.main()
