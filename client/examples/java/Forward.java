// SPDX-License-Identifier: Apache-2.0
//
// Example: forward, h = SiLU(e) * g, of FP32 values on a server, with stubs that protoc made. `forward HOST:PORT` ends with 0 if
// the answer is right. build.sh makes the stubs and the program.
import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.concurrent.TimeUnit;
import swiglu.inference.GRPCInferenceServiceGrpc;
import swiglu.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import swiglu.inference.ModelInferRequest;
import swiglu.inference.ModelInferRequest.InferInputTensor;
import swiglu.inference.ModelInferResponse;

final class Forward {
  /** Returns values as a tensor's raw bytes, which are little-endian. */
  static ByteString toBytes(float[] values) {
    ByteBuffer raw = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    raw.asFloatBuffer().put(values);
    return ByteString.copyFrom(raw);
  }

  /** The reverse of toBytes. */
  static float[] toValues(ByteString raw) {
    float[] values = new float[raw.size() / 4];
    raw.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
    return values;
  }

  static InferInputTensor tensor(String name, float[] values) {
    return InferInputTensor.newBuilder().setName(name).setDatatype("FP32").addShape(values.length).build();
  }

  /** Runs a model on e and g, and returns its output h. The exception has the server's code. */
  static float[] infer(GRPCInferenceServiceBlockingStub stub, String model, float[] e, float[] g) {
    ModelInferRequest request =
        ModelInferRequest.newBuilder()
            .setModelName(model)
            .addInputs(tensor("e", e))
            .addInputs(tensor("g", g))
            .addRawInputContents(toBytes(e))
            .addRawInputContents(toBytes(g))
            .build();
    // Without a deadline, a call waits for as long as it takes.
    ModelInferResponse response = stub.withDeadlineAfter(10, TimeUnit.SECONDS).modelInfer(request);
    return toValues(response.getRawOutputContents(0));
  }

  static boolean isRight(float[] e, float[] g, float[] h) {
    if (h.length != e.length) return false;
    for (int i = 0; i < h.length; ++i) {
      double want = e[i] / (1 + Math.exp(-e[i])) * g[i];
      if (!(Math.abs(h[i] - want) <= 1e-5 * Math.abs(want) + 1e-6)) return false;
    }
    return true;
  }

  static void check(GRPCInferenceServiceBlockingStub stub) {
    float[] e = new float[1000];
    float[] g = new float[1000];
    for (int i = 0; i < e.length; ++i) {
      e[i] = (i - 500) / 100f;
      g[i] = i % 7 - 3;
    }
    float[] h = infer(stub, "swiglu_forward_fp32", e, g);
    if (!isRight(e, g, h)) throw new IllegalStateException("wrong: h is not SiLU(e) * g");

    // The code decides what to do: UNAVAILABLE, for example, is worth another try.
    Status.Code code = Status.Code.OK;
    try {
      infer(stub, "nope", e, g);
    } catch (StatusRuntimeException error) {
      code = error.getStatus().getCode();
    }
    if (code != Status.Code.NOT_FOUND) {
      throw new IllegalStateException("wrong: a model that does not exist is " + code + ", want NOT_FOUND");
    }
    System.out.println("Forward.java: " + h.length + " elements are right");
  }

  public static void main(String[] arguments) {
    // By default gRPC for Java takes answers of at most 4 MiB.
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(arguments[0])
            .usePlaintext()
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .build();
    try {
      check(GRPCInferenceServiceGrpc.newBlockingStub(channel));
    } catch (IllegalStateException | StatusRuntimeException error) {
      System.err.println(error.getMessage());
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }
}
