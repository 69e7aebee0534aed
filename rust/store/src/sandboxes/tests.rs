use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use super::*;
use crate::Store;
use microsandbox_core::config::DatabaseConfig;

const MANY: u32 = 1000;
const ALL: Owners = Owners::All;

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
    let (of_one, _) = owned(&Owners::Only("k".into()), "s.").unwrap();
    for sql in [
        by_id_sql(&ALL),
        by_id_sql(&Owners::Only("k".into())),
        by_name_sql(),
        format!("{ROWS} WHERE s.id < ? ORDER BY s.id DESC LIMIT ?"),
        format!("{ROWS} WHERE s.id < ? AND {of_one} ORDER BY s.id DESC LIMIT ?"),
    ] {
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
        let (row, run) = store.sandbox_by_id(&format!("id{number}"), &ALL).await.unwrap().unwrap();
        assert_eq!((row.name, run.unwrap().pid), (format!("s{number}"), Some(number as i32)));
    }
    assert!(store.sandbox_by_id("id", &ALL).await.unwrap().is_none());
    assert!(store.sandbox_by_id("", &ALL).await.unwrap().is_none());
}

#[tokio::test]
async fn an_identity_follows_what_is_stored() {
    let home = tempfile::tempdir().unwrap();
    let store = store(&home).await;
    let first = store.insert_sandbox(&spec(1), SandboxStatus::Created).await.unwrap();
    let broken = store.insert_sandbox(&spec(2), SandboxStatus::Created).await.unwrap();
    store.update_spec(first.id, &SandboxSpec { id: "new".into(), ..spec(1) }).await.unwrap();
    assert!(store.sandbox_by_id("id1", &ALL).await.unwrap().is_none());
    assert_eq!(store.sandbox_by_id("new", &ALL).await.unwrap().unwrap().0.id, first.id);
    // A configuration that is not JSON has no identity, and its row stays within reach.
    let sql = format!("UPDATE sandbox SET config = '{{half' WHERE id = {}", broken.id);
    store.pools.write(|db| async { Ok(db.execute_unprepared(&sql).await?) }).await.map_err(|_| ()).unwrap();
    assert!(store.sandbox_by_id("id2", &ALL).await.unwrap().is_none());
    assert_eq!(store.sandbox("s2").await.unwrap().unwrap().0.config_json, "{half");
    assert_eq!(store.count_sandboxes().await.unwrap(), 2);
    assert!(store.delete_sandbox(first.id).await.unwrap());
    assert!(store.sandbox_by_id("new", &ALL).await.unwrap().is_none());
}

#[tokio::test]
async fn rows_of_other_owners_are_as_good_as_none() {
    let home = tempfile::tempdir().unwrap();
    let store = store(&home).await;
    for (number, owner) in [(0, None), (1, Some("a")), (2, Some("b")), (3, Some("a"))] {
        store.insert_sandbox_for(owner, &spec(number), SandboxStatus::Created).await.unwrap();
        store.insert_volume(owner, &format!("v{number}"), &BTreeMap::new()).await.unwrap();
    }
    let only = |owner: &str| Owners::Only(owner.into());
    let none = BTreeMap::new();
    for (owners, expected) in [
        (ALL, vec![3, 2, 1, 0]),
        (only("a"), vec![3, 1]),
        (only("c"), vec![]),
        (Owners::OnlyAndLocal("b".into()), vec![2, 0]),
    ] {
        let page = store.sandboxes_of(&owners, None, 100, &none).await.unwrap();
        let names: Vec<_> = page.rows.into_iter().map(|(row, _)| row.name).collect();
        assert_eq!(names, expected.iter().map(|number| format!("s{number}")).collect::<Vec<_>>(), "{owners:?}");
        let volumes: Vec<_> = store.volumes(&owners, None).await.unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(volumes, expected.iter().rev().map(|number| format!("v{number}")).collect::<Vec<_>>(), "{owners:?}");
        for number in 0..4 {
            let found = store.sandbox_by_id(&format!("id{number}"), &owners).await.unwrap();
            assert_eq!(found.is_some(), expected.contains(&number), "{owners:?} {number}");
        }
    }
    let first = store.sandboxes_of(&only("a"), None, 1, &none).await.unwrap();
    let second = store.sandboxes_of(&only("a"), first.next, 1, &none).await.unwrap();
    assert_eq!((second.rows[0].0.name.as_str(), second.next), ("s1", None));
    assert_eq!(second.rows[0].0.owner.as_deref(), Some("a"));
    let one = store.volumes(&only("a"), Some("v1")).await.unwrap();
    assert_eq!((one.len(), one[0].owner.as_deref()), (1, Some("a")));
    assert!(store.volumes(&only("a"), Some("v2")).await.unwrap().is_empty());
}
