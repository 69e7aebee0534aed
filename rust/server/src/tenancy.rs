//! Whose objects a request means, and how the names of clients are stored.
//!
//! Each owner has names of its own: what a client calls `box` is stored as `<owner>-box`. So a name never passes from one owner
//! to another: no creation fails because another owner has the name, and no request that arrives after a removal reaches what
//! another owner made. What a client may not see is not looked for, and is answered as what does not exist.

use axum::http::StatusCode;
use microsandbox_core::model::Owners;
use microsandbox_wire::error::code;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::keys::{Key, Scope};

/// Deepest value that is looked through; ours are flat.
const DEPTH: usize = 4;
/// What stands in a response in place of a path of the server's machine.
const HIDDEN: &str = "(a path of the server)";

/// The key that a request came with.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Of the key.
    pub id: String,
    /// Of what the key makes and sees.
    pub owner: String,
    scopes: Vec<Scope>,
}

impl Caller {
    pub fn of(key: &Key) -> Caller {
        Caller { id: key.id.clone(), owner: key.owner().to_owned(), scopes: key.scopes.clone() }
    }

    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Refuses with 403 unless the key has the scope.
    pub fn require(&self, scope: Scope) -> ApiResult<()> {
        if self.has(scope) { Ok(()) } else { Err(forbidden(&[scope])) }
    }

    /// What the key sees. `share_local`: what was made on the machine of the server is shared with every key.
    pub fn sees(&self, share_local: bool) -> Owners {
        if self.has(Scope::Admin) {
            Owners::All
        } else if share_local {
            Owners::OnlyAndLocal(self.owner.clone())
        } else {
            Owners::Only(self.owner.clone())
        }
    }

    /// Of what is the key's own.
    pub fn own(&self) -> Owners {
        Owners::Only(self.owner.clone())
    }

    fn mark(&self) -> String {
        format!("{}-", self.owner)
    }

    /// How a name of this client is stored.
    pub fn stored(&self, name: &str) -> String {
        self.mark() + name
    }

    /// The inverse of [`Caller::stored`]; the names of other owners and of this machine stay as they are.
    pub fn shown<'a>(&self, stored: &'a str) -> &'a str {
        stored.strip_prefix(&self.owner).and_then(|rest| rest.strip_prefix('-')).unwrap_or(stored)
    }

    /// Whether the caller may read this stored name.
    pub fn names(&self, stored: &str) -> bool {
        self.has(Scope::Admin) || self.shown(stored) != stored
    }

    /// The error in the words of this client: with its own names, and without paths of this machine.
    pub fn reads(&self, mut error: ApiError, private: &[String]) -> ApiError {
        let mark = self.mark();
        let reword = |text: &str| without_paths(&text.replace(&mark, ""), private);
        let mut message = Value::String(error.message);
        for value in [&mut message].into_iter().chain(&mut error.details) {
            each_text(value, &reword, DEPTH);
        }
        error.message = message.as_str().unwrap_or_default().to_owned();
        error
    }
}

/// 403: the key has none of the scopes.
pub fn forbidden(scopes: &[Scope]) -> ApiError {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let text = format!("this key lacks the scope {}", names.join(" or "));
    ApiError::new(StatusCode::FORBIDDEN, code::FORBIDDEN, text)
        .details(json!({ "scope": names.first(), "scopes": names }))
}

/// The text with each path below one of `private` replaced.
pub fn without_paths(text: &str, private: &[impl AsRef<str>]) -> String {
    let mut out = text.to_owned();
    for place in private {
        let place = place.as_ref();
        let mut from = 0;
        while let Some(begin) = out[from..].find(place).map(|at| from + at) {
            let rest = &out[begin + place.len()..];
            let stops = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ';' | ',' | ')');
            let end = begin + place.len() + rest.find(stops).unwrap_or(rest.len());
            out.replace_range(begin..end, HIDDEN);
            from = begin + HIDDEN.len();
        }
    }
    out
}

/// Rewrites every text within `value`.
fn each_text(value: &mut Value, reword: &impl Fn(&str) -> String, depth: usize) {
    match value {
        Value::String(text) => *text = reword(text),
        Value::Array(list) if depth > 0 => list.iter_mut().for_each(|item| each_text(item, reword, depth - 1)),
        Value::Object(object) if depth > 0 => {
            object.values_mut().for_each(|item| each_text(item, reword, depth - 1));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[Scope]) -> Caller {
        Caller { id: "k".into(), owner: "0123456789abcdef".into(), scopes: scopes.to_vec() }
    }

    #[test]
    fn names_of_a_client_are_marked_and_shown_unmarked() {
        let caller = caller(&[]);
        assert_eq!(caller.stored("box"), "0123456789abcdef-box");
        assert_eq!(caller.shown("0123456789abcdef-box"), "box");
        for other in ["box", "fedcba9876543210-box", "0123456789abcdefbox"] {
            assert_eq!(caller.shown(other), other);
        }
    }

    #[test]
    fn an_error_shows_neither_the_mark_nor_a_path_of_the_server() {
        let private = ["/srv/home".to_owned()];
        let error =
            ApiError::invalid("sandbox 0123456789abcdef-box: /srv/home/volumes/x exists, but is no volume; move it")
                .details(json!({ "name": "0123456789abcdef-box", "list": ["in /srv/home, and \"/srv/home/x\""] }));
        let read = caller(&[]).reads(error, &private);
        assert_eq!(read.message, "sandbox box: (a path of the server) exists, but is no volume; move it");
        let details = read.details.unwrap();
        assert_eq!(details["name"], "box");
        assert_eq!(details["list"][0], "in (a path of the server), and \"(a path of the server)\"");
    }

    #[test]
    fn only_an_admin_sees_what_others_made() {
        for (scopes, share, own, foreign, local) in [
            (&[Scope::SandboxesRead] as &[Scope], false, true, false, false),
            (&[Scope::SandboxesRead], true, true, false, true),
            (&[Scope::Admin], false, true, true, true),
        ] {
            let sees = caller(scopes).sees(share);
            let found = [Some("0123456789abcdef"), Some("other"), None].map(|owner| sees.include(owner));
            assert_eq!(found, [own, foreign, local], "{scopes:?}");
        }
    }
}
