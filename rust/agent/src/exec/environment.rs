//! The environment of a session: the sandbox's, then what the user's account says, then the call's.

use std::ffi::CString;

use microsandbox_protocol::message::BASE_PATH;

use super::c_word;
use super::failure::{Failure, FailureKind, quote};
use super::user::Account;

/// First on every session's `PATH`: the scripts the caller put into the sandbox.
const SCRIPTS: &str = "/.msb/scripts";

/// An ordered set of `K=V`; a later entry for the same key replaces the earlier one in its place.
#[derive(Debug, Default, Clone)]
pub struct Environment {
    entries: Vec<(String, String)>,
}

impl Environment {
    /// Composes `sandbox`, the account's own variables where unset, `call`, and the script directory on `PATH`.
    pub fn compose(sandbox: &[String], account: &Account, call: &[String], tty: bool) -> Result<Environment, Failure> {
        let mut env = Environment::default();
        for entry in sandbox {
            env.put_entry(entry)?;
        }
        env.put_if_unset("HOME", &account.home);
        if let Some(name) = &account.name {
            env.put_if_unset("USER", name);
            env.put_if_unset("LOGNAME", name);
        }
        for entry in call {
            env.put_entry(entry)?;
        }
        if tty {
            env.put_if_unset("TERM", "xterm-256color");
        }
        env.add_scripts_to_path();
        Ok(env)
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// As `execve` wants it.
    pub fn to_c(&self) -> Result<Vec<CString>, Failure> {
        let entry = |(k, v): &(String, String)| c_word(&format!("{k}={v}")).map_err(|_| nul_in(k));
        self.entries.iter().map(entry).collect()
    }

    fn put_entry(&mut self, entry: &str) -> Result<(), Failure> {
        match entry.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                if entry.contains('\0') {
                    return Err(nul_in(key));
                }
                self.put(key, value);
                Ok(())
            }
            _ => Err(Failure::new(
                FailureKind::BadArgs,
                "environment",
                format!("environment entry {} is not KEY=VALUE", quote(entry)),
            )),
        }
    }

    fn put(&mut self, key: &str, value: &str) {
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value.to_owned(),
            None => self.entries.push((key.to_owned(), value.to_owned())),
        }
    }

    fn put_if_unset(&mut self, key: &str, value: &str) {
        if self.get(key).is_none() {
            self.entries.push((key.to_owned(), value.to_owned()));
        }
    }

    fn add_scripts_to_path(&mut self) {
        let path = self.get("PATH").unwrap_or(BASE_PATH).to_owned();
        if path.split(':').any(|dir| dir == SCRIPTS) {
            return;
        }
        let joined = if path.is_empty() { SCRIPTS.to_owned() } else { format!("{SCRIPTS}:{path}") };
        self.put("PATH", &joined);
    }
}

fn nul_in(key: &str) -> Failure {
    Failure::new(FailureKind::BadArgs, "environment", format!("environment variable {} holds a NUL byte", quote(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { uid: 0, gid: 0, groups: vec![0], home: "/root".into(), name: Some("root".into()) }
    }

    #[test]
    fn the_call_wins_over_the_account_which_fills_only_gaps() {
        let env = Environment::compose(
            &["HOME=/h".into(), "A=1".into()],
            &account(),
            &["A=2".into(), "USER=x=y".into()],
            true,
        )
        .unwrap();
        assert_eq!(env.get("HOME"), Some("/h"));
        assert_eq!(env.get("A"), Some("2"));
        assert_eq!(env.get("USER"), Some("x=y"));
        assert_eq!(env.get("LOGNAME"), Some("root"));
        assert_eq!(env.get("TERM"), Some("xterm-256color"));
    }

    #[test]
    fn scripts_come_first_on_every_path_and_once() {
        let path = |call: &[String]| {
            let env = Environment::compose(&[], &account(), call, false).unwrap();
            env.get("PATH").unwrap().to_owned()
        };
        assert_eq!(path(&[]), format!("{SCRIPTS}:{BASE_PATH}"));
        assert_eq!(path(&["PATH=/x".into()]), "/.msb/scripts:/x");
        assert_eq!(path(&["PATH=/x:/.msb/scripts".into()]), "/x:/.msb/scripts");
        assert_eq!(path(&["PATH=".into()]), "/.msb/scripts");
    }

    // hazard: A3
    #[test]
    fn entries_without_key_or_with_nul_are_refused() {
        for bad in ["", "novalue", "=x", "A=\0", "A\0=1"] {
            let failure = Environment::compose(&[], &account(), &[bad.into()], false).unwrap_err();
            assert_eq!(failure.kind, FailureKind::BadArgs, "{bad:?}");
        }
    }
}
