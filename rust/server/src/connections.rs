//! The places of connections. One that has shown no valid key is a stranger: strangers share a part of the places, an address
//! has a share of those, and where places run out the oldest stranger leaves. The places of clients with a key are never taken.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::limits::Limits;

/// All connections of a server.
#[derive(Clone)]
pub struct Connections {
    limits: Shares,
    table: Arc<Mutex<Table>>,
}

#[derive(Clone, Copy)]
struct Shares {
    all: usize,
    strangers: usize,
    strangers_per_address: usize,
}

#[derive(Default)]
struct Table {
    next: u64,
    known: usize,
    /// By age.
    strangers: BTreeMap<u64, Stranger>,
    by_address: HashMap<IpAddr, usize>,
}

struct Stranger {
    address: IpAddr,
    evicted: Arc<Notify>,
}

impl Connections {
    pub fn new(limits: &Limits) -> Connections {
        let all = limits.connections;
        let limits = Shares {
            all,
            // One place at least, or no client could ever show its key.
            strangers: (all / 2).max(1),
            strangers_per_address: limits.strangers_per_address,
        };
        Connections { limits, table: Arc::default() }
    }

    /// A place for a connection from `address`; `None` where none is left for it.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let here = table.by_address.get(&address).copied().unwrap_or(0);
        if here >= self.limits.strangers_per_address {
            return None;
        }
        let is_full = table.known + table.strangers.len() >= self.limits.all;
        if is_full || table.strangers.len() >= self.limits.strangers {
            let oldest = *table.strangers.keys().next()?;
            let oldest = table.take_stranger(oldest)?;
            oldest.evicted.notify_one();
        }
        let number = table.next;
        table.next += 1;
        let evicted = Arc::new(Notify::new());
        table.strangers.insert(number, Stranger { address, evicted: evicted.clone() });
        *table.by_address.entry(address).or_insert(0) += 1;
        Some(Place { number, known: AtomicBool::new(false), evicted, table: self.table.clone() })
    }
}

impl Table {
    fn take_stranger(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&stranger.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&stranger.address);
            }
        }
        Some(stranger)
    }
}

/// Whoever has one address of a /64 has all of them (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

/// The place of one connection, free again when it is dropped.
pub struct Place {
    number: u64,
    known: AtomicBool,
    evicted: Arc<Notify>,
    table: Arc<Mutex<Table>>,
}

impl Place {
    /// A request with a valid key came over this connection. One that is being evicted stays evicted.
    pub fn is_known_now(&self) {
        if self.known.load(Ordering::Relaxed) {
            return;
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.take_stranger(self.number).is_some() {
            table.known += 1;
            self.known.store(true, Ordering::Relaxed);
        }
    }

    /// Resolves when the place was given to another connection.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.known.get_mut() {
            table.known -= 1;
        } else {
            table.take_stranger(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn connections(all: usize, per_address: usize) -> Connections {
        Connections::new(&Limits { connections: all, strangers_per_address: per_address, ..Limits::default() })
    }

    async fn is_evicted(place: &Place) -> bool {
        tokio::time::timeout(Duration::from_millis(20), place.evicted()).await.is_ok()
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn strangers_never_take_the_places_of_known_clients() {
        let places = connections(8, 100);
        let known: Vec<Place> = (0..4).map(|n| places.enter(address(n)).unwrap()).collect();
        known.iter().for_each(Place::is_known_now);
        let strangers: Vec<Place> = (0..20).map(|n| places.enter(address(n)).unwrap()).collect();
        for (number, place) in strangers.iter().enumerate() {
            assert_eq!(is_evicted(place).await, number < 16, "{number}");
        }
        for place in &known {
            assert!(!is_evicted(place).await);
        }
        // The newest becomes known: then there are five.
        strangers[19].is_known_now();
        strangers[0].is_known_now();
        assert_eq!(places.table.lock().unwrap().known, 5);
        drop((known, strangers));
        let table = places.table.lock().unwrap();
        assert!(table.known == 0 && table.strangers.is_empty() && table.by_address.is_empty());
    }

    #[tokio::test]
    async fn an_address_has_a_share_of_the_places() {
        let places = connections(100, 2);
        let (_a, b) = (places.enter(address(1)).unwrap(), places.enter(address(1)).unwrap());
        assert!(places.enter(address(1)).is_none());
        assert!(places.enter(address(2)).is_some());
        b.is_known_now();
        assert!(places.enter(address(1)).is_some(), "a known client counts no more");
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        let _of_a_network = (places.enter(v6("2001:db8::1")).unwrap(), places.enter(v6("2001:db8::ffff:1")).unwrap());
        assert!(places.enter(v6("2001:db8::2")).is_none());
        assert!(places.enter(v6("2001:db8:0:1::2")).is_some());
    }

    #[tokio::test]
    async fn with_all_places_known_the_next_is_refused() {
        let places = connections(1, 2);
        let only = places.enter(address(1)).unwrap();
        only.is_known_now();
        assert!(places.enter(address(2)).is_none());
        drop(only);
        assert!(places.enter(address(2)).is_some());
    }
}
