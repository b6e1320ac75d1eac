// SPDX-License-Identifier: Apache-2.0
//
// Opening by name, and files that appear whole or not at all.
#include "client/files/tensor_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/files/npy.h"
#include "client/files/safetensors.h"
#include "client/files/tensor_output.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"
#include "tests/client/named_tensors.h"
#include "tests/client/temp_folder.h"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::Shape;
using client::TensorView;
using ::testing::EndsWith;
using ::testing::HasSubstr;

class TensorFileTest : public ::testing::Test {
 protected:
  std::string WriteSafetensors(absl::string_view name) {
    return folder_.Write(name, SafetensorsFile("h", Dtype::kBf16, {2}, "abcd"));
  }

  OutputFile::Created Write(const std::string& path, IfExists if_exists) {
    const NamedTensor named{"h", tensor_};
    return WriteTensors(path, {&named, 1}, if_exists, &unfinished_);
  }

  // What `path` holds after a file has taken its place, made by `create`.
  std::string Replace(const std::string& path, decltype(OutputFile::Create)* create) {
    auto file = create(path, IfExists::kOverwrite, &unfinished_);
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return "";
    EXPECT_TRUE((*file)->Write(AsBytes("new")).ok());
    EXPECT_TRUE((*file)->Sync().ok());
    EXPECT_TRUE((*file)->Commit().ok());
    return TempFolder::Read(path);
  }

  TempFolder folder_;
  UnfinishedFiles unfinished_;
  TensorView tensor_{Dtype::kBf16, {2}, AsBytes("abcd")};
};

TEST_F(TensorFileTest, OpensByExtension) {
  const std::string npy = folder_.Write("a.npy", NpyHeader(Dtype::kFp16, Shape{1}).value() + "ab");
  const auto a = OpenTensor(npy);
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->file.format(), Format::kNpy);
  EXPECT_EQ(AsText(a->tensor.bytes), "ab");
  const auto b = OpenTensor(WriteSafetensors("b.safetensors"));
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(b->file.format(), Format::kSafetensors);
  EXPECT_EQ(AsText(b->tensor.bytes), "abcd");
}

TEST_F(TensorFileTest, TakesTheNameAfterTheExtension) {
  const std::string path = WriteSafetensors("with:colon.safetensors");
  EXPECT_TRUE(OpenTensor(path).ok());
  EXPECT_TRUE(OpenTensor(path + ":h").ok());
  EXPECT_EQ(OpenTensor(path + ":a.npy:b").status().message(),
            path + ": no tensor 'a.npy:b'; it holds h");
}

TEST_F(TensorFileTest, NpyTakesNoName) {
  const std::string path = folder_.Write("x.npy", NpyHeader(Dtype::kFp16, Shape{0}).value());
  EXPECT_EQ(std::string(OpenTensor(path + ":h").status().message()),
            path + ": a .npy file holds one tensor without a name; 'h' is none");
}

TEST_F(TensorFileTest, RefusesOtherExtensions) {
  EXPECT_EQ(OpenTensor("x.txt").status().message(),
            "x.txt: unknown extension; expected .npy, .safetensors, .raw or .bin");
  EXPECT_EQ(OpenTensor("").status().message(),
            ": unknown extension; expected .npy, .safetensors, .raw or .bin");
}

TEST_F(TensorFileTest, SaysWhyAFileCannotBeOpened) {
  EXPECT_THAT(std::string(OpenTensor(folder_.Path("none.npy")).status().message()),
              EndsWith("none.npy: cannot open: No such file or directory"));
  mkdir(folder_.Path("folder.npy").c_str(), 0700);
  EXPECT_THAT(std::string(OpenTensor(folder_.Path("folder.npy")).status().message()),
              EndsWith("folder.npy: not a regular file"));
  mkfifo(folder_.Path("pipe.npy").c_str(), 0600);
  EXPECT_THAT(std::string(OpenTensor(folder_.Path("pipe.npy")).status().message()),
              EndsWith("pipe.npy: not a regular file"));
  if (geteuid() == 0) return;  // root may read everything
  chmod(folder_.Write("secret.npy", "x").c_str(), 0);
  EXPECT_THAT(std::string(OpenTensor(folder_.Path("secret.npy")).status().message()),
              EndsWith("secret.npy: cannot open: Permission denied"));
}

TEST_F(TensorFileTest, OpensAnEmptyFileAsNoTensor) {
  EXPECT_THAT(std::string(OpenTensor(folder_.Write("a.npy", "")).status().message()),
              EndsWith("a.npy: not a .npy file: wrong magic"));
}

TEST_F(TensorFileTest, KeepsItsBytesWhenMoved) {
  auto opened = OpenTensor(WriteSafetensors("b.safetensors"));
  ASSERT_TRUE(opened.ok());
  const OpenedTensor moved = *std::move(opened);
  EXPECT_EQ(AsText(moved.tensor.bytes), "abcd");
}

TEST_F(TensorFileTest, WritesAFileOnlyOnCommit) {
  const std::string path = folder_.Path("h.safetensors");
  auto file = Write(path, IfExists::kFail);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  ASSERT_TRUE((*file)->Commit().ok());
  const auto read = OpenTensor(path + ":h");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(AsText(read->tensor.bytes), "abcd");
  EXPECT_EQ(folder_.NumFiles(), 1);
}

TEST_F(TensorFileTest, GivesTheModeThatTheUmaskLeaves) {
  const mode_t before = umask(027);
  auto file = Write(folder_.Path("h.safetensors"), IfExists::kFail);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Commit().ok());
  umask(before);
  struct stat info;
  ASSERT_EQ(stat(folder_.Path("h.safetensors").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

// Without a name until the end, where the file system can do that, and under a temporary one.
constexpr decltype(OutputFile::Create)* kWaysToCreate[] = {&OutputFile::Create,
                                                           &OutputFile::CreateNamed};

TEST_F(TensorFileTest, EitherWayAFileAppearsOnlyOnCommit) {
  for (const auto create : kWaysToCreate) {
    const std::string path = folder_.Path("h.npy");
    {
      auto file = create(path, IfExists::kFail, &unfinished_);
      ASSERT_TRUE(file.ok()) << file.status();
      ASSERT_TRUE((*file)->Write(AsBytes("new")).ok());
    }
    EXPECT_EQ(folder_.NumFiles(), 0) << "without Commit nothing stays";
    auto file = create(path, IfExists::kFail, &unfinished_);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Write(AsBytes("new")).ok());
    EXPECT_NE(access(path.c_str(), F_OK), 0);
    ASSERT_TRUE((*file)->Commit().ok());
    EXPECT_EQ(TempFolder::Read(path), "new");
    EXPECT_EQ(folder_.NumFiles(), 1);
    EXPECT_EQ(create(path, IfExists::kFail, &unfinished_).value()->Commit().message(),
              path + ": exists already; --overwrite replaces it");
    EXPECT_EQ(folder_.NumFiles(), 1);
    ASSERT_EQ(unlink(path.c_str()), 0);
  }
}

TEST_F(TensorFileTest, KeepsTheModeOfTheFileThatItReplaces) {
  for (const auto create : kWaysToCreate) {
    for (const mode_t mode : {0600u, 0640u, 0666u, 0400u}) {
      const std::string path = folder_.Write("h.npy", "old");
      ASSERT_EQ(chmod(path.c_str(), mode), 0);
      EXPECT_EQ(Replace(path, create), "new");
      struct stat info;
      ASSERT_EQ(stat(path.c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 07777, mode);
      EXPECT_EQ(folder_.NumFiles(), 1);
      ASSERT_EQ(unlink(path.c_str()), 0);
    }
  }
}

TEST_F(TensorFileTest, KeepsTheOwnerOfTheFileThatItReplacesWhereItMay) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  const std::string path = folder_.Write("h.npy", "old");
  ASSERT_EQ(chown(path.c_str(), 12345, 23456), 0);
  for (const auto create : kWaysToCreate) {
    EXPECT_EQ(Replace(path, create), "new");
    struct stat info;
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, 12345u);
    EXPECT_EQ(info.st_gid, 23456u);
  }
}

TEST_F(TensorFileTest, FollowsLinksWhenItReplaces) {
  for (const auto create : kWaysToCreate) {
    mkdir(folder_.Path("real").c_str(), 0700);
    folder_.Write("real/h.npy", "old");
    const std::string path = folder_.Path("h.npy"), inner = folder_.Path("real/link.npy");
    ASSERT_EQ(symlink("h.npy", inner.c_str()), 0);
    ASSERT_EQ(symlink("real/link.npy", path.c_str()), 0);
    EXPECT_EQ(Replace(path, create), "new");
    EXPECT_TRUE(std::filesystem::is_symlink(path));
    EXPECT_TRUE(std::filesystem::is_symlink(inner));
    EXPECT_EQ(TempFolder::Read(folder_.Path("real/h.npy")), "new");
    std::filesystem::remove_all(folder_.Path("real"));
    ASSERT_EQ(unlink(path.c_str()), 0);
  }
}

TEST_F(TensorFileTest, MakesTheFileThatALinkNames) {
  const std::string path = folder_.Path("h.npy"), target = folder_.Path("real.npy");
  ASSERT_EQ(symlink(target.c_str(), path.c_str()), 0);
  EXPECT_EQ(CheckMayWrite(path, IfExists::kFail).message(),
            path + ": exists already; --overwrite replaces it");
  EXPECT_TRUE(CheckMayWrite(path, IfExists::kOverwrite).ok());
  EXPECT_EQ(Replace(path, &OutputFile::Create), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(path));
  EXPECT_EQ(TempFolder::Read(target), "new");
}

TEST_F(TensorFileTest, RefusesLinksToWhatIsNoFile) {
  const std::string path = folder_.Path("h.npy");
  ASSERT_EQ(symlink("h.npy", path.c_str()), 0);
  const std::string loop = path + ": cannot follow its link: Too many levels of symbolic links";
  EXPECT_EQ(CheckMayWrite(path, IfExists::kOverwrite).message(), loop);
  EXPECT_EQ(OutputFile::Create(path, IfExists::kOverwrite, &unfinished_).status().message(), loop);
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(symlink("/dev/null", path.c_str()), 0);
  EXPECT_EQ(CheckMayWrite(path, IfExists::kOverwrite).message(), path + ": not a regular file");
  EXPECT_EQ(OutputFile::Create(path, IfExists::kOverwrite, &unfinished_).status().message(),
            path + ": not a regular file");
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(symlink("/", path.c_str()), 0);
  EXPECT_EQ(CheckMayWrite(path, IfExists::kOverwrite).message(), path + ": is a folder");
}

TEST_F(TensorFileTest, TellsThatItsFileWasCutShort) {
  const std::string path = WriteSafetensors("b.safetensors");
  const auto file = OpenTensor(path);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->file.mapped()->CheckWhole().ok());
  const auto size = TempFolder::Read(path).size();
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(size + 1)), 0);
  EXPECT_TRUE(file->file.mapped()->CheckWhole().ok()) << "what was there is still there";
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(size - 1)), 0);
  EXPECT_EQ(file->file.mapped()->CheckWhole().message(),
            absl::StrCat(path, ": was cut short while it was read: it had ", size,
                         " bytes and has ", size - 1));
}

TEST_F(TensorFileTest, LeavesNothingWithoutCommit) {
  { auto file = Write(folder_.Path("h.safetensors"), IfExists::kFail); }
  EXPECT_EQ(folder_.NumFiles(), 0);
}

TEST_F(TensorFileTest, DoesNotReplaceUnlessAsked) {
  const std::string path = folder_.Write("h.safetensors", "old");
  EXPECT_EQ(CheckMayWrite(path, IfExists::kFail).message(),
            path + ": exists already; --overwrite replaces it");
  EXPECT_TRUE(CheckMayWrite(path, IfExists::kOverwrite).ok());
  {
    auto file = Write(path, IfExists::kFail);
    ASSERT_TRUE(file.ok());
    EXPECT_EQ((*file)->Commit().code(), absl::StatusCode::kAlreadyExists);
  }
  EXPECT_EQ(TempFolder::Read(path), "old");
  auto file = Write(path, IfExists::kOverwrite);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->Commit().ok());
  EXPECT_NE(TempFolder::Read(path), "old");
  EXPECT_EQ(folder_.NumFiles(), 1);
}

TEST_F(TensorFileTest, SaysWhyAFileCannotBeWritten) {
  const std::string path = folder_.Path("none/h.safetensors");
  EXPECT_EQ(CheckMayWrite(path, IfExists::kFail).message(),
            path + ": cannot write to its folder: No such file or directory");
  EXPECT_THAT(std::string(Write(path, IfExists::kFail).status().message()),
              HasSubstr("cannot make a temporary file in its folder"));
  mkdir(folder_.Path("h.npy").c_str(), 0700);
  EXPECT_EQ(CheckMayWrite(folder_.Path("h.npy"), IfExists::kOverwrite).message(),
            folder_.Path("h.npy") + ": is a folder");
}

TEST_F(TensorFileTest, NpyHoldsNoBf16) {
  EXPECT_EQ(Write(folder_.Path("h.npy"), IfExists::kFail).status().message(),
            folder_.Path("h.npy") + ": .npy has no type for BF16; use .safetensors");
  EXPECT_EQ(CheckFormatHolds(Format::kNpy, Dtype::kBf16, 1).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(CheckFormatHolds(Format::kNpy, Dtype::kFp16, 1).ok());
  EXPECT_EQ(folder_.NumFiles(), 0);
}

}  // namespace
}  // namespace swiglu::files
