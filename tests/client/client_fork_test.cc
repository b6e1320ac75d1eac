// SPDX-License-Identifier: Apache-2.0
//
// Clients and fork(). Each test runs in a process of its own, which has made no client before.
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "swiglu/client_mlp.h"
#include "tests/client/bytes.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

// A child that hangs is ended by SIGALRM.
constexpr unsigned kChildSeconds = 60;

// Runs `in_child` in a child. Returns its process. Abseil's deadlock detector has a lock of the
// whole process, which a thread of gRPC could hold now and the child would never get, so it must be
// off.
pid_t ForkChild(const std::function<int()>& in_child) {
  const pid_t child = fork();
  if (child != 0) return child;
  alarm(kChildSeconds);
  _exit(in_child());
}

// What the child returned, or -1 if a signal ended it.
int ResultOfChild(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

TensorView ForkView() {
  static const std::string bytes = Pattern(24, 1);
  return {Dtype::kFp16, {3, 4}, AsBytes(bytes)};
}

bool ForwardWorks(const Client& client) {
  const auto h = client.Forward(ForkView(), ForkView());
  return h.ok() && AsText(h->bytes()) == AsText(ForkView().bytes);
}

// In each, the exit code is 0, or tells what was wrong.

void ForkBeforeTheFirstClient() {
  TuneProcess();
  int address_pipe[2];
  if (pipe(address_pipe) != 0) _exit(101);
  const pid_t child = ForkChild([&] {
    char address[64] = {};
    if (read(address_pipe[0], address, sizeof(address) - 1) <= 0) return 1;
    const auto client = Client::Create(address);
    if (!client.ok()) return 2;
    return ForwardWorks(*client) ? 0 : 3;
  });
  // The threads of gRPC start now, in this process.
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Client::Create(server.address());
  if (!client.ok() || !ForwardWorks(*client)) _exit(102);
  const std::string& address = server.address();
  if (write(address_pipe[1], address.data(), address.size()) <= 0) _exit(103);
  _exit(ResultOfChild(child));
}

bool IsRefused(const absl::Status& status) { return absl::IsFailedPrecondition(status); }

// The number of the first call of `client` that is not refused; 0 if all are.
int FirstThatIsNotRefused(const Client& client) {
  const TensorView view = ForkView();
  std::string out(24, '\0');
  if (!IsRefused(client.Forward(view, view).status())) return 1;
  if (!IsRefused(client.Backward(view, view, view).status())) return 2;
  if (!IsRefused(client.ForwardInto(view, view, AsWritableBytes(out)))) return 3;
  if (!IsRefused(client.ForwardAsync(view, view).Get().status())) return 4;
  int num_refused = 0;
  client.ForwardAsync(view, view, [&](const absl::StatusOr<Tensor>& h) {
    num_refused += IsRefused(h.status()) ? 1 : 0;
  });
  if (num_refused != 1) return 5;
  if (!IsRefused(client.Mlp("m", 0).Forward(view).status())) return 6;
  if (!IsRefused(client.ServerLive().status())) return 7;
  if (!IsRefused(client.ListRegions(RegionKind::kSystem).status())) return 8;
  return 0;
}

void ForkWithAClient() {
  TuneProcess();
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  auto client = Client::Create(server.address());
  if (!client.ok() || !ForwardWorks(*client)) _exit(102);
  const pid_t child = ForkChild([&] {
    const int not_refused = FirstThatIsNotRefused(*client);
    if (not_refused != 0) return not_refused;
    if (!IsRefused(Client::Create(server.address()).status())) return 20;
    // The last copy.
    *client = Client(nullptr);
    return 0;
  });
  const int result = ResultOfChild(child);
  if (result != 0) _exit(result == -1 ? 104 : result);
  _exit(ForwardWorks(*client) ? 0 : 105);
}

void ForkWithACallUnderWay() {
  TuneProcess();
  FakeServer server([](const FakeCall&) {
    FakeReply never;
    never.never = true;
    return never;
  });
  auto client = Client::Create(server.address());
  if (!client.ok()) _exit(102);
  auto future = client->ForwardAsync(ForkView(), ForkView());
  const pid_t child = ForkChild([&] {
    const int not_refused = FirstThatIsNotRefused(*client);
    if (not_refused != 0) return not_refused;
    const auto dropped = std::move(future);  // its destructor must not wait
    *client = Client(nullptr);
    return 0;
  });
  const int result = ResultOfChild(child);
  if (result != 0) _exit(result == -1 ? 104 : result);
  future.Cancel();
  _exit(absl::IsCancelled(future.Get().status()) ? 0 : 105);
}

class ClientForkTest : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(ClientForkTest, AProcessThatForksBeforeItsFirstClientMayHaveOneInTheChild) {
  EXPECT_EXIT(ForkBeforeTheFirstClient(), ::testing::ExitedWithCode(0), "");
}

TEST_F(ClientForkTest, AChildIsToldThatItsClientIsOfNoUse) {
  EXPECT_EXIT(ForkWithAClient(), ::testing::ExitedWithCode(0), "");
}

TEST_F(ClientForkTest, AChildLeavesACallOfItsParentAlone) {
  EXPECT_EXIT(ForkWithACallUnderWay(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace swiglu::client
