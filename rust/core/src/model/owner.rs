//! Who owns an object that was made through a server.

/// Whose objects a request means. An owner is an identity that a server gives to its clients; what was made on this machine
/// has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Owners {
    #[default]
    All,
    Only(String),
    /// Those of one owner, and those without an owner.
    OnlyAndLocal(String),
}

impl Owners {
    pub fn include(&self, owner: Option<&str>) -> bool {
        match (self, owner) {
            (Owners::All, _) | (Owners::OnlyAndLocal(_), None) => true,
            (Owners::Only(wanted) | Owners::OnlyAndLocal(wanted), Some(owner)) => wanted == owner,
            (Owners::Only(_), None) => false,
        }
    }
}
