#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Server reflection by the gRPC project's own client of it, which knows nothing of this project's messages: what it finds has
# to be the wire contract, and enough to make a call.
import struct
import threading
import unittest

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import server_process
from plain_grpc import Connection
from server_process import DEADLINE_S, Server

SERVICES = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
            "inference.GRPCInferenceService"]
METHOD = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"


def connect(server):
    """A channel to the server, whatever proxy the environment names."""
    return grpc.insecure_channel(server.address, options=[("grpc.enable_http_proxy", 0)])


def ask(channel, *questions, version="v1alpha"):
    """The answers to questions of one call; versions have the same messages."""
    method = channel.stream_stream(METHOD.format(version),
                                   request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                                   response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
    return list(method(iter([reflection_pb2.ServerReflectionRequest(**question) for question in questions]),
                       timeout=DEADLINE_S))


class ReflectionTest(unittest.TestCase):
    def setUp(self):
        self.server = Server("--reflection")
        self.addCleanup(self.server.kill)
        self.channel = connect(self.server)
        self.addCleanup(self.channel.close)

    def test_stock_client_finds_every_service_and_all_that_it_needs(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.assertEqual(list(database.get_services()), SERVICES)
        pool = DescriptorPool(database)
        for name in SERVICES:
            service = pool.FindServiceByName(name)
            self.assertTrue(service.methods)
            for method in service.methods:
                self.assertTrue(method.input_type.full_name)
                self.assertTrue(method.output_type.full_name)

    def test_stock_client_calls_a_method_that_it_has_only_just_heard_of(self):
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        method = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelMetadata"]
        request_type, response_type = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
        call = self.channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata",
                                        request_serializer=request_type.SerializeToString,
                                        response_deserializer=response_type.FromString)
        answer = call(request_type(name="swiglu_forward_fp16"), timeout=DEADLINE_S)
        self.assertEqual([tensor.name for tensor in answer.inputs], ["e", "g"])

    def test_both_versions_answer_alike(self):
        questions = [{"list_services": ""}, {"file_containing_symbol": "inference.ModelConfig.backend"},
                     {"file_by_filename": "proto/health.proto"}, {"file_containing_symbol": "nope"}]
        older = ask(self.channel, *questions)
        self.assertEqual(older, ask(self.channel, *questions, version="v1"))
        self.assertEqual([answer.WhichOneof("message_response") for answer in older],
                         ["list_services_response", "file_descriptor_response", "file_descriptor_response",
                          "error_response"])
        self.assertEqual([answer.original_request for answer in older],
                         [reflection_pb2.ServerReflectionRequest(**question) for question in questions])

    def test_what_is_not_there_is_an_answer_and_the_call_goes_on(self):
        extension = reflection_pb2.ExtensionRequest(containing_type="inference.ModelConfig", extension_number=1)
        answers = ask(self.channel, {"file_by_filename": "/etc/passwd"}, {"file_containing_symbol": "x" * 1000},
                      {"file_containing_extension": extension}, {"all_extension_numbers_of_type": "nope"}, {},
                      {"all_extension_numbers_of_type": "inference.ModelConfig"})
        errors = [(answer.error_response.error_code, answer.error_response.error_message) for answer in answers]
        self.assertEqual(errors[:5], [(5, "this server's services know no '/etc/passwd'"),
                                      (5, f"this server's services know no '{'x' * 128}...'"),
                                      (5, "this server's services know no 'inference.ModelConfig'"),
                                      (5, "this server's services know no 'nope'"),
                                      (3, "malformed ServerReflectionRequest: it asks nothing")])
        self.assertEqual(answers[5].all_extension_numbers_response.base_type_name, "inference.ModelConfig")

    def test_question_that_is_too_large_ends_the_call(self):
        with self.assertRaises(grpc.RpcError) as raised:
            ask(self.channel, {"file_containing_symbol": "x" * 70_000})
        self.assertEqual(raised.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertRegex(raised.exception.details(),
                         r"^ServerReflectionRequest of \d+ bytes exceeds the 65536 that it may have$")

    def test_open_call_does_not_hold_up_a_drain(self):
        method = self.channel.stream_stream(METHOD.format("v1alpha"),
                                            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                                            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
        questions = Questions()
        self.addCleanup(questions.close)
        call = method(questions, timeout=DEADLINE_S)
        next(call)
        self.assertEqual(self.server.stop(), 0)
        with self.assertRaises(grpc.RpcError) as raised:
            next(call)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)


class LargeQuestionTest(unittest.TestCase):
    def test_question_that_grows_too_large_is_refused_before_all_of_it_is_there(self):
        with Server("--reflection") as server, Connection(server.address) as connection:
            call = connection.open(METHOD.format("v1"))
            call.pour(b"\0" + struct.pack(">I", 100_000_000) + bytes(300_000))
            code, sentence = call.status()
            self.assertEqual((code, sentence), (8, "message exceeds the 65536 bytes that it may have"))


class StallTest(unittest.TestCase):
    def test_caller_that_asks_no_more_is_not_kept(self):
        with Server("--reflection", "--stall_timeout=1s") as server, Connection(server.address) as connection:
            call = connection.open(METHOD.format("v1"))
            call.send(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString(), last=False)
            self.assertIsNotNone(call.message())
            self.assertEqual(call.status(), (4, "the message did not come within 1.003s"))

    def test_caller_that_takes_no_answer_is_not_kept(self):
        with Server("--reflection", "--stall_timeout=1s") as server, Connection(server.address, window_bytes=0) as connection:
            call = connection.open(METHOD.format("v1"))
            call.send(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString(), last=False)
            self.assertEqual(call.status()[0], 1)


class Questions:
    """One question, and then none until it is closed."""

    def __init__(self):
        self._asked = False
        self._closed = threading.Event()

    def __iter__(self):
        return self

    def __next__(self):
        if not self._asked:
            self._asked = True
            return reflection_pb2.ServerReflectionRequest(list_services="")
        self._closed.wait(DEADLINE_S)
        raise StopIteration

    def close(self):
        """Ends the questions."""
        self._closed.set()


class OffTest(unittest.TestCase):
    def test_reflection_is_off_unless_asked_for(self):
        for flags in ((), ("--reflection=off",)):
            for version in ("v1", "v1alpha"):
                with self.subTest(flags=flags, version=version), Server(*flags) as server, connect(server) as channel:
                    with self.assertRaises(grpc.RpcError) as raised:
                        ask(channel, {"list_services": ""}, version=version)
                    self.assertEqual(raised.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
                    self.assertEqual(raised.exception.details(),
                                     "ServerReflectionInfo: this server runs without --reflection")


if __name__ == "__main__":
    server_process.main()
