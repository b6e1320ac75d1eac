// SPDX-License-Identifier: Apache-2.0
//
// Reading MLPs from files: every good form, the bytes, and the hash. The literal hashes are those
// that Python's hashlib gives for the same bytes.
#include "server/weights/mlp_files.h"

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

// Of SmallMlp with the seeds 1, 4 and 7.
constexpr char kHash1[] = "9b8105b94dd10351e57c1d4b7293ffa1bbbbf131dd47c0475e7e3476b2e4d50f";
constexpr char kHash4[] = "0d6bddc42d39cfb0d6e43391b86937a6d23aaab88148218a03dc1a4994cc6302";
constexpr char kHash7[] = "cda4f7c39543e03b08be5440e9d11989746c488ff8983570a39194e637b8e331";
// Of a fused tensor with seed 1 and 512 bytes, and down with seed 3 and 256 bytes.
constexpr char kHashFused[] = "59704f9be8b1efa50f98f560ef107caae5a68b960f22306e4df75184be6a5978";

// A layer in memory.
struct ReadBack {
  std::string gate;
  std::string up;
  std::string down;
  std::string hash;
  std::vector<int64_t> progress;
};

ReadBack Read(const MlpFiles& files, size_t index) {
  const auto size = static_cast<size_t>(files.layers()[index].matrix_bytes());
  ReadBack read{std::string(size, '?'), std::string(size, '?'), std::string(size, '?'), "", {}};
  const auto bytes = [](std::string& text) {
    return std::as_writable_bytes(std::span(text.data(), text.size()));
  };
  const auto hash = files.ReadLayer(index, {bytes(read.gate), bytes(read.up), bytes(read.down)},
                                    [&](int64_t done) {
                                      read.progress.push_back(done);
                                      return absl::OkStatus();
                                    });
  EXPECT_TRUE(hash.ok()) << hash.status();
  read.hash = hash.value_or("");
  return read;
}

std::unique_ptr<const MlpFiles> Open(const std::string& path,
                                     std::optional<MlpLayerRange> layers = std::nullopt) {
  auto files = MlpFiles::Open({"m", path, layers});
  EXPECT_TRUE(files.ok()) << files.status();
  return files.ok() ? *std::move(files) : nullptr;
}

std::vector<int> Numbers(const MlpFiles& files) {
  std::vector<int> numbers;
  for (const MlpLayer& layer : files.layers()) numbers.push_back(layer.number);
  return numbers;
}

TEST(MlpFilesTest, EndsWithTheErrorOfItsCaller) {
  const TempFolder folder;
  const auto files = Open(folder.Write("m.safetensors", ModelFile(SmallMlp("", 1))));
  std::byte memory[3][256];
  const auto hash = files->ReadLayer(0, {memory[0], memory[1], memory[2]},
                                     [](int64_t) { return absl::CancelledError("enough"); });
  EXPECT_EQ(hash.status(), absl::CancelledError("enough"));
}

TEST(MlpFilesTest, ReadsALayerOfAFile) {
  const TempFolder folder;
  const auto files =
      Open(folder.Write("m.safetensors", ModelFile(SmallMlp("model.layers.5.mlp.", 1))));
  ASSERT_NE(files, nullptr);
  ASSERT_EQ(files->layers().size(), 1u);
  const MlpLayer& layer = files->layers()[0];
  EXPECT_EQ(layer.number, 5);
  EXPECT_EQ(layer.dtype, Dtype::kBf16);
  EXPECT_EQ(layer.hidden, 16);
  EXPECT_EQ(layer.intermediate, 8);
  EXPECT_EQ(layer.matrix_bytes(), 256);
  EXPECT_EQ(files->size_bytes(), 768);
  const ReadBack read = Read(*files, 0);
  EXPECT_EQ(read.gate, Pattern(256, 1));
  EXPECT_EQ(read.up, Pattern(256, 2));
  EXPECT_EQ(read.down, Pattern(256, 3));
  EXPECT_EQ(read.hash, kHash1);
  EXPECT_EQ(read.progress, (std::vector<int64_t>{256, 512, 768}));
}

TEST(MlpFilesTest, SplitsAFusedTensor) {
  const TempFolder folder;
  const auto files = Open(folder.Write(
      "m.safetensors", ModelFile({Weight("model.layers.0.mlp.gate_up_proj.weight", {16, 16}, 1),
                                  Weight("model.layers.0.mlp.down_proj.weight", {16, 8}, 3)})));
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(files->layers()[0].hidden, 16);
  EXPECT_EQ(files->layers()[0].intermediate, 8);
  const ReadBack read = Read(*files, 0);
  EXPECT_EQ(read.gate, Pattern(512, 1).substr(0, 256));
  EXPECT_EQ(read.up, Pattern(512, 1).substr(256));
  EXPECT_EQ(read.down, Pattern(256, 3));
  EXPECT_EQ(read.hash, kHashFused);
}

TEST(MlpFilesTest, HashesAFusedTensorLikeSeparateOnes) {
  const TempFolder folder;
  std::vector<TestTensor> tensors = SmallMlp("", 1);
  const TestTensor fused = {
      "gate_up_proj.weight", "BF16", {16, 16}, tensors[1].bytes + tensors[2].bytes};
  const auto files = Open(folder.Write("m.safetensors", ModelFile({fused, tensors[0]})));
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(Read(*files, 0).hash, kHash1);
}

TEST(MlpFilesTest, ReadsBareTensors) {
  const TempFolder folder;
  const auto files = Open(folder.Write("m.safetensors", ModelFile(SmallMlp("", 4, "F16"))));
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(files->layers()[0].number, 0);
  EXPECT_EQ(files->layers()[0].dtype, Dtype::kFp16);
  EXPECT_EQ(Read(*files, 0).hash, kHash4);
}

TEST(MlpFilesTest, LayersMayDifferInDtypeAndShape) {
  const TempFolder folder;
  const auto files = Open(folder.Write(
      "m.safetensors", ModelFile(Joined({SmallMlp("layers.1.mlp.", 4, "F16"),
                                         {Weight("layers.0.mlp.gate_proj.weight", {24, 8}, 1),
                                          Weight("layers.0.mlp.up_proj.weight", {24, 8}, 2),
                                          Weight("layers.0.mlp.down_proj.weight", {8, 24}, 3)},
                                         {{"other", "F8_E4M3", {3}, "abc"}}}))));
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(Numbers(*files), (std::vector<int>{0, 1}));
  EXPECT_EQ(files->layers()[0].dtype, Dtype::kBf16);
  EXPECT_EQ(files->layers()[0].hidden, 8);
  EXPECT_EQ(files->layers()[0].intermediate, 24);
  EXPECT_EQ(files->layers()[1].dtype, Dtype::kFp16);
  EXPECT_EQ(files->size_bytes(), 3 * 384 + 768);
  EXPECT_EQ(Read(*files, 1).hash, kHash4);
}

TEST(MlpFilesTest, ReadsAFolderWithOneFile) {
  const TempFolder folder;
  folder.Write("model.safetensors", ModelFile(SmallMlp("model.layers.0.mlp.", 1)));
  for (const char* slash : {"", "/"}) {
    const auto files = Open(absl::StrCat(folder.Path("."), slash));
    ASSERT_NE(files, nullptr);
    EXPECT_EQ(Read(*files, 0).hash, kHash1);
  }
}

// Layers 0 and 1 in one file, down of layer 2 in it, too, and the rest of layer 2 in another file.
void WriteSharded(const TempFolder& folder) {
  const std::vector<TestTensor> last = SmallMlp("model.layers.2.mlp.", 7);
  folder.Write("a.safetensors", ModelFile(Joined({SmallMlp("model.layers.0.mlp.", 1),
                                                  SmallMlp("model.layers.1.mlp.", 4),
                                                  {last[0], Weight("norm", {7}, 9)}})));
  folder.Write("b.safetensors", ModelFile({last[1], last[2]}));
  std::vector<std::pair<std::string, std::string>> files;
  for (const std::string layer : {"0", "1", "2"}) {
    for (const std::string part : {"gate_proj", "up_proj", "down_proj"}) {
      files.emplace_back(absl::StrCat("model.layers.", layer, ".mlp.", part, ".weight"),
                         layer == "2" && part != "down_proj" ? "b.safetensors" : "a.safetensors");
    }
  }
  files.emplace_back("norm", "a.safetensors");
  files.emplace_back("lm_head.weight", "missing.safetensors");
  folder.Write("model.safetensors.index.json", ModelIndex(files));
}

TEST(MlpFilesTest, ReadsAFolderWithAnIndex) {
  const TempFolder folder;
  WriteSharded(folder);
  // The index counts.
  folder.Write("model.safetensors", "no model");
  const auto files = Open(folder.Path(""));
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(Numbers(*files), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(Read(*files, 0).hash, kHash1);
  EXPECT_EQ(Read(*files, 1).hash, kHash4);
  const ReadBack last = Read(*files, 2);
  EXPECT_EQ(last.gate, Pattern(256, 7));
  EXPECT_EQ(last.down, Pattern(256, 9));
  EXPECT_EQ(last.hash, kHash7);
}

TEST(MlpFilesTest, NeedsOnlyTheFilesOfWantedLayers) {
  const TempFolder folder;
  WriteSharded(folder);
  std::filesystem::remove(folder.Path("b.safetensors"));
  const auto files = Open(folder.Path(""), MlpLayerRange{1, 2});
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(Numbers(*files), (std::vector<int>{1}));
  EXPECT_EQ(Read(*files, 0).hash, kHash4);
}

TEST(MlpFilesTest, FollowsSymbolicLinks) {
  const TempFolder folder;
  WriteSharded(folder);
  std::filesystem::create_directory(folder.Path("snapshot"));
  for (const std::string name :
       {"a.safetensors", "b.safetensors", "model.safetensors.index.json"}) {
    std::filesystem::create_symlink("../" + name, folder.Path("snapshot/" + name));
  }
  const auto files = Open(folder.Path("snapshot"));
  ASSERT_NE(files, nullptr);
  EXPECT_EQ(Read(*files, 2).hash, kHash7);
}

TEST(MlpFilesTest, ReadsFromTheFilesThatItOpened) {
  const TempFolder folder;
  const std::string path = folder.Write("m.safetensors", ModelFile(SmallMlp("", 1)));
  const auto files = Open(path);
  ASSERT_NE(files, nullptr);
  std::filesystem::rename(folder.Write("new", ModelFile(SmallMlp("", 4))), path);
  EXPECT_EQ(Read(*files, 0).hash, kHash1);
}

// Matrices of 8 MiB and 32 KiB.
TEST(MlpFilesTest, ReadsALargeLayerInPieces) {
  const TempFolder folder;
  const auto files =
      Open(folder.Write("m.safetensors", ModelFile({Weight("gate_proj.weight", {2056, 2048}, 1),
                                                    Weight("up_proj.weight", {2056, 2048}, 2),
                                                    Weight("down_proj.weight", {2048, 2056}, 3)})));
  ASSERT_NE(files, nullptr);
  const ReadBack read = Read(*files, 0);
  // GoogleTest would take minutes to show how strings of this size differ.
  EXPECT_TRUE(read.up == Pattern(8'421'376, 2));
  EXPECT_EQ(read.hash, "f463faa17d132527e9c94daff3ced6506024dae0081714cf468cffcb9e12db11");
  EXPECT_EQ(read.progress, (std::vector<int64_t>{8'388'608, 8'421'376, 16'809'984, 16'842'752,
                                                 25'231'360, 25'264'128}));
}

TEST(MlpFilesTest, GivesALayerInPortionsOfAnySize) {
  const TempFolder folder;
  const auto files = Open(folder.Write("m.safetensors", ModelFile(SmallMlp("", 1))));
  ASSERT_NE(files, nullptr);
  auto reader = files->StartReading(0);
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::string all;
  std::string portion(300, '?');
  for (const size_t expected : {size_t{300}, size_t{300}, size_t{168}, size_t{0}}) {
    EXPECT_EQ(reader->bytes_left(), 768 - static_cast<int64_t>(all.size()));
    const auto num_read =
        reader->Read(std::as_writable_bytes(std::span(portion.data(), portion.size())));
    ASSERT_TRUE(num_read.ok()) << num_read.status();
    EXPECT_EQ(*num_read, expected);
    all += portion.substr(0, *num_read);
    EXPECT_EQ(reader->bytes_read(), static_cast<int64_t>(all.size()));
  }
  EXPECT_EQ(all, Pattern(256, 1) + Pattern(256, 2) + Pattern(256, 3));
  EXPECT_EQ(reader->Finish().value_or(""), kHash1);
}

TEST(MlpFilesTest, SeveralThreadsReadAtTheSameTime) {
  const TempFolder folder;
  WriteSharded(folder);
  const auto files = Open(folder.Path(""));
  ASSERT_NE(files, nullptr);
  std::vector<std::string> hashes(6);
  std::vector<std::thread> threads;
  for (size_t k = 0; k < hashes.size(); ++k) {
    threads.emplace_back([&, k] { hashes[k] = Read(*files, k % 3).hash; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(hashes, (std::vector<std::string>{kHash1, kHash4, kHash7, kHash1, kHash4, kHash7}));
}

}  // namespace
}  // namespace swiglu::server
