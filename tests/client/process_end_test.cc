// SPDX-License-Identifier: Apache-2.0
//
// What is left when the process ends in the middle: by an order to end, or by touching a part of a
// file that is gone.
#include <signal.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "client/cli/signal_watch.h"
#include "client/files/mapped_file.h"
#include "client/files/output_file.h"
#include "client/files/output_folder.h"
#include "client/files/unfinished_files.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"
#include "tests/client/temp_folder.h"

namespace swiglu::files {
namespace {

TEST(UnfinishedFilesTest, RemovesFilesAndThenTheirFolders) {
  const TempFolder folder;
  UnfinishedFiles unfinished;
  auto made = OutputFolder::Create(folder.Path("a/b"), &unfinished);
  ASSERT_TRUE(made.ok()) << made.status();
  auto file = OutputFile::CreateNamed(folder.Path("a/b/h.npy"), IfExists::kFail, &unfinished);
  ASSERT_TRUE(file.ok()) << file.status();
  unfinished.RemoveAll();
  EXPECT_EQ(folder.NumFiles(), 0);
}

TEST(UnfinishedFilesTest, LeavesWhatIsFinished) {
  const TempFolder folder;
  UnfinishedFiles unfinished;
  auto made = OutputFolder::Create(folder.Path("a"), &unfinished);
  ASSERT_TRUE(made.ok()) << made.status();
  made->Keep();
  for (const IfExists if_exists : {IfExists::kFail, IfExists::kOverwrite}) {
    auto file = OutputFile::CreateNamed(folder.Path("a/h.npy"), if_exists, &unfinished);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Write(AsBytes("new")).ok());
    ASSERT_TRUE((*file)->Commit().ok());
  }
  unfinished.RemoveAll();
  EXPECT_EQ(TempFolder::Read(folder.Path("a/h.npy")), "new");
}

TEST(UnfinishedFilesTest, DoesNotKnowWhatCouldNotBeMade) {
  const TempFolder folder;
  const std::string path = folder.Write("another's", "x");
  UnfinishedFiles unfinished;
  EXPECT_EQ(unfinished.Make(path, [] { return EEXIST; }), EEXIST);
  unfinished.RemoveAll();
  EXPECT_EQ(TempFolder::Read(path), "x");
}

TEST(UnfinishedFilesTest, MakesNothingWhileTheProcessEnds) {
  EXPECT_EXIT(
      {
        UnfinishedFiles unfinished;
        unfinished.RemoveAll();
        std::thread maker([&unfinished] {
          unfinished.Make("x", [] {
            _exit(1);
            return 0;
          });
        });
        // Time in which it could be made; the outcome is the same without.
        usleep(50'000);
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

// Runs in a process of its own: an order to end comes while a file under a temporary name and one
// without a name are open, in a folder that was made for them.
void EndInTheMiddle(const TempFolder& folder, int signal) {
  // The test itself may run where they are ignored, as below nohup.
  ::signal(signal, SIG_DFL);
  UnfinishedFiles unfinished;
  const cli::SignalWatch watch([&unfinished](int number) {
    unfinished.RemoveAll();
    cli::EndBy(number);
  });
  auto made = OutputFolder::Create(folder.Path("out"), &unfinished);
  auto first = OutputFile::CreateNamed(folder.Path("out/h.npy"), IfExists::kFail, &unfinished);
  auto second = OutputFile::Create(folder.Path("out/df.npy"), IfExists::kFail, &unfinished);
  if (!first.ok() || !second.ok() || !(*first)->Write(AsBytes("new")).ok()) _exit(1);
  if (folder.NumFiles() != 1) _exit(2);
  kill(getpid(), signal);
  // Makes files until the process ends: none may slip through.
  while (true) {
    OutputFile::CreateNamed(folder.Path("h.npy"), IfExists::kFail, &unfinished).IgnoreError();
  }
}

TEST(SignalWatchTest, AnOrderToEndLeavesNothingBehindAndIsSeenByTheParent) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const TempFolder folder;
    EXPECT_EXIT(EndInTheMiddle(folder, signal), ::testing::KilledBySignal(signal), "");
    EXPECT_EQ(folder.NumFiles(), 0) << strsignal(signal);
  }
}

TEST(SignalWatchTest, SignalsThatWereIgnoredStayIgnored) {
  EXPECT_EXIT(
      {
        signal(SIGHUP, SIG_IGN);
        signal(SIGTERM, SIG_DFL);
        const cli::SignalWatch watch([](int number) { _exit(number); });
        kill(getpid(), SIGHUP);
        kill(getpid(), SIGTERM);
        pause();
      },
      ::testing::ExitedWithCode(SIGTERM), "");
}

TEST(OutputFolderTest, GoesIfItStaysEmptyAndStaysIfItDoesNot) {
  const TempFolder folder;
  UnfinishedFiles unfinished;
  { const auto made = OutputFolder::Create(folder.Path("a/b/c"), &unfinished); }
  EXPECT_EQ(folder.NumFiles(), 0);
  {
    const auto made = OutputFolder::Create(folder.Path("a/b/c/"), &unfinished);
    ASSERT_TRUE(made.ok()) << made.status();
    folder.Write("a/b/file", "x");
  }
  EXPECT_EQ(TempFolder::Read(folder.Path("a/b/file")), "x");
  EXPECT_NE(access(folder.Path("a/b/c").c_str(), F_OK), 0);
  // What was there is not its own.
  { const auto made = OutputFolder::Create(folder.Path("a"), &unfinished); }
  EXPECT_EQ(access(folder.Path("a").c_str(), F_OK), 0);
}

TEST(OutputFolderTest, SaysWhyAFolderCannotBe) {
  const TempFolder folder;
  UnfinishedFiles unfinished;
  EXPECT_TRUE(CheckMayMakeFolder(folder.Path("a/b")).ok());
  EXPECT_TRUE(CheckMayMakeFolder("here/and/there").ok());
  const std::string file = folder.Write("file", "x");
  EXPECT_EQ(CheckMayMakeFolder(file).message(),
            file + ": cannot write to the folder: Not a directory");
  EXPECT_EQ(CheckMayMakeFolder(file + "/a").message(),
            file + "/a: cannot write to the folder: Not a directory");
  const std::string below_link = folder.Path("link/a");
  ASSERT_EQ(symlink("nowhere", folder.Path("link").c_str()), 0);
  EXPECT_EQ(OutputFolder::Create(below_link, &unfinished).status().message(),
            below_link + ": cannot make the folder: No such file or directory");
}

// Touches the last byte of a file that is not there any more.
void TouchWhatIsGone(const std::string& path, bool is_watched) {
  const auto file = MappedFile::Open(path);
  const auto other = MappedFile::Open(path);
  if (!file.ok() || !other.ok() || truncate(path.c_str(), 0) != 0) _exit(3);
  const MappedFile* const watched = (is_watched ? *file : *other).get();
  const TruncationWatch watch("program", 1, {&watched, 1});
  const volatile std::byte touched = (*file)->bytes().back();
  _exit(touched == std::byte{0} ? 4 : 5);
}

TEST(TruncationWatchTest, NamesTheFileThatWasCutShort) {
  const TempFolder folder;
  const std::string path = folder.Write("cut.npy", std::string(10'000, 'x'));
  EXPECT_EXIT(TouchWhatIsGone(path, /*is_watched=*/true), ::testing::ExitedWithCode(1),
              // The program that ends may have been started anew, with a folder of its own.
              "^program: /.*/cut.npy: was cut short while it was read\n$");
}

TEST(TruncationWatchTest, OtherFaultsEndTheProcessAsEver) {
  const TempFolder folder;
  const std::string path = folder.Write("cut.npy", std::string(10'000, 'x'));
  // A sanitizer makes an exit of its own of it.
  EXPECT_DEATH(TouchWhatIsGone(path, /*is_watched=*/false), "");
}

}  // namespace
}  // namespace swiglu::files
