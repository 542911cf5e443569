/* Preloaded into a server by test_surroundings.py: its wall clock is wrong by as many seconds as the file WALL_CLOCK_OFFSET
   says at that moment (one 64-bit integer). Waits until a wall-clock time are turned back to the kernel's clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* A time in seconds beyond this is one of the wall clock: no machine is up for thirty years. */
#define WALL 1000000000

static volatile const int64_t *offset;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("WALL_CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file >= 0 ? mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
    offset = page == MAP_FAILED ? NULL : page;
    if (file >= 0) close(file);
}

static int64_t wrong_by(void) { return offset ? *offset : 0; }

static struct timespec real(const struct timespec *until) {
    struct timespec kernel = *until;
    if (kernel.tv_sec > WALL) kernel.tv_sec -= wrong_by();
    return kernel;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = next(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += wrong_by();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static int (*next)(struct timeval *, void *);
    if (!next) next = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = next(now, zone);
    if (!failed) now->tv_sec += wrong_by();
    return failed;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict on, pthread_mutex_t *restrict lock, const struct timespec *restrict until) {
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec kernel = real(until);
    return next(on, lock, &kernel);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict lock, const struct timespec *restrict until) {
    static int (*next)(pthread_mutex_t *, const struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    struct timespec kernel = real(until);
    return next(lock, &kernel);
}

int sem_timedwait(sem_t *restrict on, const struct timespec *restrict until) {
    static int (*next)(sem_t *, const struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec kernel = real(until);
    return next(on, &kernel);
}
