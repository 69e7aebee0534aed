//! A bound on how much of something one owner may have at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One counter an owner; owners without anything are not kept.
#[derive(Clone)]
pub struct Gates {
    limit: usize,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl Gates {
    pub fn new(limit: usize) -> Gates {
        Gates { limit, counts: Arc::default() }
    }

    /// One more for `owner`, until the pass is dropped; `None` at the limit.
    pub fn enter(&self, owner: &str) -> Option<Pass> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(owner.to_owned()).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Pass { owner: owner.to_owned(), gates: self.clone() })
    }
}

/// A place taken.
pub struct Pass {
    owner: String,
    gates: Gates,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut counts = self.gates.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let gates = Gates::new(1);
        let pass = gates.enter("a");
        assert!(pass.is_some());
        assert!(gates.enter("a").is_none());
        assert!(gates.enter("b").is_some());
        drop(pass);
        assert!(gates.enter("a").is_some());
    }
}
