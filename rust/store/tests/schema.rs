//! The schema: what a new home has, and every way an old one becomes current.

use crate::home::{Home, error_of, raw, spec, timed};
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{Owners, SandboxStatus};
use microsandbox_store::entity;
use microsandbox_store::migration::{Migrator, TABLES};
use sea_orm::EntityTrait;
use sea_orm_migration::MigratorTrait;

const STEPS: u32 = 13;
const THIRD: &str = "m20260305_000003_create_storage_tables";

// case: 27
#[test]
fn opening_makes_the_file_and_exactly_the_13_tables() {
    timed(async {
        let home = Home::new();
        drop(home.open().await.unwrap());
        let db = raw::raw(&home.database()).await;
        let expected = [
            "config",
            "image_ref",
            "layer",
            "maintenance_lease",
            "manifest",
            "manifest_layer",
            "run",
            "sandbox",
            "sandbox_labels",
            "sandbox_rootfs",
            "snapshot_index",
            "volume",
            "volume_attach",
        ];
        assert_eq!(raw::tables(&db).await, expected);
        assert_eq!(TABLES.to_vec(), expected);
        let names = raw::column(&db, "SELECT version FROM seaql_migrations ORDER BY rowid").await;
        assert_eq!((names.len() as u32, names[2].as_str()), (STEPS, THIRD));
        assert_eq!(names[12], "m20260621_000002_create_maintenance_lease");
        assert_eq!(raw::column(&db, "PRAGMA journal_mode").await, ["wal"]);
    });
}

#[test]
fn the_indexes_are_those_that_are_agreed() {
    timed(async {
        let home = Home::new();
        drop(home.open().await.unwrap());
        let db = raw::raw(&home.database()).await;
        let sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name";
        let expected = [
            "idx_manifest_layers_manifest_position",
            // Those of our own, which no step makes.
            "idx_own_run_sandbox",
            "idx_own_sandbox_identity",
            "idx_own_sandbox_owner",
            "idx_own_volume_owner",
            "idx_sandbox_ephemeral_status",
            "idx_sandbox_labels_key_value",
            "idx_sandbox_labels_sandbox_id",
            "idx_snapshot_index_image",
            "idx_snapshot_index_name",
            "idx_snapshot_index_parent",
            "idx_volume_attach_volume_id",
        ];
        assert_eq!(raw::column(&db, sql).await, expected);
    });
}

#[test]
fn a_home_without_our_columns_gets_them_when_opened() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        let db = raw::raw(&home.database()).await;
        let complete = raw::schema(&db).await;
        // As another implementation made it, with a configuration that is not JSON.
        raw::run(&db, "DROP INDEX idx_own_run_sandbox; DROP INDEX idx_own_sandbox_identity").await;
        raw::run(&db, "DROP INDEX idx_own_sandbox_owner; DROP INDEX idx_own_volume_owner").await;
        raw::run(&db, "ALTER TABLE sandbox DROP COLUMN own_owner; ALTER TABLE volume DROP COLUMN own_owner").await;
        raw::run(&db, "INSERT INTO sandbox (name, config, status) VALUES ('broken', '{half', 'Stopped')").await;
        raw::close(db).await;
        let store = home.open().await.unwrap();
        assert_eq!(store.sandbox_by_id("id-of-first", &Owners::All).await.unwrap().unwrap().0.name, "first");
        let db = raw::raw(&home.database()).await;
        assert_eq!(raw::schema(&db).await, complete);
        assert_eq!(raw::column(&db, "SELECT version FROM seaql_migrations").await.len() as u32, STEPS);
    });
}

#[test]
fn every_entity_names_columns_that_exist() {
    timed(async {
        let home = Home::new();
        drop(home.open().await.unwrap());
        let db = raw::raw(&home.database()).await;
        macro_rules! selects {
            ($($table:ident)*) => { $(
                assert!(entity::$table::Entity::find().all(&db).await.unwrap().is_empty(), stringify!($table));
            )* };
        }
        selects!(config image_ref layer maintenance_lease manifest manifest_layer run sandbox sandbox_labels
                 sandbox_rootfs snapshot_index volume volume_attach);
    });
}

// case: 28
#[test]
fn migrating_twice_changes_nothing() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        let db = raw::raw(&home.database()).await;
        let before = raw::schema(&db).await;
        Migrator::up(&db, None).await.unwrap();
        raw::close(db).await;
        let store = home.open().await.unwrap();
        assert!(store.sandbox("first").await.unwrap().is_some());
        let db = raw::raw(&home.database()).await;
        assert_eq!(raw::schema(&db).await, before);
        assert_eq!(raw::column(&db, "SELECT version FROM seaql_migrations").await.len() as u32, STEPS);
    });
}

// case: 29
#[test]
fn a_third_step_that_was_cut_off_is_finished() {
    timed(async {
        let home = Home::new();
        let db = raw::raw(&home.database()).await;
        Migrator::up(&db, Some(2)).await.unwrap();
        raw::run(
            &db,
            "CREATE TABLE volume (id integer PRIMARY KEY AUTOINCREMENT, name text NOT NULL UNIQUE, quota_mib integer, \
             size_bytes bigint, labels text, created_at datetime, updated_at datetime); \
             CREATE TABLE snapshot (id integer PRIMARY KEY AUTOINCREMENT, name text NOT NULL, sandbox_id integer \
             REFERENCES sandbox (id) ON DELETE SET NULL, size_bytes bigint, description text, created_at datetime); \
             CREATE UNIQUE INDEX idx_snapshots_name_sandbox_unique ON snapshot (name, sandbox_id)",
        )
        .await;
        raw::close(db).await;
        home.open().await.unwrap().insert_sandbox(&spec("a"), SandboxStatus::Created).await.unwrap();
        let db = raw::raw(&home.database()).await;
        let sql = format!("SELECT version FROM seaql_migrations WHERE version = '{THIRD}'");
        assert_eq!(raw::column(&db, &sql).await.len(), 1);
        assert_eq!(raw::tables(&db).await, TABLES);
    });
}

/// What step `n` did is there, its record is not: the state an implementation without transactions leaves when killed.
// hazard: DB3
#[test]
fn every_step_tolerates_that_it_ran_before() {
    timed(async {
        let reference = Home::new();
        drop(reference.open().await.unwrap());
        let db = raw::raw(&reference.database()).await;
        let expected = raw::schema(&db).await;
        for recorded in 0..STEPS {
            let home = Home::new();
            let db = raw::raw(&home.database()).await;
            Migrator::up(&db, Some(recorded + 1)).await.unwrap();
            raw::run(&db, "DELETE FROM seaql_migrations WHERE rowid = (SELECT MAX(rowid) FROM seaql_migrations)").await;
            raw::close(db).await;
            drop(home.open().await.unwrap());
            let db = raw::raw(&home.database()).await;
            assert_eq!(raw::schema(&db).await, expected, "{recorded} steps were recorded");
            assert_eq!(raw::column(&db, "SELECT version FROM seaql_migrations").await.len() as u32, STEPS);
        }
    });
}

#[test]
fn every_prefix_of_the_steps_is_carried_on() {
    timed(async {
        for applied in 0..=STEPS {
            let home = Home::new();
            let db = raw::raw(&home.database()).await;
            Migrator::up(&db, Some(applied)).await.unwrap();
            raw::close(db).await;
            let store = home.open().await.unwrap();
            store.insert_sandbox(&spec("a"), SandboxStatus::Created).await.unwrap();
            let db = raw::raw(&home.database()).await;
            assert_eq!(raw::tables(&db).await, TABLES, "{applied} steps were applied");
        }
    });
}

#[test]
fn a_history_that_is_no_prefix_of_ours_is_refused() {
    timed(async {
        for (sql, word) in [
            ("INSERT INTO seaql_migrations VALUES ('m20260703_000001_add_sandbox_active_config', 1)", "newer version"),
            (&format!("DELETE FROM seaql_migrations WHERE version = '{THIRD}'") as &str, "missing in the middle"),
        ] {
            let home = Home::with_one_sandbox().await;
            let db = raw::raw(&home.database()).await;
            raw::run(&db, sql).await;
            let before = raw::schema(&db).await;
            let error = error_of(home.open().await);
            assert!(matches!(&error, MicrosandboxError::Runtime(text) if text.contains(word)), "{error:?}");
            assert!(error.to_string().contains(home.database().to_str().unwrap()));
            assert_eq!(raw::schema(&db).await, before);
        }
    });
}

#[test]
fn an_installation_in_force_keeps_everybody_out_until_it_ends() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        let db = raw::raw(&home.database()).await;
        let until = (chrono::Utc::now() + chrono::TimeDelta::minutes(30)).naive_utc();
        let sql = format!(
            "INSERT INTO maintenance_lease (name, holder_pid, lease_expires_at) VALUES ('install', 4711, '{}')",
            until.format("%F %T")
        );
        raw::run(&db, &sql).await;
        let error = error_of(home.open().await);
        assert!(matches!(&error, MicrosandboxError::Runtime(text) if text.contains("4711")), "{error:?}");
        raw::run(&db, "UPDATE maintenance_lease SET lease_expires_at = '2020-01-01 00:00:00'").await;
        home.open().await.unwrap();
    });
}

// case: 32
#[test]
fn concurrent_first_opens_migrate_once() {
    timed(async {
        let home = Home::new();
        let stores = futures::future::join_all((0..8).map(|_| home.open())).await;
        for store in &stores {
            assert!(store.is_ok(), "{:?}", store.as_ref().err());
        }
        let db = raw::raw(&home.database()).await;
        assert_eq!(raw::column(&db, "SELECT version FROM seaql_migrations").await.len() as u32, STEPS);
    });
}

// case: 31, 33
#[test]
fn a_failed_open_names_the_path_and_can_be_retried() {
    timed(async {
        let home = Home::new();
        std::fs::create_dir_all(home.database()).unwrap();
        let error = error_of(home.open().await);
        assert!(error.to_string().contains(home.database().to_str().unwrap()), "{error}");
        std::fs::remove_dir(home.database()).unwrap();
        home.open().await.unwrap();

        let home = Home::new();
        std::fs::write(home.path().join("db"), "in the way").unwrap();
        let error = error_of(home.open().await);
        assert!(error.to_string().contains(home.path().join("db").to_str().unwrap()), "{error}");
    });
}

#[test]
fn a_table_that_was_dropped_is_damage() {
    timed(async {
        let home = Home::with_one_sandbox().await;
        let db = raw::raw(&home.database()).await;
        raw::run(&db, "DROP TABLE run").await;
        let error = error_of(home.open().await);
        assert!(
            matches!(&error, MicrosandboxError::StateCorrupt { message, .. } if message.contains("run")),
            "{error:?}"
        );
    });
}
