#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Everything but inference, by the stock Python client of the protocol against the server; and the project's wire contract,
# line by line, against the contract that this client was built from.
import pathlib
import unittest

import numpy
import tritonclient.grpc as triton
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

import server_process
from triton_fixture import TritonTest

MODELS = tuple(f"swiglu_{op}_{dtype}" for op in ("forward", "backward") for dtype in ("fp16", "bf16", "fp32"))
GOLDEN = pathlib.Path(__file__).parent / "golden_descriptor.txt"

# What protocol.md adds to the stock contract: a field, and the type of the map behind it.
ADDED = "inference.ModelMetadataResponse.(properties|PropertiesEntry)"


def tensors_of(model):
    """The names of a model's inputs and outputs, its datatype and how many dimensions it shows."""
    op, datatype = model.split("_")[1:]
    if op == "forward":
        return ["e", "g"], ["h"], datatype.upper(), 3
    return ["DW", "e", "g"], ["h", "df", "de"], datatype.upper(), 2


class ServerTest(TritonTest):
    def test_server_is_live_and_ready(self):
        self.assertIs(self.client.is_server_live(), True)
        self.assertIs(self.client.is_server_ready(), True)

    def test_known_models_are_ready_and_others_are_not(self):
        for model in MODELS:
            self.assertIs(self.client.is_model_ready(model), True)
            self.assertIs(self.client.is_model_ready(model, "1"), True)
            self.assertIs(self.client.is_model_ready(model, "2"), False)
        self.assertIs(self.client.is_model_ready("nope"), False)

    def test_server_metadata_says_what_is_there(self):
        metadata = self.client.get_server_metadata()
        self.assertEqual(metadata.name, "swiglu-server")
        self.assertRegex(metadata.version, r"^\d+\.\d+\.\d+$")
        self.assertLessEqual({"binary_tensor_data", "model_configuration", "parameters", "schedule_policy", "statistics"},
                             set(metadata.extensions))
        self.assertFalse({"system_shared_memory", "cuda_shared_memory"} & set(metadata.extensions))

    def test_repository_index_lists_every_model(self):
        index = self.client.get_model_repository_index()
        self.assertEqual({(model.name, model.version, model.state, model.reason) for model in index.models},
                         {(model, "1", "READY", "") for model in MODELS})


class ModelTest(TritonTest):
    def test_metadata_names_tensors_types_and_shapes(self):
        for model in MODELS:
            with self.subTest(model):
                inputs, outputs, datatype, rank = tensors_of(model)
                metadata = self.client.get_model_metadata(model)
                self.assertEqual((metadata.name, list(metadata.versions), metadata.platform), (model, ["1"], "swiglu"))
                for found, names in ((metadata.inputs, inputs), (metadata.outputs, outputs)):
                    self.assertEqual([(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in found],
                                     [(name, datatype, [-1] * rank) for name in names])

    def test_config_agrees_with_the_metadata(self):
        for model in MODELS:
            with self.subTest(model):
                inputs, outputs, datatype, rank = tensors_of(model)
                config = self.client.get_model_config(model, "1").config
                self.assertEqual((config.name, config.platform, config.max_batch_size), (model, "swiglu", 0))
                for found, names in ((config.input, inputs), (config.output, outputs)):
                    self.assertEqual([(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in found],
                                     [(name, model_config_pb2.DataType.Value(f"TYPE_{datatype}"), [-1] * rank)
                                      for name in names])
                self.assertEqual(config.instance_group[0].kind, model_config_pb2.ModelInstanceGroup.KIND_CPU)
                self.assertGreater(config.instance_group[0].count, 0)
                self.assertRegex(config.parameters["shape"].string_value, "^any rank and sizes")
                self.assertFalse(config.model_transaction_policy.decoupled)

    def test_unknown_model_or_version_is_not_found(self):
        for call in (self.client.get_model_metadata, self.client.get_model_config, self.client.get_inference_statistics):
            self.assert_refused("NOT_FOUND", server_process.UNKNOWN_MODEL, lambda: call("nope"))
            self.assert_refused("NOT_FOUND", "model 'swiglu_forward_fp16' has version 1, not 7",
                                lambda: call("swiglu_forward_fp16", "7"))
            self.assert_refused("INVALID_ARGUMENT", "model version 'x' is not an integer",
                                lambda: call("swiglu_forward_fp16", "x"))

    def test_statistics_count_requests_and_failures(self):
        def figures(model):
            statistics, = self.client.get_inference_statistics(model).model_stats
            self.assertEqual((statistics.name, statistics.version), (model, "1"))
            return statistics

        model = "swiglu_forward_fp32"
        self.assertEqual((figures(model).inference_count, figures(model).last_inference), (0, 0))
        data = numpy.ones(8, numpy.float32)
        inputs = [triton.InferInput(name, [8], "FP32").set_data_from_numpy(data) for name in ("e", "g")]
        for _ in range(5):
            self.client.infer(model, inputs)
        self.assert_refused("INVALID_ARGUMENT", "input 'g' is missing", lambda: self.client.infer(model, inputs[:1]))
        after = figures(model)
        self.assertEqual(after.inference_count, 5)
        self.assertTrue(1 <= after.execution_count <= 5)
        self.assertGreater(after.last_inference, 1_600_000_000_000)
        stats = after.inference_stats
        for part in (stats.success, stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output):
            self.assertEqual(part.count, 5)
        self.assertEqual(stats.fail.count, 1)
        self.assertGreater(stats.success.ns, 0)
        self.assertEqual(sum(batch.compute_infer.count for batch in after.batch_stats), after.execution_count)
        self.assertEqual([each.name for each in self.client.get_inference_statistics().model_stats], list(MODELS))


class RefusedTest(TritonTest):
    def test_methods_that_are_not_offered_are_unimplemented_with_a_reason(self):
        client = self.client
        no_shared = "this server takes no shared memory"
        calls = {
            "RepositoryModelLoad": (lambda: client.load_model("mlp_m"), "this server runs without --mlp_control"),
            "RepositoryModelUnload": (lambda: client.unload_model("mlp_m"), "the models of this server are fixed"),
            "TraceSetting": (client.get_trace_settings, "this server keeps no traces"),
            "LogSettings": (client.get_log_settings, "logging is set by the server's flags alone"),
            "SystemSharedMemoryStatus": (client.get_system_shared_memory_status, no_shared),
            "SystemSharedMemoryRegister": (lambda: client.register_system_shared_memory("r", "/key", 64), no_shared),
            "SystemSharedMemoryUnregister": (client.unregister_system_shared_memory, no_shared),
            "CudaSharedMemoryStatus": (client.get_cuda_shared_memory_status, no_shared),
            "CudaSharedMemoryRegister": (lambda: client.register_cuda_shared_memory("r", b"QUJD", 0, 64), no_shared),
            "CudaSharedMemoryUnregister": (client.unregister_cuda_shared_memory, no_shared),
        }
        for method, (call, reason) in calls.items():
            with self.subTest(method):
                self.assert_refused("UNIMPLEMENTED", f"{method}: {reason}", call)
        self.assert_refused("UNIMPLEMENTED", "TraceSetting: this server keeps no traces",
                            lambda: client.update_trace_settings(settings={"trace_level": ["OFF"]}))
        self.assertIs(client.is_server_ready(), True)


class ContractTest(unittest.TestCase):
    def stock_line(self, line):
        """What `line` of the golden file is in the client's own contract; None where that has no such thing."""
        pool = service_pb2.DESCRIPTOR.pool
        kind, name = line.split(" ")[:2]
        try:
            if kind == "message":
                is_map = pool.FindMessageTypeByName(name).GetOptions().map_entry
                return f"message {name}" + (" of a map" if is_map else "")
            if kind == "value":
                enum, _, value = name.rpartition(".")
                return f"value {name} = {pool.FindEnumTypeByName(enum).values_by_name[value].number}"
            if kind == "rpc":
                method = pool.FindMethodByName(name)
                return (f"rpc {name} : {'stream ' if method.client_streaming else ''}{method.input_type.full_name} -> "
                        f"{'stream ' if method.server_streaming else ''}{method.output_type.full_name}")
            field = pool.FindFieldByName(name)
        except KeyError:
            return None
        named = field.message_type or field.enum_type
        types = {number: key[5:].lower() for key, number in vars(FieldDescriptor).items() if key.startswith("TYPE_")}
        oneof = f" in oneof {field.containing_oneof.name}" if field.containing_oneof else ""
        return (f"field {name} = {field.number} : {'repeated ' if field.is_repeated else ''}"
                f"{named.full_name if named else types[field.type]}{oneof}")

    def test_every_line_is_as_in_the_stock_contract(self):
        lines = [line for line in GOLDEN.read_text().splitlines() if " inference." in line]
        self.assertGreater(len(lines), 300)
        for line in lines:
            with self.subTest(line):
                stock = self.stock_line(line)
                if stock is None:
                    self.assertRegex(line.split(" ")[1], f"^{ADDED}")
                else:
                    self.assertEqual(line, stock)


if __name__ == "__main__":
    server_process.main()
