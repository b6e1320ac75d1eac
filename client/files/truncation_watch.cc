// SPDX-License-Identifier: Apache-2.0
//
// A handler of SIGBUS. All that it needs is made beforehand: it may neither allocate nor lock.
#include "client/files/truncation_watch.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "absl/strings/str_cat.h"

namespace swiglu::files {
namespace {

// The one that lives.
std::atomic<const TruncationWatch*> watch{nullptr};

}  // namespace

TruncationWatch::TruncationWatch(absl::string_view program, int exit_code,
                                 absl::Span<const MappedFile* const> files)
    : exit_code_(exit_code) {
  for (const MappedFile* file : files) {
    ranges_.push_back({file->bytes(), absl::StrCat(program, ": ", file->path(),
                                                   ": was cut short while it was read\n")});
  }
  watch.store(this);
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int signal, siginfo_t* info, void*) { OnSigbus(signal, info->si_addr); };
  sigaction(SIGBUS, &action, nullptr);
}

TruncationWatch::~TruncationWatch() {
  signal(SIGBUS, SIG_DFL);
  watch.store(nullptr);
}

void TruncationWatch::OnSigbus(int signal_number, void* address) {
  const TruncationWatch* const self = watch.load();
  const auto* const touched = static_cast<const std::byte*>(address);
  for (size_t k = 0; self != nullptr && k < self->ranges_.size(); ++k) {
    const Range& range = self->ranges_[k];
    if (touched < range.bytes.data() || touched >= range.bytes.data() + range.bytes.size())
      continue;
    // Nothing can be done if stderr takes no line.
    if (write(STDERR_FILENO, range.line.data(), range.line.size()) < 0) _exit(self->exit_code_);
    _exit(self->exit_code_);
  }
  // The access that failed is made again when this returns, and fails for good.
  signal(signal_number, SIG_DFL);
}

}  // namespace swiglu::files
