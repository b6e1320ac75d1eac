// SPDX-License-Identifier: Apache-2.0
//
// Example: forward, h = SiLU(e) * g, of FP32 values on a server, with stubs that protoc made. `forward HOST:PORT` ends with 0 if
// the answer is right. build.sh makes the stubs and the program.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"swiglu/inference"
)

// toBytes returns values as a tensor's raw bytes, which are little-endian.
func toBytes(values []float32) []byte {
	raw := make([]byte, 4*len(values))
	for i, value := range values {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(value))
	}
	return raw
}

// toValues is the reverse of toBytes.
func toValues(raw []byte) []float32 {
	values := make([]float32, len(raw)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return values
}

// infer runs a model on e and g, and returns its output h. An error has the server's code: status.Code(err).
func infer(client inference.GRPCInferenceServiceClient, model string, e, g []float32) ([]float32, error) {
	// Without a deadline, a call waits for as long as it takes.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request := &inference.ModelInferRequest{ModelName: model}
	for _, tensor := range []struct {
		name   string
		values []float32
	}{{"e", e}, {"g", g}} {
		request.Inputs = append(request.Inputs, &inference.ModelInferRequest_InferInputTensor{
			Name: tensor.name, Datatype: "FP32", Shape: []int64{int64(len(tensor.values))}})
		request.RawInputContents = append(request.RawInputContents, toBytes(tensor.values))
	}
	response, err := client.ModelInfer(ctx, request)
	if err != nil {
		return nil, err
	}
	return toValues(response.RawOutputContents[0]), nil
}

func isRight(e, g, h []float32) bool {
	if len(h) != len(e) {
		return false
	}
	for i := range h {
		x := float64(e[i])
		want := x / (1 + math.Exp(-x)) * float64(g[i])
		if math.Abs(float64(h[i])-want) > 1e-5*math.Abs(want)+1e-6 {
			return false
		}
	}
	return true
}

func run(address string) error {
	// By default gRPC for Go takes answers of at most 4 MiB.
	connection, err := grpc.Dial(address, grpc.WithInsecure(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := inference.NewGRPCInferenceServiceClient(connection)

	e, g := make([]float32, 1000), make([]float32, 1000)
	for i := range e {
		e[i], g[i] = float32(i-500)/100, float32(i%7)-3
	}
	h, err := infer(client, "swiglu_forward_fp32", e, g)
	if err != nil {
		return err
	}
	if !isRight(e, g, h) {
		return fmt.Errorf("wrong: h is not SiLU(e) * g")
	}

	// The code decides what to do: codes.Unavailable, for example, is worth another try.
	_, err = infer(client, "nope", e, g)
	if status.Code(err) != codes.NotFound {
		return fmt.Errorf("wrong: a model that does not exist is %v, want NotFound", status.Code(err))
	}
	fmt.Printf("forward.go: %d elements are right\n", len(h))
	return nil
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
