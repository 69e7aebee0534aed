//! The database file as SQLite sees it, past the store.

use std::path::Path;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm::{ConnectionTrait, DatabaseConnection, SqlxSqliteConnector, Statement};

/// One connection, made with the directory and the file if need be.
pub async fn raw(path: &Path) -> DatabaseConnection {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    SqlxSqliteConnector::from_sqlx_sqlite_pool(pool)
}

pub async fn run(db: &DatabaseConnection, sql: &str) {
    db.execute_unprepared(sql).await.unwrap();
}

/// The first column of every row.
pub async fn column(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index::<String>(0).unwrap()).collect()
}

/// Tables other than SQLite's and the migrator's own, in order of name.
pub async fn tables(db: &DatabaseConnection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'seaql_%' \
               AND name <> 'sqlite_sequence' ORDER BY name";
    column(db, sql).await
}

/// Everything the schema says, in order of name.
pub async fn schema(db: &DatabaseConnection) -> Vec<String> {
    column(db, "SELECT type || ' ' || name || ': ' || COALESCE(sql, '') FROM sqlite_master ORDER BY 1").await
}

pub async fn integrity(db: &DatabaseConnection) -> Vec<String> {
    column(db, "PRAGMA integrity_check").await
}

/// Closes and waits for it.
pub async fn close(db: DatabaseConnection) {
    db.close().await.unwrap();
}
