// SPDX-License-Identifier: Apache-2.0
//
// Example: forward, h = SiLU(e) * g, of FP32 values on a server, with gRPC for Node.js, which reads the protocol file itself.
// `node forward.js HOST:PORT` ends with 0 if the answer is right. `npm install` in this folder gets what it needs.
'use strict';

const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTO = path.join(__dirname, '../../../proto/inference.proto');

// Returns values as a tensor's raw bytes, which are little-endian.
function toBytes(values) {
  const raw = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => raw.writeFloatLE(value, 4 * i));
  return raw;
}

// The reverse of toBytes.
function toValues(raw) {
  return Float32Array.from({ length: raw.length / 4 }, (_, i) => raw.readFloatLE(4 * i));
}

// Runs a model on e and g, and resolves to its output h. The error has the server's code: error.code.
function infer(client, model, e, g) {
  const tensor = (name, values) => ({ name, datatype: 'FP32', shape: [values.length] });
  const request = {
    modelName: model,
    inputs: [tensor('e', e), tensor('g', g)],
    rawInputContents: [toBytes(e), toBytes(g)],
  };
  // Without a deadline, a call waits for as long as it takes.
  const options = { deadline: Date.now() + 10_000 };
  return new Promise((resolve, reject) => {
    client.ModelInfer(request, options, (error, response) => {
      if (error) reject(error);
      else resolve(toValues(response.rawOutputContents[0]));
    });
  });
}

function isRight(e, g, h) {
  return h.length === e.length && e.every((x, i) => {
    const want = (x / (1 + Math.exp(-x))) * g[i];
    return Math.abs(h[i] - want) <= 1e-5 * Math.abs(want) + 1e-6;
  });
}

async function main(address) {
  const { inference } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO));
  // By default gRPC for Node.js takes answers of at most 4 MiB; -1 means any size.
  const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(),
    { 'grpc.max_receive_message_length': -1 });

  const e = Float32Array.from({ length: 1000 }, (_, i) => (i - 500) / 100);
  const g = Float32Array.from({ length: 1000 }, (_, i) => (i % 7) - 3);
  const h = await infer(client, 'swiglu_forward_fp32', e, g);
  if (!isRight(e, g, h)) throw new Error('wrong: h is not SiLU(e) * g');

  // The code decides what to do: UNAVAILABLE, for example, is worth another try.
  const code = await infer(client, 'nope', e, g).then(() => grpc.status.OK, (error) => error.code);
  if (code !== grpc.status.NOT_FOUND) {
    throw new Error(`wrong: a model that does not exist is ${code}, want NOT_FOUND`);
  }
  client.close();
  console.log(`forward.js: ${h.length} elements are right`);
}

main(process.argv[2]).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
