//! The write-ahead log as a file: how long it is, and when somebody else has touched it.
//!
//! What it is: two things that SQLite does not do by itself. A sync of a log that has grown writes the file's length too, which costs
//! a third of the sync, so a log of small transactions is lengthened ahead of them. And a look whether the log was touched at all is one
//! system call, where a look for commits takes and gives back locks. What it is not: a reader of the log.
//!
//! Invariants: the file is lengthened by whoever holds the write lock, with zeros behind its end, where no frame is · zeros are no
//! frame (page 0, no salt), so a recovery ends there as it would at the end of the file · nothing here can fail a transaction.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use rusqlite::Connection;

/// Pages in the write-ahead log before a checkpoint: 16 MiB, so that a hot page is copied back once for many commits.
const CHECKPOINT_PAGES: u32 = 4_096;

/// Bytes before the first frame. See <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.
const HEADER: u64 = 32;
/// Bytes of a frame: its header and a page.
const FRAME: u64 = 24 + 4_096;
/// A transaction of at most so many pages is small: its sync costs more than its bytes.
const SMALL: u32 = 32;
/// What a small transaction needs.
const ROOM: u64 = SMALL as u64 * FRAME;
/// A shorter log is left alone: whoever writes now and then would pay for room that is given back at the next rest.
const SHORT: u64 = 512 << 10;
/// How much a log is lengthened at one time. A quarter of it pays as much for the lengthening as it saves, four times as much gains nothing.
const STEP: usize = 1 << 20;
/// In no memory: every page of it is the system's page of zeros.
static ZEROS: [u8; STEP] = [0; STEP];

/// Length and time of the last write.
pub(crate) type Touched = (u64, SystemTime);

/// The log of one writer's file.
pub(crate) struct LogFile {
    path: PathBuf,
    /// Pages in the log after the last commit of this writer, written by SQLite's hook.
    pages: Arc<AtomicU32>,
    /// `pages` at the last look, and by how many it grew then.
    before: u32,
    grew: u32,
    /// To lengthen it: opened when it is first needed.
    file: Option<File>,
    /// Where the log ended at the last look.
    end: u64,
    /// The disk had no room; asked again when the log begins anew.
    given_up: bool,
}

impl LogFile {
    pub(crate) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self {
            path: path.into(),
            pages: Arc::default(),
            before: 0,
            grew: 0,
            file: None,
            end: 0,
            given_up: false,
        }
    }

    /// Counts the pages of this connection's commits from now on, in place of SQLite's own checkpoints: see [`Self::is_full`].
    pub(crate) fn follow(&mut self, connection: &mut Connection) -> rusqlite::Result<()> {
        self.file = None;
        let pages = Arc::clone(&self.pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, now| {
            pages.store(u32::try_from(now).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Pages in the log after the last commit of this writer.
    pub(crate) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Whether it is time for a checkpoint.
    pub(crate) fn is_full(&self) -> bool {
        self.pages() >= CHECKPOINT_PAGES
    }

    /// It was copied back: the next commit begins it anew, or says how long it still is.
    pub(crate) fn was_copied_back(&self) {
        self.pages.store(0, Ordering::Relaxed);
    }

    /// Makes room for further small transactions. Only for who holds the write lock and has written nothing yet.
    pub(crate) fn make_room(&mut self) {
        let pages = self.pages();
        if pages < self.before {
            // The log began anew.
            self.given_up = false;
            self.end = 0;
        } else if pages > self.before {
            self.grew = pages - self.before;
        }
        self.before = pages;
        let used = HEADER + u64::from(pages) * FRAME;
        let goes_on = pages + SMALL < CHECKPOINT_PAGES;
        let has_room = used + ROOM <= self.end;
        if has_room || !goes_on || self.grew > SMALL || used < SHORT || self.given_up {
            return;
        }
        if let Err(error) = self.lengthen(used) {
            self.given_up = true;
            tracing::debug!(%error, "the write-ahead log is not lengthened; it grows with each commit");
        }
    }

    fn lengthen(&mut self, used: u64) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().append(true).open(&self.path)?),
        };
        let end = file.metadata()?.len();
        // A log that ends before what this writer knows of it was begun anew by somebody else.
        if end < used || used + ROOM <= end {
            self.end = end;
            return Ok(());
        }
        // A full disk keeps its last bytes for frames.
        file.write_all(&ZEROS)
            .inspect_err(|_| drop(file.set_len(end)))?;
        self.end = end + STEP as u64;
        Ok(())
    }

    /// Length and time of the last write, of anybody. `None` where the system does not say, or says it late.
    pub(crate) fn touched(&self) -> Option<Touched> {
        if !cfg!(unix) {
            return None;
        }
        let file = std::fs::metadata(&self.path).ok()?;
        Some((file.len(), file.modified().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::config::DbConfig;

    use super::*;

    /// A database in a folder of its own, and its log.
    fn database(folder: &Path) -> (Connection, LogFile) {
        let path = folder.join("a.db");
        let mut connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
            .unwrap();
        let mut log = LogFile::of(&path);
        log.follow(&mut connection).unwrap();
        (connection, log)
    }

    /// Small commits, each with room made for it, until the log has so many pages.
    fn commit_until(connection: &Connection, log: &mut LogFile, pages: u32) -> i64 {
        let mut rows = 0;
        while log.pages() < pages {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            log.make_room();
            connection
                .execute("INSERT INTO t VALUES (zeroblob(3000))", [])
                .unwrap();
            connection.execute_batch("COMMIT").unwrap();
            rows += 1;
        }
        rows
    }

    #[test]
    fn a_log_of_small_commits_is_lengthened_ahead_and_recovered_as_any() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, mut log) = database(folder.path());
        commit_until(&connection, &mut log, 100);
        let exact = HEADER + u64::from(log.pages()) * FRAME;
        assert_eq!(log.touched().unwrap().0, exact, "a short log is left alone");

        let more = commit_until(&connection, &mut log, 200);
        let used = HEADER + u64::from(log.pages()) * FRAME;
        let length = log.touched().unwrap().0;
        assert!(
            length > used && length <= used + STEP as u64,
            "{length} beside {used}"
        );
        assert!(more > 0);
        let rows: i64 = connection
            .query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0))
            .unwrap();

        // What a killed process leaves: file and log, with zeros behind the last frame.
        let copy = folder.path().join("copy.db");
        std::fs::copy(folder.path().join("a.db"), &copy).unwrap();
        std::fs::copy(&log.path, folder.path().join("copy.db-wal")).unwrap();
        let copy = Connection::open(copy).unwrap();
        let kept: i64 = copy
            .query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, rows);
        let sound: String = copy
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
        copy.execute("INSERT INTO t VALUES (1)", []).unwrap();
    }

    #[test]
    fn a_log_of_large_commits_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, mut log) = database(folder.path());
        for _ in 0..8 {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            log.make_room();
            connection
                .execute("INSERT INTO t VALUES (zeroblob(200000))", [])
                .unwrap();
            connection.execute_batch("COMMIT").unwrap();
        }
        let used = HEADER + u64::from(log.pages()) * FRAME;
        assert!(used > SHORT);
        assert_eq!(log.touched().unwrap().0, used);
    }

    #[test]
    fn another_connection_touches_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, log) = database(folder.path());
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .unwrap();
        let before = log.touched();
        assert!(before.is_some());
        assert_eq!(log.touched(), before);
        Connection::open(folder.path().join("a.db"))
            .unwrap()
            .execute("INSERT INTO t VALUES (1)", [])
            .unwrap();
        assert_ne!(log.touched(), before);
    }
}
