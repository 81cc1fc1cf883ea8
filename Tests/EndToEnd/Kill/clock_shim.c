// A wall clock that a trial can set, preloaded into a daemon: $TRIAL_CLOCK names a file of eight bytes, the offset in
// nanoseconds. Setting the machine's clock would do the same to everybody else on it.
//
// What waits until a moment of the wall clock is stretched or cut short by a jump, as the kernel does it: such a wait is
// made in short steps of the real clock. (libfaketime leaves the waits of C11 threads alone, which librdkafka uses.)
// Waits by the monotonic clock are not touched.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define STEP (20 * 1000000LL)

static volatile int64_t none;
static volatile int64_t *offset = &none;

__attribute__((constructor)) static void map_offset(void) {
  const char *path = getenv("TRIAL_CLOCK");
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *memory = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (memory != MAP_FAILED) offset = memory;
}

static int64_t nanos(struct timespec time) { return time.tv_sec * SECOND + time.tv_nsec; }
static struct timespec spec(int64_t nanos) {
  return (struct timespec){nanos / SECOND, nanos % SECOND};
}

static int64_t real_now(void) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  return nanos(now);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
  int status = (int)syscall(SYS_clock_gettime, clock, out);
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) *out = spec(nanos(*out) + *offset);
  return status;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  (void)zone;
  struct timespec now = spec(real_now() + *offset);
  *out = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
  return 0;
}

time_t time(time_t *out) {
  time_t now = (real_now() + *offset) / SECOND;
  if (out != NULL) *out = now;
  return now;
}

int timespec_get(struct timespec *out, int base) {
  if (base != TIME_UTC) return 0;
  *out = spec(real_now() + *offset);
  return base;
}

// C11's conditions are pthreads' in glibc, and always wait by the wall clock.
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
  static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
  if (wait == NULL) wait = dlsym(RTLD_NEXT, "cnd_timedwait");
  for (;;) {
    int64_t now = real_now(), left = nanos(*until) - (now + *offset);
    if (left <= 0) return thrd_timedout;
    struct timespec step = spec(now + (left < STEP ? left : STEP));
    int status = wait(condition, mutex, &step);
    if (status != thrd_timedout) return status;
  }
}

// A condition made without attributes waits by the wall clock; others are left alone.
#define CONDITIONS_MAX 65536
static pthread_cond_t *volatile monotonic[CONDITIONS_MAX];
static volatile int monotonic_count;

int pthread_cond_init(pthread_cond_t *restrict condition, const pthread_condattr_t *restrict attributes) {
  static int (*init)(pthread_cond_t *, const pthread_condattr_t *);
  if (init == NULL) init = dlvsym(RTLD_NEXT, "pthread_cond_init", "GLIBC_2.3.2");
  clockid_t clock = CLOCK_REALTIME;
  if (attributes != NULL) pthread_condattr_getclock(attributes, &clock);
  if (clock == CLOCK_MONOTONIC) {
    int place = __sync_fetch_and_add(&monotonic_count, 1);
    if (place >= CONDITIONS_MAX) abort();
    monotonic[place] = condition;
  }
  return init(condition, attributes);
}

int pthread_cond_timedwait(
    pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
  static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (wait == NULL) wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  for (int place = 0; place < monotonic_count; place++)
    if (monotonic[place] == condition) return wait(condition, mutex, until);
  for (;;) {
    int64_t now = real_now(), left = nanos(*until) - (now + *offset);
    if (left <= 0) return ETIMEDOUT;
    struct timespec step = spec(now + (left < STEP ? left : STEP));
    int status = wait(condition, mutex, &step);
    if (status != ETIMEDOUT) return status;
  }
}
