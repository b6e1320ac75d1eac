// SPDX-License-Identifier: Apache-2.0
//
// The sentence for everything that can be wrong with the files of an MLP. layer_plan_test.cc has
// those about names, safetensors_index_test.cc those about the content of an index, and
// tests/client/safetensors_test.cc those about headers.
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/weights/mlp_files.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

using absl::StatusCode;

class MlpRefusalsTest : public ::testing::Test {
 protected:
  // The status of opening `path`, which must fail.
  static absl::Status ErrorOf(const std::string& path,
                              std::optional<MlpLayerRange> layers = std::nullopt) {
    const auto files = MlpFiles::Open({"m", path, layers});
    EXPECT_FALSE(files.ok());
    return files.status();
  }

  // What is wrong with a file of these tensors, after the file's path.
  std::string WrongWith(const std::vector<TestTensor>& tensors) const {
    return WrongWithFile(ModelFile(tensors));
  }
  std::string WrongWithFile(const std::string& content) const {
    const std::string path = folder_.Write("m.safetensors", content);
    const absl::Status status = ErrorOf(path);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return After(path, status);
  }

  // The message of `status` after `path`, with which it must begin.
  static std::string After(const std::string& path, const absl::Status& status) {
    const std::string message(status.message());
    EXPECT_EQ(message.substr(0, path.size()), path);
    return message.substr(std::min(path.size(), message.size()));
  }

  // An MLP whose tensors have these dtypes and shapes.
  static std::vector<TestTensor> Mlp(const TestTensor& gate, const TestTensor& up,
                                     const TestTensor& down) {
    return {gate, up, down};
  }
  static TestTensor Gate(std::vector<int64_t> shape, const std::string& dtype = "BF16") {
    return Weight("gate_proj.weight", std::move(shape), 1, dtype);
  }
  static TestTensor Up(std::vector<int64_t> shape, const std::string& dtype = "BF16") {
    return Weight("up_proj.weight", std::move(shape), 2, dtype);
  }
  static TestTensor Down(std::vector<int64_t> shape, const std::string& dtype = "BF16") {
    return Weight("down_proj.weight", std::move(shape), 3, dtype);
  }

  const TempFolder folder_;
};

TEST_F(MlpRefusalsTest, NamesTheFileInErrorsAboutNames) {
  EXPECT_EQ(WrongWith({Gate({8, 16}), Up({8, 16})}),
            ": layer 0 has 'gate_proj.weight' but no 'down_proj.weight'");
  EXPECT_EQ(WrongWith(Joined({SmallMlp("", 1), {Weight("up_proj.bias", {8}, 4)}})),
            ": tensor 'up_proj.bias' is a bias; expected only gate_proj.weight, up_proj.weight and "
            "down_proj.weight, or gate_up_proj.weight and down_proj.weight");
  EXPECT_EQ(WrongWith({}),
            ": holds no MLP; expected tensors such as "
            "model.layers.0.mlp.gate_proj.weight or gate_proj.weight");
}

TEST_F(MlpRefusalsTest, LayersThatAreNotThere) {
  const std::string path = folder_.Write(
      "m.safetensors",
      ModelFile(Joined({SmallMlp("layers.0.mlp.", 1), SmallMlp("layers.1.mlp.", 4)})));
  EXPECT_EQ(After(path, ErrorOf(path, MlpLayerRange{1, 3})),
            ": layer 2 has no MLP; those that have one are 0 to 1");
}

TEST_F(MlpRefusalsTest, OtherDtypes) {
  const TestTensor fp32 = {"gate_proj.weight", "F32", {8, 16}, std::string(512, 'x')};
  EXPECT_EQ(WrongWith(Mlp(fp32, Up({8, 16}), Down({16, 8}))),
            ": tensor 'gate_proj.weight' is 'F32'; expected F16 or BF16");
  const TestTensor fp8 = {"gate_proj.weight", "F8_E4M3", {8, 16}, std::string(128, 'x')};
  EXPECT_EQ(WrongWith(Mlp(fp8, Up({8, 16}), Down({16, 8}))),
            ": tensor 'gate_proj.weight' is 'F8_E4M3'; expected F16 or BF16");
}

TEST_F(MlpRefusalsTest, DtypesThatDifferWithinALayer) {
  EXPECT_EQ(WrongWith(Mlp(Gate({8, 16}), Up({8, 16}, "F16"), Down({16, 8}))),
            ": tensor 'up_proj.weight' is 'F16'; expected BF16 as 'gate_proj.weight'");
  const TestTensor fp32 = {"down_proj.weight", "F32", {16, 8}, std::string(512, 'x')};
  EXPECT_EQ(WrongWith(Mlp(Gate({8, 16}), Up({8, 16}), fp32)),
            ": tensor 'down_proj.weight' is 'F32'; expected BF16 as 'gate_proj.weight'");
}

TEST_F(MlpRefusalsTest, OtherRanks) {
  constexpr char kExpected[] = "; expected [I,H] with I and H multiples of 8 from 8 to 1048576";
  EXPECT_EQ(WrongWith(Mlp(Gate({128}), Up({8, 16}), Down({16, 8}))),
            absl::StrCat(": tensor 'gate_proj.weight' has shape [128]", kExpected));
  EXPECT_EQ(WrongWith(Mlp(Gate({1, 8, 16}), Up({8, 16}), Down({16, 8}))),
            absl::StrCat(": tensor 'gate_proj.weight' has shape [1,8,16]", kExpected));
}

TEST_F(MlpRefusalsTest, SizesThatAreNoMultiplesOf8OrTooLarge) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{8, 12}, {12, 8}, {8, 0}, {0, 8}, {1'048'584, 8}, {8, 1'048'584}}) {
    EXPECT_EQ(WrongWith(Mlp(Gate(shape), Up({8, 16}), Down({16, 8}))),
              absl::StrCat(": tensor 'gate_proj.weight' has shape [", shape[0], ",", shape[1],
                           "]; expected [I,H] with I and H multiples of 8 from 8 to 1048576"));
  }
}

TEST_F(MlpRefusalsTest, FusedTensorsWhoseHalvesAreNoMultiplesOf8) {
  for (const int64_t rows : {8, 17, 24}) {
    EXPECT_EQ(WrongWith({Weight("gate_up_proj.weight", {rows, 16}, 1), Down({16, 8})}),
              absl::StrCat(": tensor 'gate_up_proj.weight' has shape [", rows,
                           ",16]; expected [2 I,H] with I and H multiples of 8 from 8 to 1048576"));
  }
}

TEST_F(MlpRefusalsTest, ShapesThatDisagree) {
  EXPECT_EQ(WrongWith(Mlp(Gate({8, 16}), Up({16, 8}), Down({16, 8}))),
            ": tensor 'up_proj.weight' has shape [16,8]; expected [8,16], because "
            "'gate_proj.weight' has [8,16]");
  EXPECT_EQ(WrongWith(Mlp(Gate({8, 16}), Up({8, 16}), Down({8, 16}))),
            ": tensor 'down_proj.weight' has shape [8,16]; expected [16,8], because "
            "'gate_proj.weight' has [8,16]");
  EXPECT_EQ(WrongWith(Mlp(Gate({8, 16}), Up({8, 16}), Down({128}))),
            ": tensor 'down_proj.weight' has shape [128]; expected [16,8], because "
            "'gate_proj.weight' has [8,16]");
  EXPECT_EQ(WrongWith({Weight("gate_up_proj.weight", {16, 16}, 1), Down({16, 16})}),
            ": tensor 'down_proj.weight' has shape [16,16]; expected [16,8], because "
            "'gate_up_proj.weight' has [16,16]");
}

TEST_F(MlpRefusalsTest, MalformedFiles) {
  EXPECT_EQ(WrongWithFile(""), ": not a .safetensors file: it has 0 bytes");
  EXPECT_EQ(WrongWithFile("short"), ": not a .safetensors file: it has 5 bytes");
  EXPECT_EQ(WrongWithFile(HeaderLength(100'000'001) + "{}"),
            ": header of 100000001 bytes; expected at most 100000000");
  EXPECT_EQ(WrongWithFile(HeaderLength(100) + "{}"),
            ": truncated in its header: it has 2 of 100 bytes");
  EXPECT_EQ(WrongWithFile(HeaderLength(2) + "{x"), ": malformed header: no valid JSON");
  const std::string good = ModelFile(SmallMlp("", 1));
  EXPECT_EQ(WrongWithFile(good.substr(0, good.size() - 1)),
            ": tensor 'up_proj.weight' ends at byte 768 of the data, which has 767");
  EXPECT_EQ(WrongWithFile(good + "x"), ": the last 1 bytes belong to no tensor");
}

TEST_F(MlpRefusalsTest, PathsWithoutAModel) {
  const std::string missing = folder_.Path("missing.safetensors");
  EXPECT_EQ(ErrorOf(missing).code(), StatusCode::kNotFound);
  EXPECT_EQ(After(missing, ErrorOf(missing)), ": cannot open: No such file or directory");

  const std::string other = folder_.Write("m.bin", ModelFile(SmallMlp("", 1)));
  EXPECT_EQ(ErrorOf(other).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(After(other, ErrorOf(other)),
            ": unknown extension; expected a .safetensors file or a folder");

  const std::string empty = folder_.Path("empty");
  std::filesystem::create_directory(empty);
  EXPECT_EQ(ErrorOf(empty).code(), StatusCode::kNotFound);
  EXPECT_EQ(After(empty, ErrorOf(empty)),
            ": a folder with neither model.safetensors.index.json nor model.safetensors");
}

// Opening a named pipe that nobody writes to would wait for ever.
TEST_F(MlpRefusalsTest, NamedPipes) {
  const std::string pipe = folder_.Path("pipe.safetensors");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(ErrorOf(pipe).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(After(pipe, ErrorOf(pipe)), ": not a regular file");

  const std::string index = folder_.Path("model.safetensors.index.json");
  folder_.Write("model.safetensors.index.json",
                ModelIndex({{"gate_proj.weight", "pipe.safetensors"},
                            {"up_proj.weight", "pipe.safetensors"},
                            {"down_proj.weight", "pipe.safetensors"}}));
  EXPECT_EQ(After(folder_.Path("pipe.safetensors"), ErrorOf(folder_.Path(""))),
            ": not a regular file; model.safetensors.index.json names it for tensor "
            "'gate_proj.weight'");

  std::filesystem::remove(index);
  ASSERT_EQ(mkfifo(index.c_str(), 0600), 0);
  EXPECT_EQ(After(folder_.Path("model.safetensors.index.json"), ErrorOf(folder_.Path(""))),
            ": not a regular file");
}

TEST_F(MlpRefusalsTest, FoldersInPlaceOfFiles) {
  std::filesystem::create_directory(folder_.Path("model.safetensors.index.json"));
  EXPECT_EQ(ErrorOf(folder_.Path("")).message(),
            folder_.Path("model.safetensors.index.json") + ": not a regular file");
}

TEST_F(MlpRefusalsTest, FilesThatItMayNotRead) {
  const std::string path = folder_.Write("m.safetensors", ModelFile(SmallMlp("", 1)));
  std::filesystem::permissions(path, std::filesystem::perms::none);
  const bool is_root = geteuid() == 0;
  if (is_root) {
    // Root may read everything, so another user asks.
    std::filesystem::permissions(folder_.Path(""), std::filesystem::perms::all);
    if (seteuid(65534) != 0) GTEST_SKIP() << "cannot become a user who may not read everything";
  }
  const absl::Status status = ErrorOf(path);
  ASSERT_TRUE(!is_root || seteuid(0) == 0);
  EXPECT_EQ(status.code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(After(path, status), ": cannot open: Permission denied");
}

// An index of this folder that gives each tensor of SmallMlp("", 1) the file of that name.
class MlpIndexRefusalsTest : public MlpRefusalsTest {
 protected:
  absl::Status ErrorWithFile(const std::string& file) const {
    folder_.Write("model.safetensors.index.json",
                  ModelIndex({{"gate_proj.weight", "a.safetensors"},
                              {"up_proj.weight", file},
                              {"down_proj.weight", "a.safetensors"}}));
    return ErrorOf(folder_.Path("model"));
  }

  void SetUp() override {
    // So that the path of the folder has no slash at its end.
    std::filesystem::create_directory_symlink(".", folder_.Path("model"));
    folder_.Write("a.safetensors", ModelFile(SmallMlp("", 1)));
  }
};

TEST_F(MlpIndexRefusalsTest, FilesThatAreMissing) {
  const absl::Status status = ErrorWithFile("b.safetensors");
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(After(folder_.Path("model/b.safetensors"), status),
            ": cannot open: No such file or directory; model.safetensors.index.json names it for "
            "tensor 'up_proj.weight'");
}

TEST_F(MlpIndexRefusalsTest, FilesOutsideTheFolder) {
  for (const std::string file : {"..", "../a.safetensors", "/etc/passwd", "model/a.safetensors"}) {
    const absl::Status status = ErrorWithFile(file);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(After(folder_.Path("model/model.safetensors.index.json"), status),
              ": malformed index: tensor 'up_proj.weight' is in '" + file +
                  "'; expected the name of a file in the same folder");
  }
}

TEST_F(MlpIndexRefusalsTest, FilesWithoutTheTensor) {
  folder_.Write("b.safetensors", ModelFile({Weight("other", {8}, 1)}));
  const absl::Status status = ErrorWithFile("b.safetensors");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(
      After(folder_.Path("model/b.safetensors"), status),
      ": has no tensor 'up_proj.weight', but model.safetensors.index.json names this file for "
      "it");
}

TEST_F(MlpIndexRefusalsTest, MalformedFiles) {
  folder_.Write("b.safetensors", "short");
  EXPECT_EQ(After(folder_.Path("model/b.safetensors"), ErrorWithFile("b.safetensors")),
            ": not a .safetensors file: it has 5 bytes");
}

TEST_F(MlpIndexRefusalsTest, MalformedAndHugeIndexes) {
  const std::string index = folder_.Write("model.safetensors.index.json", "{");
  EXPECT_EQ(
      After(folder_.Path("model/model.safetensors.index.json"), ErrorOf(folder_.Path("model"))),
      ": malformed index: no valid JSON");
  std::filesystem::resize_file(index, 100'000'001);
  EXPECT_EQ(
      After(folder_.Path("model/model.safetensors.index.json"), ErrorOf(folder_.Path("model"))),
      ": index of 100000001 bytes; expected at most 100000000");
}

// What happens to a file between opening and reading it.
class MlpChangesTest : public MlpRefusalsTest {
 protected:
  void SetUp() override {
    path_ = folder_.Write("m.safetensors", ModelFile(SmallMlp("", 1)));
    auto files = MlpFiles::Open({"m", path_, std::nullopt});
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
  }

  absl::Status Read() const {
    std::vector<std::byte> bytes(768);
    const std::span<std::byte> all(bytes);
    return files_
        ->ReadLayer(0, {all.subspan(0, 256), all.subspan(256, 256), all.subspan(512, 256)},
                    [](int64_t) { return absl::OkStatus(); })
        .status();
  }

  std::string path_;
  std::unique_ptr<const MlpFiles> files_;
};

TEST_F(MlpChangesTest, FilesThatAreCutShort) {
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path_));
  for (const int64_t left : {size - 1, size - 300, int64_t{0}}) {
    std::filesystem::resize_file(path_, static_cast<uintmax_t>(left));
    const absl::Status status = Read();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    EXPECT_EQ(After(path_, status), absl::StrCat(": was cut short while it was read: it had ", size,
                                                 " bytes and has ", left));
  }
}

TEST_F(MlpChangesTest, FilesThatAreCutShortBetweenTwoPortions) {
  auto reader = files_->StartReading(0);
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<std::byte> portion(400);
  EXPECT_EQ(reader->Read(portion).value_or(0), 400u);
  // Half of up, which is the last tensor in the file, is left.
  const uintmax_t size = std::filesystem::file_size(path_);
  std::filesystem::resize_file(path_, size - 128);
  const absl::Status status = reader->Read(portion).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(After(path_, status), absl::StrCat(": was cut short while it was read: it had ", size,
                                               " bytes and has ", size - 128));
}

// The bytes that are cut off are not those of an MLP, so all of its bytes can be read.
TEST_F(MlpChangesTest, FilesThatAreCutShortElsewhere) {
  const std::string content = ModelFile(Joined({SmallMlp("", 1), {Weight("norm", {4}, 1)}}));
  folder_.Write("m.safetensors", content);
  auto files = MlpFiles::Open({"m", path_, std::nullopt});
  ASSERT_TRUE(files.ok()) << files.status();
  files_ = *std::move(files);
  std::filesystem::resize_file(path_, content.size() - 8);
  EXPECT_EQ(After(path_, Read()),
            absl::StrCat(": was cut short while it was read: it had ", content.size(),
                         " bytes and has ", content.size() - 8));
}

TEST_F(MlpChangesTest, FilesThatAreWrittenTo) {
  using std::filesystem::last_write_time;
  const auto opened_at = last_write_time(path_);
  last_write_time(path_, opened_at + std::chrono::nanoseconds(1));
  EXPECT_EQ(Read().code(), StatusCode::kDataLoss);
  EXPECT_EQ(After(path_, Read()), ": was changed while it was read");
  last_write_time(path_, opened_at);
  EXPECT_TRUE(Read().ok());
  folder_.Write("m.safetensors", ModelFile(SmallMlp("", 1)) + "x");
  last_write_time(path_, opened_at);
  EXPECT_EQ(After(path_, Read()), ": was changed while it was read");
}

}  // namespace
}  // namespace swiglu::server
