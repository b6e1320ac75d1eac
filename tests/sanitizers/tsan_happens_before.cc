// SPDX-License-Identifier: Apache-2.0
//
// Tells ThreadSanitizer what the system's Abseil and gRPC, which are not built with it, order:
// whoever takes a mutex sees what was done before it was let go, whoever waits for a notification
// (but not until a time) or a counter sees what was done before it, and whoever gets an event from
// a completion queue sees what was done before its operation began; whoever frees a slice sees what
// was done before it was made. Stands before those libraries'
// own functions and calls them. Linked into tests of the `tsan` preset only, which run with
// `ignore_noninstrumented_modules=1`. Nothing is suppressed: a missing lock still shows.
#include <dlfcn.h>

#include <cstdlib>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "grpc/grpc.h"
#include "grpc/slice.h"
#include "grpcpp/alarm.h"
#include "grpcpp/completion_queue.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}

namespace {

// Stand for the messages between clients and the servers of tests in one process, which go through
// sockets: what is done before a request is sent is done before a FakeServer handles it, and what
// the handler does is done before an answer comes.
char requests, answers;

// The library's function behind the one of that mangled name here.
template <typename Function>
Function* Library(const char* name) {
  void* function = ::dlsym(RTLD_NEXT, name);
  if (function == nullptr) std::abort();
  return reinterpret_cast<Function*>(function);
}

// Of a slice over memory that somebody owns.
struct OrderedOwner {
  void (*free)(void*);
  void* owner;

  static void Free(void* ordered) {
    __tsan_acquire(ordered);
    const auto* const self = static_cast<OrderedOwner*>(ordered);
    self->free(self->owner);
    delete self;
  }
};

// Abseil looks at the condition of a thread that waits from whichever thread holds the mutex.
struct OrderedCondition {
  absl::Mutex* mutex;
  const absl::Condition* condition;

  static bool Eval(OrderedCondition* self) {
    __tsan_acquire(self->mutex);
    const bool met = self->condition->Eval();
    __tsan_release(self->mutex);
    return met;
  }
};

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  static auto* const next = Library<void(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  next(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  static auto* const next = Library<void(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  __tsan_release(this);
  next(this);
}

bool Mutex::TryLock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  static auto* const next = Library<bool(Mutex*)>("_ZN4absl7debian35Mutex7TryLockEv");
  const bool taken = next(this);
  if (taken) __tsan_acquire(this);
  return taken;
}

void ReleasableMutexLock::Release() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  mu_->Unlock();
  mu_ = nullptr;
}

void Mutex::Await(const Condition& condition) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  static auto* const next =
      Library<void(Mutex*, const Condition&)>("_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
  OrderedCondition ordered{this, &condition};
  __tsan_release(this);
  next(this, Condition(&OrderedCondition::Eval, &ordered));
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition,
                             Duration timeout) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  static auto* const next = Library<bool(Mutex*, const Condition&, Duration)>(
      "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  OrderedCondition ordered{this, &condition};
  __tsan_release(this);
  const bool met = next(this, Condition(&OrderedCondition::Eval, &ordered), timeout);
  __tsan_acquire(this);
  return met;
}

void CondVar::Wait(Mutex* mutex) {
  static auto* const next =
      Library<void(CondVar*, Mutex*)>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  next(this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static auto* const next = Library<bool(CondVar*, Mutex*, Duration)>(
      "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  __tsan_release(mutex);
  const bool timed_out = next(this, mutex, timeout);
  __tsan_acquire(mutex);
  return timed_out;
}

void Notification::Notify() {
  static auto* const next = Library<void(Notification*)>("_ZN4absl7debian312Notification6NotifyEv");
  __tsan_release(this);
  // In here, only Abseil's own code runs. Where a program asks HasBeenNotified(), the library calls
  // the program's copy of an inline function, which is checked as our own code. It reads the
  // notification under the mutex inside, which the thread that ends the notification takes, too.
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  next(this);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

void Notification::WaitForNotification() const {
  static auto* const next =
      Library<void(const Notification*)>("_ZNK4absl7debian312Notification19WaitForNotificationEv");
  next(this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static auto* const next = Library<bool(const Notification*, Duration)>(
      "_ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE");
  const bool notified = next(this, timeout);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

bool BlockingCounter::DecrementCount() {
  static auto* const next =
      Library<bool(BlockingCounter*)>("_ZN4absl7debian315BlockingCounter14DecrementCountEv");
  __tsan_release(this);
  return next(this);
}

void BlockingCounter::Wait() {
  static auto* const next =
      Library<void(BlockingCounter*)>("_ZN4absl7debian315BlockingCounter4WaitEv");
  next(this);
  __tsan_acquire(this);
}

ABSL_NAMESPACE_END
}  // namespace absl

extern "C" {

// FakeServer calls these around its handler.
void SwigluTestServerBegins() { __tsan_acquire(&requests); }
void SwigluTestServerEnds() { __tsan_release(&answers); }

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t num_ops,
                                      void* tag, void* reserved) {
  static auto* const next =
      Library<grpc_call_error(grpc_call*, const grpc_op*, size_t, void*, void*)>(
          "grpc_call_start_batch");
  __tsan_release(tag);
  __tsan_release(&requests);
  return next(call, ops, num_ops, tag, reserved);
}

grpc_event grpc_completion_queue_next(grpc_completion_queue* queue, gpr_timespec deadline,
                                      void* reserved) {
  static auto* const next = Library<grpc_event(grpc_completion_queue*, gpr_timespec, void*)>(
      "grpc_completion_queue_next");
  const grpc_event event = next(queue, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) {
    __tsan_acquire(event.tag);
    __tsan_acquire(&answers);
  }
  return event;
}

grpc_slice grpc_slice_new_with_user_data(void* bytes, size_t length, void (*free)(void*),
                                         void* owner) {
  static auto* const next =
      Library<grpc_slice(void*, size_t, void (*)(void*), void*)>("grpc_slice_new_with_user_data");
  auto* const ordered = new OrderedOwner{free, owner};
  __tsan_release(ordered);
  return next(bytes, length, &OrderedOwner::Free, ordered);
}

}  // extern "C"

namespace grpc {

// The library gives an alarm's event a tag of its own until it comes out of the queue.
void Alarm::SetInternal(CompletionQueue* queue, gpr_timespec deadline, void* tag) {
  static auto* const next = Library<void(Alarm*, CompletionQueue*, gpr_timespec, void*)>(
      "_ZN4grpc5Alarm11SetInternalEPNS_15CompletionQueueE12gpr_timespecPv");
  __tsan_release(tag);
  next(this, queue, deadline, tag);
}

CompletionQueue::NextStatus CompletionQueue::AsyncNextInternal(void** tag, bool* ok,
                                                               gpr_timespec deadline) {
  static auto* const next = Library<NextStatus(CompletionQueue*, void**, bool*, gpr_timespec)>(
      "_ZN4grpc15CompletionQueue17AsyncNextInternalEPPvPb12gpr_timespec");
  const NextStatus status = next(this, tag, ok, deadline);
  if (status == GOT_EVENT) __tsan_acquire(*tag);
  return status;
}

}  // namespace grpc
