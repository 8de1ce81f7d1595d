//! The embedded store: one SQLite file, in write-ahead mode and synchronous.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::de::DeserializeOwned;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Intent, Lock, Release, Store, StoreError, Write, lock, schema};
use crate::{Machine, MachineName};

/// How long a write waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Folders that lie beside the store.
#[cfg(unix)]
const OURS: [&str; 4] = ["locks", "machines", "projects", "local"];

/// The embedded store.
#[derive(Clone)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
    locks: PathBuf,
}

impl SqliteStore {
    /// Opens `<state>/windlass.db`, made when absent; locks lie in `<state>/locks`. The directory is kept to its owner, so it must be
    /// one of our own: `/tmp`, closed to everybody else, would be a broken computer.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        check_own(state)?;
        let locks = state.join("locks");
        fs_err::create_dir_all(&locks)?;
        restrict(state)?;
        let path = state.join("windlass.db");
        let failed = |doing| {
            let path = path.display().to_string();
            move |source| StoreError::Sqlite {
                doing,
                path,
                source,
            }
        };
        let mut connection = Connection::open(&path).map_err(failed("open the store"))?;
        prepare(&connection).map_err(failed("set up the store"))?;
        match schema::migrate(&mut connection).map_err(failed("migrate the store"))? {
            Ok(()) => Ok(Self {
                connection: Arc::new(Mutex::new(connection)),
                path,
                locks,
            }),
            Err(found) => Err(StoreError::Newer {
                path: path.display().to_string(),
                found,
                known: schema::VERSION,
            }),
        }
    }

    /// Runs `work` on the connection, off the async threads.
    async fn with<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = self.connection.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Store(error))) => Err(error),
            Ok(Err(Failure::Sqlite(source))) => Err(StoreError::Sqlite {
                doing,
                path: self.path.display().to_string(),
                source,
            }),
            Err(join) => Err(StoreError::Io(std::io::Error::other(join))),
        }
    }
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

/// Refuses a folder that holds other things and that others use.
#[cfg(unix)]
fn check_own(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    let entries = match fs_err::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut others = false;
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name == "windlass.db" {
            return Ok(());
        }
        others |= !OURS.contains(&name.as_ref()) && !name.starts_with("windlass.db");
    }
    let shared = fs_err::metadata(folder)?.permissions().mode() & 0o077 != 0;
    if others && shared {
        return Err(StoreError::Shared(folder.display().to_string()));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_own(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(unix)]
fn restrict(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> Result<(), StoreError> {
    Ok(())
}

enum Failure {
    Store(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Damaged {
        what: what.to_owned(),
        source,
    })
}

fn print(what: &str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Damaged {
        what: what.to_owned(),
        source,
    })
}

fn machine(name: &str, generation: u64, record: &str) -> Result<Machine, StoreError> {
    let machine: Machine = parse(&format!("machine `{name}`"), record)?;
    Ok(Machine {
        generation,
        ..machine
    })
}

fn apply(connection: &Connection, write: &Write) -> Result<(), Failure> {
    match write {
        Write::Insert(machine) => {
            let record = print("a machine", machine)?;
            let sql = "INSERT INTO machines (name, generation, record) VALUES (?1, 1, ?2) ON CONFLICT DO NOTHING";
            if connection.execute(sql, params![machine.name.as_str(), record])? == 0 {
                return Err(StoreError::Exists(machine.name.clone()).into());
            }
        }
        Write::Update(machine) => {
            let record = print("a machine", machine)?;
            let sql = "UPDATE machines SET generation = generation + 1, record = ?3 WHERE name = ?1 AND generation = ?2";
            let changed = connection.execute(
                sql,
                params![machine.name.as_str(), machine.generation as i64, record],
            )?;
            expect_change(connection, &machine.name, changed)?;
        }
        Write::Remove(name, generation) => {
            let sql = "DELETE FROM machines WHERE name = ?1 AND generation = ?2";
            let changed = connection.execute(sql, params![name.as_str(), *generation as i64])?;
            expect_change(connection, name, changed)?;
        }
        Write::Put(intent) => {
            let record = print("an intent", intent)?;
            let sql = "INSERT INTO intents (token, machine, record) VALUES (?1, ?2, ?3)
                       ON CONFLICT (token) DO UPDATE SET machine = ?2, record = ?3";
            connection.execute(sql, params![intent.token, intent.machine.as_str(), record])?;
        }
        Write::EndAll(name) => {
            connection.execute("DELETE FROM intents WHERE machine = ?1", [name.as_str()])?;
        }
    }
    Ok(())
}

/// Tells a record that is gone from one that has changed.
fn expect_change(
    connection: &Connection,
    name: &MachineName,
    changed: usize,
) -> Result<(), Failure> {
    if changed > 0 {
        return Ok(());
    }
    let there = connection
        .query_row(
            "SELECT 1 FROM machines WHERE name = ?1",
            [name.as_str()],
            |_| Ok(()),
        )
        .optional()?
        .is_some();
    Err(if there {
        StoreError::Stale(name.clone())
    } else {
        StoreError::NotFound(name.clone())
    }
    .into())
}

#[async_trait]
impl Store for SqliteStore {
    async fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        self.with("read machines", |connection| {
            let mut query = connection
                .prepare("SELECT name, generation, record FROM machines ORDER BY name")?;
            let rows = query.query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, String>(2)?,
                ))
            })?;
            rows.map(|row| {
                let (name, generation, record) = row?;
                Ok(machine(&name, generation as u64, &record)?)
            })
            .collect()
        })
        .await
    }

    async fn machine(&self, name: &MachineName) -> Result<Option<Machine>, StoreError> {
        let name = name.to_string();
        self.with("read a machine", move |connection| {
            let sql = "SELECT generation, record FROM machines WHERE name = ?1";
            let row = connection
                .query_row(sql, [&name], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
                })
                .optional()?;
            Ok(row
                .map(|(generation, record)| machine(&name, generation as u64, &record))
                .transpose()?)
        })
        .await
    }

    async fn intents(&self) -> Result<Vec<Intent>, StoreError> {
        self.with("read intents", |connection| {
            let mut query =
                connection.prepare("SELECT token, record FROM intents ORDER BY rowid")?;
            let rows = query.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            rows.map(|row| {
                let (token, record) = row?;
                Ok(parse(&format!("intent `{token}`"), &record)?)
            })
            .collect()
        })
        .await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.with("write", move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for write in &writes {
                apply(&transaction, write)?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    async fn lock(&self, name: &str, wait: Duration) -> Result<Lock, StoreError> {
        lock::take(&self.locks, name, wait).await
    }

    async fn add_release(
        &self,
        project: &str,
        declared: &serde_json::Value,
        applied_at: OffsetDateTime,
    ) -> Result<Release, StoreError> {
        let release = Release {
            id: 0,
            project: project.to_owned(),
            declared: declared.clone(),
            applied_at,
        };
        self.with("write a release", move |connection| {
            let at = applied_at.format(&Rfc3339).unwrap_or_default();
            let sql = "INSERT INTO releases (project, declared, applied_at) VALUES (?1, ?2, ?3)";
            connection.execute(
                sql,
                params![release.project, print("a release", &release.declared)?, at],
            )?;
            Ok(Release {
                id: connection.last_insert_rowid() as u64,
                ..release
            })
        })
        .await
    }

    async fn releases(&self, project: &str, limit: usize) -> Result<Vec<Release>, StoreError> {
        let project = project.to_owned();
        self.with("read releases", move |connection| {
            let sql = "SELECT id, declared, applied_at FROM releases WHERE project = ?1 ORDER BY id DESC LIMIT ?2";
            let mut query = connection.prepare(sql)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = query.query_map(params![project, limit], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })?;
            rows.map(|row| {
                let (id, declared, at) = row?;
                Ok(Release {
                    id: id as u64,
                    project: project.clone(),
                    declared: parse(&format!("release {id}"), &declared)?,
                    applied_at: OffsetDateTime::parse(&at, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH),
                })
            })
            .collect()
        })
        .await
    }

    async fn count(&self, project: &str, fleet: &str) -> Result<Option<u32>, StoreError> {
        let key = [project.to_owned(), fleet.to_owned()];
        self.with("read a fleet's count", move |connection| {
            let sql = "SELECT count FROM counts WHERE project = ?1 AND fleet = ?2";
            let count = connection
                .query_row(sql, key, |row| row.get::<_, u32>(0))
                .optional()?;
            Ok(count)
        })
        .await
    }

    async fn set_count(&self, project: &str, fleet: &str, count: u32) -> Result<(), StoreError> {
        let (project, fleet) = (project.to_owned(), fleet.to_owned());
        self.with("write a fleet's count", move |connection| {
            let sql = "INSERT INTO counts (project, fleet, count) VALUES (?1, ?2, ?3)
                ON CONFLICT (project, fleet) DO UPDATE SET count = excluded.count";
            connection.execute(sql, params![project, fleet, count])?;
            Ok(())
        })
        .await
    }

    async fn forget_counts(&self, project: &str) -> Result<(), StoreError> {
        let project = project.to_owned();
        self.with("forget a project's counts", move |connection| {
            connection.execute("DELETE FROM counts WHERE project = ?1", [project])?;
            Ok(())
        })
        .await
    }
}
