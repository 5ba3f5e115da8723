// A disk that fails on demand, for one database: preloaded before libc into a process that a test starts.
//
// While the file named FOLDER/fail-sync is there, fsync and fdatasync of the database and of its log fail with EIO, and what was
// written since their last sync is gone, as after a failed sync of a real disk whose cache was dropped. FOLDER/fail-write: writes
// fail with ENOSPC. FOLDER/fail-read: reads fail with EIO. FOLDER/fail-protect: as a file system that was mounted anew for reading
// only, writes and opening for writing fail with EROFS. FOLDER is the variable TASKER_DISK; other files are left alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
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
static int is_our_path(const char *path) {
    if (!folder()) return 0;
    size_t prefix = strlen(folder());
    if (strncmp(path, folder(), prefix) != 0) return 0;
    return strcmp(path + prefix, "/tasker.db") == 0 || strcmp(path + prefix, "/tasker.db-wal") == 0;
}

static int is_ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_our_path(path);
}

static int is_wanted(const char *what) {
    char flag[4096];
    snprintf(flag, sizeof flag, "%s/fail-%s", folder(), what);
    return access(flag, F_OK) == 0;
}

static int fails(const char *what, int fd) { return is_ours(fd) && is_wanted(what); }

// The error of a write, 0 when it may be made.
static int refuses(int fd) {
    if (!is_ours(fd)) return 0;
    return is_wanted("write") ? ENOSPC : is_wanted("protect") ? EROFS : 0;
}

static int opened(const char *path, int flags, mode_t mode) {
    REAL("open64", int, const char *, int, ...);
    if ((flags & O_ACCMODE) != O_RDONLY && is_our_path(path) && is_wanted("protect")) {
        errno = EROFS;
        return -1;
    }
    return real(path, flags, mode);
}

static mode_t mode_of(int flags, va_list rest) { return flags & O_CREAT ? va_arg(rest, mode_t) : 0; }

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return opened(path, flags, mode);
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
    int refused = refuses(fd);
    if (refused) {
        errno = refused;
        return -1;
    }
    remember(fd, length, at);
    return real_pwrite(fd, buffer, length, at);
}

ssize_t pwrite64(int fd, const void *buffer, size_t length, off_t at) { return written(fd, buffer, length, at); }
ssize_t pwrite(int fd, const void *buffer, size_t length, off_t at) { return written(fd, buffer, length, at); }

ssize_t write(int fd, const void *buffer, size_t length) {
    REAL("write", ssize_t, int, const void *, size_t);
    int refused = refuses(fd);
    if (refused) {
        errno = refused;
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
