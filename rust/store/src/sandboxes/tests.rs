use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use super::*;
use crate::Store;
use microsandbox_core::config::DatabaseConfig;

const MANY: u32 = 1000;

fn spec(number: u32) -> SandboxSpec {
    SandboxSpec { name: format!("s{number}"), id: format!("id{number}"), ..SandboxSpec::default() }
}

async fn store(home: &tempfile::TempDir) -> Store {
    Store::open(&home.path().join("db/msb.db"), &DatabaseConfig::default()).await.unwrap()
}

/// What SQLite would do for a query.
async fn plan(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let statement = Statement::from_string(db.get_database_backend(), format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = db.query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| row.try_get("", "detail").unwrap()).collect()
}

#[tokio::test]
async fn lookups_and_the_count_read_an_index_only() {
    let home = tempfile::tempdir().unwrap();
    let store = store(&home).await;
    let db = store.pools.read().unwrap();
    for sql in [by_id_sql(), by_name_sql(), format!("{ROWS} WHERE s.id < ? ORDER BY s.id DESC LIMIT ?")] {
        let plan = plan(db, &sql.replace('?', "1")).await;
        assert!(plan.iter().any(|step| step.starts_with("SEARCH s")), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|step| step.starts_with("SCAN")), "{sql}: {plan:?}");
    }
    let sql = "SELECT COUNT(*) AS num_items FROM (SELECT s.id FROM sandbox s) AS sub_query";
    let plan = plan(db, sql).await;
    assert!(plan.iter().all(|step| step.contains("COVERING INDEX")), "{plan:?}");
}

#[tokio::test]
async fn one_of_a_thousand_is_found_by_its_identity() {
    let home = tempfile::tempdir().unwrap();
    let store = store(&home).await;
    assert_eq!(store.count_sandboxes().await.unwrap(), 0);
    for number in 0..MANY {
        let row = store.insert_sandbox(&spec(number), SandboxStatus::Starting).await.unwrap();
        store.begin_run(row.id, number as i32, SandboxStatus::Running).await.unwrap();
    }
    assert_eq!(store.count_sandboxes().await.unwrap(), u64::from(MANY));
    for number in [0, MANY / 2, MANY - 1] {
        let (row, run) = store.sandbox_by_id(&format!("id{number}")).await.unwrap().unwrap();
        assert_eq!((row.name, run.unwrap().pid), (format!("s{number}"), Some(number as i32)));
    }
    assert!(store.sandbox_by_id("id").await.unwrap().is_none());
    assert!(store.sandbox_by_id("").await.unwrap().is_none());
}

#[tokio::test]
async fn an_identity_follows_what_is_stored() {
    let home = tempfile::tempdir().unwrap();
    let store = store(&home).await;
    let first = store.insert_sandbox(&spec(1), SandboxStatus::Created).await.unwrap();
    let broken = store.insert_sandbox(&spec(2), SandboxStatus::Created).await.unwrap();
    store.update_spec(first.id, &SandboxSpec { id: "new".into(), ..spec(1) }).await.unwrap();
    assert!(store.sandbox_by_id("id1").await.unwrap().is_none());
    assert_eq!(store.sandbox_by_id("new").await.unwrap().unwrap().0.id, first.id);
    // A configuration that is not JSON has no identity, and its row stays within reach.
    let sql = format!("UPDATE sandbox SET config = '{{half' WHERE id = {}", broken.id);
    store.pools.write(|db| async { Ok(db.execute_unprepared(&sql).await?) }).await.map_err(|_| ()).unwrap();
    assert!(store.sandbox_by_id("id2").await.unwrap().is_none());
    assert_eq!(store.sandbox("s2").await.unwrap().unwrap().0.config_json, "{half");
    assert_eq!(store.count_sandboxes().await.unwrap(), 2);
    assert!(store.delete_sandbox(first.id).await.unwrap());
    assert!(store.sandbox_by_id("new").await.unwrap().is_none());
}
