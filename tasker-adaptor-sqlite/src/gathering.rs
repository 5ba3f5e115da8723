//! Writes of a commit to the write-ahead log, gathered.
//!
//! SQLite writes each page of a commit to the log in two system calls, its header and itself. A commit of 38 pages and its sync took 350 to
//! 470 µs so, of which 210 to 270 on the processor, and 215 to 290 (100 to 150) when all went in one. Here what a commit writes is kept
//! until that sync. What it is: the system's file layer (VFS, <https://www.sqlite.org/vfs.html>) under another name, with another file
//! for the log. What it is not: a cache.
//!
//! Invariants:
//! - Bytes wait only within [`gather`], which is around a COMMIT of `synchronous = FULL`: under the write lock, and until the first sync.
//!   SQLite shows others no frame that it has not synced, so nobody looks for what waits.
//! - Bytes go to the file in the order in which SQLite wrote them. All that is not a write that goes on where the last one ended, reading
//!   and asking for the length among it, writes what waits first.
//! - A write that fails gives its error to whoever caused it, at the latest to the sync, and with it to the COMMIT. What still waits when
//!   the COMMIT is over is of one that failed, and is forgotten: the lock is somebody else's by then.
#![expect(
    unsafe_code,
    reason = "a file layer of SQLite is a table of C functions, with the argument at each"
)]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use rusqlite::ffi;

/// Bytes that wait at most: as many as SQLite itself writes at one time, for its largest page. More is not safe: its layer for Unix takes
/// the length of a write modulo 128 KiB (`seekAndWriteFd` in `os_unix.c`).
const ROOM: usize = 64 << 10;

const NAME: &CStr = c"tasker";

/// The layer that ours is made of, from the moment at which ours is registered.
static SYSTEM: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

/// The name of the layer for a connection whose commits are gathered. `None` where it cannot be made: the connection does without.
pub(crate) fn vfs() -> Option<&'static CStr> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    REGISTERED.get_or_init(register).then_some(NAME)
}

fn register() -> bool {
    // SAFETY: the default layer is valid for the rest of the process, as SQLite asks of whoever registers one. Ours is a copy of it with
    // another name, so its functions meet what they are made for, and is never freed.
    unsafe {
        let system = ffi::sqlite3_vfs_find(ptr::null());
        if system.is_null() {
            return false;
        }
        let Ok(own) = c_int::try_from(size_of::<ffi::sqlite3_file>()) else {
            return false;
        };
        let mut ours = *system;
        ours.pNext = ptr::null_mut();
        ours.zName = NAME.as_ptr();
        ours.szOsFile += own;
        ours.xOpen = Some(open);
        SYSTEM.store(system, Ordering::Release);
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 0) == ffi::SQLITE_OK
    }
}

/// What waits on this thread.
struct Waiting {
    /// Within [`gather`], before its sync.
    gathers: bool,
    /// Where the bytes go: a file that is open while there are any.
    file: *mut ffi::sqlite3_file,
    start: i64,
    bytes: Vec<u8>,
}

thread_local! {
    static WAITING: RefCell<Waiting> = const {
        RefCell::new(Waiting { gathers: false, file: ptr::null_mut(), start: 0, bytes: Vec::new() })
    };
}

/// Gathers what `commit` writes to the log: a COMMIT of a connection of [`vfs`] that syncs.
pub(crate) fn gather<T>(commit: impl FnOnce() -> T) -> T {
    /// Also when it panics.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            WAITING.with_borrow_mut(Waiting::forget);
        }
    }
    let over = Over;
    WAITING.with_borrow_mut(|waiting| waiting.gathers = true);
    let done = commit();
    drop(over);
    done
}

impl Waiting {
    fn forget(&mut self) {
        self.gathers = false;
        self.bytes.clear();
    }

    /// Whether the bytes were taken to be written later.
    fn takes(&mut self, file: *mut ffi::sqlite3_file, bytes: &[u8], at: i64) -> bool {
        let room = ROOM - self.bytes.len();
        if !self.gathers || bytes.len() > room {
            return false;
        }
        if self.bytes.is_empty() {
            (self.file, self.start) = (file, at);
            if self.bytes.try_reserve(room).is_err() {
                return false;
            }
        } else if self.file != file || self.start + self.bytes.len() as i64 != at {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// Writes what waits.
    fn write(&mut self) -> c_int {
        if self.bytes.is_empty() {
            return ffi::SQLITE_OK;
        }
        // SAFETY: `file` is one of ours, and open: closing it writes what waits first.
        let written = unsafe { write_behind(self.file, &self.bytes, self.start) };
        self.bytes.clear();
        #[cfg(test)]
        tests::WRITES.set(tests::WRITES.get() + 1);
        if written != ffi::SQLITE_OK {
            self.gathers = false;
        }
        written
    }
}

/// Writes what waits, before something else is done.
fn write_waiting() -> c_int {
    WAITING.with_borrow_mut(Waiting::write)
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // The first version has all that a log is asked for; shared memory and mapped pages are of the database's file.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The system's file that lies behind ours in memory.
///
/// # Safety
/// `file` is what SQLite gave [`open`].
const unsafe fn behind(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: SQLite gives as much memory as the layer asks for: ours, of one pointer, and then the system's, aligned alike.
    unsafe { file.add(1) }
}

/// Calls a function of the file behind, in functions whose callers promise that `file` is an open one of ours.
macro_rules! ask_behind {
    ($file:ident, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: the system has opened its file, so its methods are there, all that SQLite asks a log for. What SQLite gives with the
        // question is passed on.
        unsafe {
            let system = behind($file);
            match (*system).pMethods.as_ref().and_then(|methods| methods.$method) {
                Some(method) => method(system $(, $argument)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    }};
}

/// As [`ask_behind`], once what waits is written.
macro_rules! ask_behind_in_turn {
    ($file:ident, $method:ident $(, $argument:expr)*) => {{
        match write_waiting() {
            ffi::SQLITE_OK => ask_behind!($file, $method $(, $argument)*),
            failed => failed,
        }
    }};
}

/// # Safety
/// `file` is an open file of ours.
unsafe fn write_behind(file: *mut ffi::sqlite3_file, bytes: &[u8], at: i64) -> c_int {
    let Ok(len) = c_int::try_from(bytes.len()) else {
        return ffi::SQLITE_IOERR;
    };
    ask_behind!(file, xWrite, bytes.as_ptr().cast(), len, at)
}

/// The log's file is ours; any other is the system's own.
///
/// # Safety
/// Called by SQLite, with memory for a file as large as the layer says.
unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    opened_as: *mut c_int,
) -> c_int {
    // SAFETY: SQLite opens nothing by a layer before it is registered, and that follows the store. The memory is nobody's yet, and large
    // enough for both files.
    unsafe {
        let system = SYSTEM.load(Ordering::Acquire);
        let Some(open) = (*system).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        if flags & ffi::SQLITE_OPEN_WAL == 0 {
            return open(system, name, file, flags, opened_as);
        }
        (*file).pMethods = ptr::null();
        (*behind(file)).pMethods = ptr::null();
        let opened = open(system, name, behind(file), flags, opened_as);
        // With methods SQLite closes it, also after a failure: where the system wants that, it has set its own.
        if !(*behind(file)).pMethods.is_null() {
            (*file).pMethods = &raw const METHODS;
        }
        opened
    }
}

/// # Safety
/// Called by SQLite for an open file of ours, as are those below.
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite gives so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len.max(0) as usize) };
    WAITING.with_borrow_mut(|waiting| {
        if waiting.takes(file, bytes, at) {
            return ffi::SQLITE_OK;
        }
        let written = waiting.write();
        if written != ffi::SQLITE_OK || waiting.takes(file, bytes, at) {
            return written;
        }
        // SAFETY: by the caller's promise.
        unsafe { write_behind(file, bytes, at) }
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let written = WAITING.with_borrow_mut(|waiting| {
        let written = waiting.write();
        // What a log that is padded to whole sectors gets after its sync is seen by others without another one.
        waiting.gathers = false;
        written
    });
    if written != ffi::SQLITE_OK {
        return written;
    }
    ask_behind!(file, xSync, flags)
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let written = write_waiting();
    let closed = ask_behind!(file, xClose);
    if written == ffi::SQLITE_OK {
        closed
    } else {
        written
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    len: c_int,
    at: i64,
) -> c_int {
    ask_behind_in_turn!(file, xRead, to, len, at)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    ask_behind_in_turn!(file, xTruncate, size)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    ask_behind_in_turn!(file, xFileSize, size)
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    what: c_int,
    with: *mut c_void,
) -> c_int {
    ask_behind_in_turn!(file, xFileControl, what, with)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    ask_behind!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    ask_behind!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, is: *mut c_int) -> c_int {
    ask_behind!(file, xCheckReservedLock, is)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    ask_behind!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    ask_behind!(file, xDeviceCharacteristics)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use rusqlite::{Connection, OpenFlags};

    use super::*;

    thread_local! {
        /// Writes that were gathered.
        pub(super) static WRITES: Cell<u32> = const { Cell::new(0) };
    }

    fn writes(work: impl FnOnce()) -> u32 {
        let before = WRITES.get();
        work();
        WRITES.get() - before
    }

    fn database(path: &Path) -> Connection {
        let connection =
            Connection::open_with_flags_and_vfs(path, OpenFlags::default(), vfs().unwrap())
                .unwrap();
        let set_up = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)";
        connection.execute_batch(set_up).unwrap();
        connection
    }

    /// So many rows of a page each, in one transaction.
    fn rows(connection: &Connection, count: usize) {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..count {
            let insert = "INSERT INTO t VALUES (zeroblob(4000))";
            connection.execute(insert, []).unwrap();
        }
        gather(|| connection.execute_batch("COMMIT")).unwrap();
    }

    /// What a process that is killed now leaves, as another one finds it.
    fn rows_after_a_kill(path: &Path) -> i64 {
        let (mut log, mut copied_log) = (path.to_owned(), path.with_extension("copy"));
        let copy = copied_log.clone();
        std::fs::copy(path, &copy).unwrap();
        log.as_mut_os_string().push("-wal");
        copied_log.as_mut_os_string().push("-wal");
        std::fs::copy(log, copied_log).unwrap();
        let copy = Connection::open(copy).unwrap();
        let sound: String = copy
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
        copy.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_commit_is_few_writes_and_is_there_when_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = database(&path);
        // 15 frames of 4,120 bytes fit into one write.
        assert_eq!(writes(|| rows(&connection, 40)), 3);
        assert_eq!(rows_after_a_kill(&path), 40);
        assert_eq!(writes(|| rows(&connection, 1)), 1);
        assert_eq!(rows_after_a_kill(&path), 41);
        // The header of a log that begins anew is synced by itself, and ends the gathering.
        connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        assert_eq!(writes(|| rows(&connection, 40)), 1);
        assert_eq!(rows_after_a_kill(&path), 81);
    }

    #[test]
    fn a_transaction_larger_than_the_cache_is_written_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = database(&path);
        connection.pragma_update(None, "cache_size", 10).unwrap();
        // Pages are written before the commit, read again, and written over: the commit reckons their checksums anew.
        for _ in 0..3 {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            let insert = "INSERT INTO t VALUES (zeroblob(4000))";
            for _ in 0..100 {
                connection.execute(insert, []).unwrap();
            }
            let update = "UPDATE t SET x = randomblob(4000)";
            connection.execute(update, []).unwrap();
            connection.execute(update, []).unwrap();
            gather(|| connection.execute_batch("COMMIT")).unwrap();
        }
        assert_eq!(rows_after_a_kill(&path), 300);
        // What is rolled back was written in part, and is nobody's.
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection.execute("DELETE FROM t", []).unwrap();
        connection.execute_batch("ROLLBACK").unwrap();
        rows(&connection, 1);
        assert_eq!(rows_after_a_kill(&path), 301);
    }

    /// A log's file as SQLite opens one.
    struct File {
        memory: Vec<u64>,
        name: ffi::sqlite3_filename,
    }

    impl File {
        fn open(path: &Path) -> Self {
            let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
            // SAFETY: as SQLite does it: a name of its making, memory as large as the layer says, all of it zeros.
            unsafe {
                let vfs = ffi::sqlite3_vfs_find(vfs().unwrap().as_ptr());
                let mut memory = vec![0_u64; (*vfs).szOsFile as usize / 8 + 1];
                let nothing = c"".as_ptr();
                let name = ffi::sqlite3_create_filename(
                    text.as_ptr(),
                    nothing,
                    nothing,
                    0,
                    ptr::null_mut(),
                );
                let flags =
                    ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_WAL;
                let file = memory.as_mut_ptr().cast();
                assert_eq!(open(vfs, name, file, flags, &mut 0), ffi::SQLITE_OK);
                Self { memory, name }
            }
        }

        fn file(&mut self) -> *mut ffi::sqlite3_file {
            self.memory.as_mut_ptr().cast()
        }

        fn write(&mut self, bytes: &[u8], at: i64) {
            let len = bytes.len() as c_int;
            // SAFETY: an open file of ours.
            let written = unsafe { write(self.file(), bytes.as_ptr().cast(), len, at) };
            assert_eq!(written, ffi::SQLITE_OK);
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            // SAFETY: open until now; the name is of SQLite's making.
            unsafe {
                close(self.file());
                ffi::sqlite3_free_filename(self.name);
            }
        }
    }

    #[test]
    fn bytes_wait_until_the_sync_or_until_somebody_asks_and_what_is_left_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let read_path = || String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        let mut file = File::open(&path);
        file.write(b"outside ", 0);
        assert_eq!(read_path(), "outside ", "outside of a commit nothing waits");

        gather(|| {
            file.write(b"one ", 8);
            file.write(b"two ", 12);
            assert_eq!(read_path(), "outside ");
            // Not where the last one ended: what waits goes first, in order.
            file.write(b"OUT", 0);
            assert_eq!(read_path(), "outside one two ");
            let mut begin = [0; 3];
            // SAFETY: an open file of ours, and room for three bytes.
            let read = unsafe { read(file.file(), begin.as_mut_ptr().cast(), 3, 0) };
            assert_eq!((read, &begin), (ffi::SQLITE_OK, b"OUT"));
            file.write(b"three ", 16);
            let mut len = 0;
            // SAFETY: as above.
            let asked = unsafe { file_size(file.file(), &raw mut len) };
            assert_eq!((asked, len), (ffi::SQLITE_OK, 22));
            file.write(b"four ", 22);
            // SAFETY: as above.
            let synced = unsafe { sync(file.file(), ffi::SQLITE_SYNC_NORMAL) };
            assert_eq!(synced, ffi::SQLITE_OK);
            assert_eq!(read_path(), "OUTside one two three four ");
            file.write(b"five ", 27);
            assert!(
                read_path().ends_with("five "),
                "after the sync nothing waits"
            );
        });
        gather(|| file.write(b"of a commit that failed", 32));
        file.write(b"six", 32);
        assert_eq!(read_path(), "OUTside one two three four five six");

        let large = vec![b'x'; ROOM + 1];
        gather(|| {
            file.write(b"seven ", 0);
            file.write(&large, 6);
            assert_eq!(
                read_path().len(),
                ROOM + 7,
                "it does not fit and does not wait"
            );
        });
    }
}
