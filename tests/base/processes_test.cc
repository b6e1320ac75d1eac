// SPDX-License-Identifier: Apache-2.0
//
// Processes that end while somebody watches them.
#include "server/base/processes.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

// A child that waits for its end.
pid_t Start() {
  const pid_t pid = ::fork();
  if (pid == 0) {
    while (true) ::pause();
  }
  return pid;
}
// Ends it. It stays a zombie until `Reap`.
void End(pid_t pid) {
  ::kill(pid, SIGKILL);
  siginfo_t info = {};
  ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
}
void Reap(pid_t pid) { ::waitpid(pid, nullptr, 0); }

TEST(ProcessesTest, HaveEndedWhenTheLastOneHas) {
  const pid_t first = Start();
  const pid_t second = Start();
  const pid_t pids[] = {first, second};
  const Processes processes(pids);
  EXPECT_FALSE(processes.HaveEnded());
  EXPECT_FALSE(processes.HasOneEnded());
  End(first);
  EXPECT_FALSE(processes.HaveEnded());
  EXPECT_TRUE(processes.HasOneEnded());
  End(second);
  EXPECT_TRUE(processes.HaveEnded());
  Reap(first);
  Reap(second);
  EXPECT_TRUE(processes.HaveEnded());
}

TEST(ProcessesTest, CountsOneThatHadEndedBefore) {
  const pid_t pid = Start();
  End(pid);
  Reap(pid);
  const Processes processes({&pid, 1});
  EXPECT_TRUE(processes.HaveEnded());
  EXPECT_TRUE(processes.HasOneEnded());
}

TEST(ProcessesTest, HaveNotEndedWhereOneCannotBeSeen) {
  const pid_t pid = Start();
  const pid_t pids[] = {0, pid};
  const Processes processes(pids);
  End(pid);
  EXPECT_FALSE(processes.HaveEnded());
  Reap(pid);
  EXPECT_FALSE(Processes({}).HaveEnded());
}

}  // namespace
}  // namespace swiglu::server
