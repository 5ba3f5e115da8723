// A disk that fails on demand, for one database: preloaded before libc into a process that a test starts.
//
// While the file named FOLDER/fail-sync is there, fsync and fdatasync of the database and of its log fail with EIO, and what was
// written since their last sync is gone, as after a failed sync of a real disk whose cache was dropped. FOLDER/fail-write: writes
// fail with ENOSPC. FOLDER/fail-read: reads fail with EIO. FOLDER is the variable TASKER_DISK; other files are left alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name, type, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

// What a write replaced, newest first, until the file is synced.
struct undo {
    struct undo *older;
    dev_t device;
    ino_t inode;
    off_t at;
    size_t length;
    char *before;
};
static struct undo *undos;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *folder(void) { return getenv("TASKER_DISK"); }

// The database or its log. The index beside them is memory that processes share, and no data.
static int is_ours(int fd) {
    char link[64], path[4096];
    if (!folder()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    size_t prefix = strlen(folder());
    if (strncmp(path, folder(), prefix) != 0) return 0;
    return strcmp(path + prefix, "/tasker.db") == 0 || strcmp(path + prefix, "/tasker.db-wal") == 0;
}

static int fails(const char *what, int fd) {
    char flag[4096];
    if (!is_ours(fd)) return 0;
    snprintf(flag, sizeof flag, "%s/fail-%s", folder(), what);
    return access(flag, F_OK) == 0;
}

static ssize_t real_pread(int fd, void *buffer, size_t length, off_t at) {
    REAL("pread64", ssize_t, int, void *, size_t, off_t);
    return real(fd, buffer, length, at);
}

static ssize_t real_pwrite(int fd, const void *buffer, size_t length, off_t at) {
    REAL("pwrite64", ssize_t, int, const void *, size_t, off_t);
    return real(fd, buffer, length, at);
}

static void remember(int fd, size_t length, off_t at) {
    struct stat file;
    if (!is_ours(fd) || fstat(fd, &file) != 0) return;
    struct undo *undo = calloc(1, sizeof *undo);
    undo->device = file.st_dev;
    undo->inode = file.st_ino;
    undo->at = at;
    undo->length = length;
    // Beyond the end of the file there were zeros.
    undo->before = calloc(1, length);
    (void)!real_pread(fd, undo->before, length, at);
    pthread_mutex_lock(&lock);
    undo->older = undos;
    undos = undo;
    pthread_mutex_unlock(&lock);
}

// The file is synced: its writes stand. Or its sync failed: they are taken back.
static void settle(int fd, int take_back) {
    struct stat file;
    if (!is_ours(fd) || fstat(fd, &file) != 0) return;
    pthread_mutex_lock(&lock);
    for (struct undo **place = &undos; *place;) {
        struct undo *undo = *place;
        if (undo->inode != file.st_ino || undo->device != file.st_dev) {
            place = &undo->older;
            continue;
        }
        if (take_back) (void)!real_pwrite(fd, undo->before, undo->length, undo->at);
        *place = undo->older;
        free(undo->before);
        free(undo);
    }
    pthread_mutex_unlock(&lock);
}

static int synced(int fd, int (*sync)(int)) {
    if (fails("sync", fd)) {
        settle(fd, 1);
        errno = EIO;
        return -1;
    }
    int answer = sync(fd);
    if (answer == 0) settle(fd, 0);
    return answer;
}

int fsync(int fd) {
    REAL("fsync", int, int);
    return synced(fd, real);
}

int fdatasync(int fd) {
    REAL("fdatasync", int, int);
    return synced(fd, real);
}

static ssize_t written(int fd, const void *buffer, size_t length, off_t at) {
    if (fails("write", fd)) {
        errno = ENOSPC;
        return -1;
    }
    remember(fd, length, at);
    return real_pwrite(fd, buffer, length, at);
}

ssize_t pwrite64(int fd, const void *buffer, size_t length, off_t at) { return written(fd, buffer, length, at); }
ssize_t pwrite(int fd, const void *buffer, size_t length, off_t at) { return written(fd, buffer, length, at); }

ssize_t write(int fd, const void *buffer, size_t length) {
    REAL("write", ssize_t, int, const void *, size_t);
    if (fails("write", fd)) {
        errno = ENOSPC;
        return -1;
    }
    if (is_ours(fd)) remember(fd, length, lseek(fd, 0, SEEK_CUR));
    return real(fd, buffer, length);
}

static ssize_t got(int fd, void *buffer, size_t length, off_t at) {
    if (fails("read", fd)) {
        errno = EIO;
        return -1;
    }
    return real_pread(fd, buffer, length, at);
}

ssize_t pread64(int fd, void *buffer, size_t length, off_t at) { return got(fd, buffer, length, at); }
ssize_t pread(int fd, void *buffer, size_t length, off_t at) { return got(fd, buffer, length, at); }

ssize_t read(int fd, void *buffer, size_t length) {
    REAL("read", ssize_t, int, void *, size_t);
    if (fails("read", fd)) {
        errno = EIO;
        return -1;
    }
    return real(fd, buffer, length);
}
