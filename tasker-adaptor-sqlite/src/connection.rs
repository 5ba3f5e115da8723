//! Opening connections: pragmas, and what kind of file is there.

use std::ffi::CStr;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tasker_adaptor::StorageError;

use crate::fault::{BACKEND, Fault, Outcome};
use crate::gathering;
use crate::options::Options;
use crate::schema;

/// Prepared statements kept by each connection; the engine's queries are fewer.
const STATEMENTS: usize = 192;

/// A write-ahead log that grew in a burst is cut back to this many bytes at the next checkpoint.
const LOG_LIMIT: u32 = 64 << 20;

/// Pages whose first change asks for the file's exclusive lock, tried this often while other processes open the same file.
const OPEN_PAUSE: Duration = Duration::from_millis(2);

/// Opens the writer's connection and brings the file to the newest schema.
pub(crate) fn open_writer(options: &Options) -> Outcome<Connection> {
    let mut connection = open(options, gathering::vfs())?;
    if options.read_only {
        schema::check(&connection, false)?;
        return Ok(connection);
    }
    let found = schema::check(&connection, options.migrate)?;
    if connection.is_readonly("main")? {
        return Err(Fault::Storage(StorageError::ReadOnly {
            backend: BACKEND,
            place: options.path.display().to_string(),
        }));
    }
    if found == 0 {
        // Takes effect on a file without tables only, and before the log mode is set.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    use_write_ahead_log(&connection, options.busy_timeout)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = {}; PRAGMA journal_size_limit = {LOG_LIMIT}",
        options.synchronous.word()
    ))?;
    connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
    if found < schema::NEWEST {
        // With temporary files: a migration may sort as much as there is.
        schema::migrate(&mut connection)?;
    }
    connection.execute_batch("PRAGMA temp_store = MEMORY")?;
    if let Some(pages) = options.max_pages {
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    Ok(connection)
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(options: &Options) -> Outcome<Connection> {
    let connection = open(options, None)?;
    connection.execute_batch("PRAGMA query_only = ON")?;
    connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
    Ok(connection)
}

fn open(options: &Options, vfs: Option<&CStr>) -> Outcome<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if options.read_only {
        flags |= OpenFlags::SQLITE_OPEN_READ_ONLY;
    } else {
        flags |= OpenFlags::SQLITE_OPEN_READ_WRITE;
        if options.migrate {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
    }
    let connection = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(&options.path, flags, vfs)?,
        None => Connection::open_with_flags(&options.path, flags)?,
    };
    connection.busy_timeout(options.busy_timeout)?;
    stable_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// A plan must not depend on bound values: without this SQLite prepares some statements anew at each execution, because a value
/// might make a partial index usable.
pub(crate) fn stable_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// SQLite answers "busy" here at once, without the busy timeout, when two processes make the same new file.
#[expect(
    clippy::disallowed_methods,
    reason = "a bounded pause on the opening thread; SQLite has no way to wait for this lock"
)]
fn use_write_ahead_log(connection: &Connection, patience: Duration) -> Outcome<()> {
    let mut waited = Duration::ZERO;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && waited < patience =>
            {
                std::thread::sleep(OPEN_PAUSE);
                waited += OPEN_PAUSE;
            }
            other => return Ok(other?),
        }
    }
}
