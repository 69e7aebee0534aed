//! A limit on how many of something one owner may have concurrently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One counter per owner; an owner whose count is zero has none.
#[derive(Clone)]
pub struct ConcurrencyLimit {
    limit: usize,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl ConcurrencyLimit {
    pub fn new(limit: usize) -> ConcurrencyLimit {
        ConcurrencyLimit { limit, counts: Arc::default() }
    }

    /// Counts one more for `owner` until the permit is dropped; `None` at the limit.
    pub fn acquire(&self, owner: &str) -> Option<Permit> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(owner.to_owned()).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Permit { owner: owner.to_owned(), limit: self.clone() })
    }
}

/// One counted use of the limit.
pub struct Permit {
    owner: String,
    limit: ConcurrencyLimit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limit.counts.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn a_dropped_permit_frees_its_place() {
        let limit = ConcurrencyLimit::new(1);
        let permit = limit.acquire("a");
        assert!(permit.is_some());
        assert!(limit.acquire("a").is_none());
        assert!(limit.acquire("b").is_some());
        drop(permit);
        assert!(limit.acquire("a").is_some());
    }
}
