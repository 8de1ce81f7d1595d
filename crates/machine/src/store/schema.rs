//! The tables, and how an older file becomes a current one.

use rusqlite::{Connection, TransactionBehavior};

/// Each entry takes a file from the version of its index to the next; never change one, only add.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE machines (
        name TEXT PRIMARY KEY NOT NULL,
        generation INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT;
    CREATE TABLE intents (
        token TEXT PRIMARY KEY NOT NULL,
        machine TEXT NOT NULL,
        record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX intents_by_machine ON intents (machine);
    CREATE TABLE releases (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project TEXT NOT NULL,
        declared TEXT NOT NULL,
        applied_at TEXT NOT NULL
    ) STRICT;
    CREATE INDEX releases_by_project ON releases (project, id);
",
    "
    CREATE TABLE counts (
        project TEXT NOT NULL,
        fleet TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (project, fleet)
    ) STRICT;
",
];

/// The schema that this program knows.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the file up to date; `Err(Some(version))` when it is newer than this program.
pub(super) fn migrate(connection: &mut Connection) -> Result<Result<(), i64>, rusqlite::Error> {
    let version =
        |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let found = version(connection)?;
    if found > VERSION {
        return Ok(Err(found));
    }
    if found == VERSION {
        return Ok(Ok(()));
    }
    // The version is read again inside: another process may have migrated in between.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(Ok(()))
}
