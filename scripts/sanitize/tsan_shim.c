// What ThreadSanitizer cannot see by itself, told to it: preloaded into the tests by scripts/sanitize.sh, never part of
// the product. Everything here does the real thing; nothing is hidden.
//
// 1. Swift's Mutex takes its uncontended path in our code, where the atomics are instrumented, and waits inside
//    libswiftSynchronization, which is not. So a hand-over between two threads that met at a lock looks like a race.
//    The slow paths are called as they are, and said to acquire and release.
// 2. librdkafka of Debian uses C11 threads. The sanitizer follows pthreads alone; a thread that it has not seen begin
//    crashes in the first function that it intercepts. glibc's C11 threads, mutexes and conditions are its pthreads under
//    other names, and here they are called by those.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

extern void __tsan_acquire(void *) __attribute__((weak));
extern void __tsan_release(void *) __attribute__((weak));

#define swiftcall __attribute__((swiftcall))
#define swiftself __attribute__((swift_context))

// Synchronization._MutexHandle._lockSlow(_: UInt32), ._unlockSlow() and ._tryLockSlow() -> Bool; self is the address of
// the lock's word.
swiftcall void lock_slow(uint32_t thread, swiftself void *self) __asm__("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
swiftcall void unlock_slow(swiftself void *self) __asm__("$s15Synchronization12_MutexHandleV11_unlockSlowyyF");
swiftcall _Bool try_lock_slow(swiftself void *self) __asm__("$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF");

static void *real(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (found == NULL) abort();  // another Swift: the names above must follow it
  return found;
}

swiftcall void lock_slow(uint32_t thread, swiftself void *self) {
  static swiftcall void (*next)(uint32_t, swiftself void *);
  if (next == NULL) next = real("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF");
  next(thread, self);
  if (__tsan_acquire) __tsan_acquire(self);
}

swiftcall void unlock_slow(swiftself void *self) {
  static swiftcall void (*next)(swiftself void *);
  if (next == NULL) next = real("$s15Synchronization12_MutexHandleV11_unlockSlowyyF");
  if (__tsan_release) __tsan_release(self);
  next(self);
}

swiftcall _Bool try_lock_slow(swiftself void *self) {
  static swiftcall _Bool (*next)(swiftself void *);
  if (next == NULL) next = real("$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF");
  _Bool taken = next(self);
  if (taken && __tsan_acquire) __tsan_acquire(self);
  return taken;
}

struct start {
  thrd_start_t body;
  void *argument;
};

static void *run(void *pointer) {
  struct start start = *(struct start *)pointer;
  free(pointer);
  return (void *)(intptr_t)start.body(start.argument);
}

static int status(int error) {
  switch (error) {
    case 0: return thrd_success;
    case ENOMEM: return thrd_nomem;
    case ETIMEDOUT: return thrd_timedout;
    case EBUSY: return thrd_busy;
    default: return thrd_error;
  }
}

int thrd_create(thrd_t *thread, thrd_start_t body, void *argument) {
  struct start *start = malloc(sizeof *start);
  if (start == NULL) return thrd_nomem;
  *start = (struct start){body, argument};
  int error = pthread_create(thread, NULL, run, start);
  if (error != 0) free(start);
  return error == EAGAIN ? thrd_nomem : status(error);
}

int thrd_join(thrd_t thread, int *result) {
  void *value;
  int error = pthread_join(thread, &value);
  if (error == 0 && result != NULL) *result = (int)(intptr_t)value;
  return status(error);
}

int mtx_init(mtx_t *mutex, int type) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  if (type & mtx_recursive) pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  int error = pthread_mutex_init((pthread_mutex_t *)mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
  return status(error);
}

int mtx_lock(mtx_t *mutex) { return status(pthread_mutex_lock((pthread_mutex_t *)mutex)); }
int mtx_trylock(mtx_t *mutex) { return status(pthread_mutex_trylock((pthread_mutex_t *)mutex)); }
int mtx_unlock(mtx_t *mutex) { return status(pthread_mutex_unlock((pthread_mutex_t *)mutex)); }
void mtx_destroy(mtx_t *mutex) { pthread_mutex_destroy((pthread_mutex_t *)mutex); }

int cnd_init(cnd_t *condition) { return status(pthread_cond_init((pthread_cond_t *)condition, NULL)); }
int cnd_signal(cnd_t *condition) { return status(pthread_cond_signal((pthread_cond_t *)condition)); }
int cnd_broadcast(cnd_t *condition) { return status(pthread_cond_broadcast((pthread_cond_t *)condition)); }
int cnd_wait(cnd_t *condition, mtx_t *mutex) {
  return status(pthread_cond_wait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex));
}
int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
  return status(pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until));
}
void cnd_destroy(cnd_t *condition) { pthread_cond_destroy((pthread_cond_t *)condition); }

void call_once(once_flag *flag, void (*body)(void)) { pthread_once((pthread_once_t *)flag, body); }
