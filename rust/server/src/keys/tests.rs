use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_key_is_found_until_revoked_and_its_text_never_stored() {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::new(&home.path().join("serve"));
    let (key, text) = keys.create("ci", &Scope::DEFAULT, None).unwrap();
    assert_eq!(text.len(), PREFIX.len() + 43);
    assert_eq!(keys.find(&text).unwrap().unwrap().id, key.id);
    assert!(keys.find("msb_live_other").unwrap().is_none());
    let stored = std::fs::read_to_string(keys.file()).unwrap();
    assert!(!stored.contains(&text[PREFIX.len()..]));
    assert_eq!(std::fs::metadata(keys.file()).unwrap().permissions().mode() & 0o777, 0o600);
    // Another process revokes.
    Keys::new(&home.path().join("serve")).revoke("ci").unwrap();
    assert!(keys.find(&text).unwrap().is_none());
}

#[test]
fn a_rewrite_keeps_unknown_fields() {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::new(home.path());
    std::fs::write(keys.file(), r#"{"later": 7, "keys": [{"name": "new", "kind": "quantum"}]}"#).unwrap();
    keys.create("a", &[Scope::Exec], None).unwrap();
    let org = keys.organisation().unwrap();
    assert_eq!(keys.organisation().unwrap(), org);
    let document: Value = serde_json::from_str(&std::fs::read_to_string(keys.file()).unwrap()).unwrap();
    assert_eq!(document["later"], 7);
    assert_eq!(document["keys"][0]["kind"], "quantum");
    assert_eq!(keys.list().unwrap().len(), 1);
}

#[test]
fn names_are_unique_and_bounded() {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::new(home.path());
    keys.create("a", &[Scope::Exec], None).unwrap();
    assert!(keys.create("a", &[Scope::Exec], None).is_err());
    assert!(keys.create("", &[Scope::Exec], None).is_err());
    assert!(keys.create("b", &[], None).is_err());
    assert!(keys.create("a\nb", &[Scope::Exec], None).is_err());
    assert!(keys.revoke("absent").is_err());
}

#[test]
fn a_damaged_file_is_an_error_and_not_an_empty_list() {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::new(home.path());
    std::fs::write(keys.file(), "{half").unwrap();
    assert!(keys.find("msb_live_x").is_err());
    assert!(keys.create("a", &[Scope::Exec], None).is_err());
    assert_eq!(std::fs::read_to_string(keys.file()).unwrap(), "{half");
}

#[test]
fn keys_of_one_owner_share_it_beyond_the_first() {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::new(home.path());
    let (first, _) = keys.create("first", &Scope::DEFAULT, None).unwrap();
    let (other, _) = keys.create("other", &Scope::DEFAULT, None).unwrap();
    assert_eq!(first.owner(), first.id);
    assert_ne!(first.owner(), other.owner());
    let (second, _) = keys.create_sharing(Some("first"), "second", &[Scope::LogsRead], None).unwrap();
    let (third, text) = keys.create_sharing(Some("second"), "third", &[Scope::LogsRead], None).unwrap();
    assert_eq!((second.owner(), third.owner()), (first.owner(), first.owner()));
    keys.revoke("first").unwrap();
    assert_eq!(keys.find(&text).unwrap().unwrap().owner(), first.id);
    assert!(keys.create_sharing(Some("first"), "fourth", &[Scope::LogsRead], None).is_err());
}
