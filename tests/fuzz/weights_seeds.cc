// SPDX-License-Identifier: Apache-2.0
//
// The seeds: model files as they are written, and what is refused.
#include "tests/fuzz/weights_seeds.h"

#include "tests/fuzz/weights_oracle.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

std::string File(const std::string& content) { return kModelFileInput + content; }
std::string Index(const std::string& content) { return kModelIndexInput + content; }

std::string Header(const std::string& header, const std::string& data) {
  return File(HeaderLength(header.size()) + header + data);
}

std::string Layer(const std::string& stem, const std::string& dtype = "BF16") {
  return File(ModelFile(SmallMlp(stem, 1, dtype)));
}

// An index that has the separate tensors of layer 0 and the fused ones of layer 1.
std::string GoodIndex() {
  return Index(ModelIndex({{"model.layers.0.mlp.gate_proj.weight", "model-1.safetensors"},
                           {"model.layers.0.mlp.up_proj.weight", "model-1.safetensors"},
                           {"model.layers.0.mlp.down_proj.weight", "model-2.safetensors"},
                           {"model.layers.1.mlp.gate_up_proj.weight", "model-2.safetensors"},
                           {"model.layers.1.mlp.down_proj.weight", "model-2.safetensors"}}));
}

}  // namespace

std::vector<ModelSeed> ModelSeeds() {
  const std::string layer = Layer("model.layers.0.mlp.");
  return {
      {"file_layer", true, layer},
      {"file_layer_fp16", true, Layer("language_model.model.layers.12.mlp.", "F16")},
      {"file_bare", true, Layer("")},
      {"file_fused", true,
       File(ModelFile({Weight("layers.3.mlp.gate_up_proj.weight", {16, 8}, 1),
                       Weight("layers.3.mlp.down_proj.weight", {8, 8}, 2)}))},
      {"file_metadata", true,
       Header(R"({"__metadata__":{"format":"pt"},)"
              R"("gate_proj.weight":{"dtype":"BF16","shape":[0],"data_offsets":[0,0],"x":[{}]},)"
              R"("up_proj.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
              R"("down_proj.weight":{"dtype":"I8","shape":[],"data_offsets":[4,5]}})",
              "abcde")},
      {"file_other_tensors", false, File(ModelFile({Weight("model.norm.weight", {4}, 1)}))},
      {"file_experts", false, Layer("model.layers.0.mlp.experts.3.")},
      {"file_bad_number", false, Layer("model.layers.007.mlp.")},
      {"file_empty", false, File("")},
      {"file_no_tensors", false, Header("{}", "")},
      {"file_cut", false, layer.substr(0, layer.size() - 1)},
      {"file_cut_header", false, layer.substr(0, 40)},
      {"file_gap", false,
       Header(R"({"t":{"dtype":"F16","shape":[1],"data_offsets":[1,3]}})", "abc")},
      {"file_twice", false, Header(R"({"t":1,"t":2})", "")},
      {"index", true, GoodIndex()},
      {"index_more", true,
       Index(R"({"a":[1,-2,3.5e1,null,true],"weight_map":{"gate_proj.weight":"1",)"
             R"("up_proj.weight":"2","down_proj.weight":"\u00e9"},"b":{"weight_map":{}}})")},
      {"index_outside", false, Index(ModelIndex({{"t", "../a"}}))},
      {"index_twice", false, Index(ModelIndex({{"t", "a"}, {"t", "b"}}))},
      {"index_no_map", false, Index(R"({"weight_map":["a"]})")},
      {"index_deep", false, Index(std::string(200, '['))},
      {"index_bias", false,
       Index(
           ModelIndex({{"layers.0.mlp.up_proj.weight", "a"}, {"layers.0.mlp.up_proj.bias", "a"}}))},
      {"index_two_prefixes", false,
       Index(ModelIndex({{"layers.0.mlp.up_proj.weight", "a"}, {"up_proj.weight", "a"}}))},
  };
}

}  // namespace swiglu::server
