//! How many connections there may be at a time, in all and from one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::{forwarded::Network, limits::subscriber};

/// The places for connections.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    per_address: Option<usize>,
    /// Whose connections are other people's: each may have any number.
    proxies: Vec<Network>,
    /// How many connections each address has that has any: no more entries than there are places.
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _one: Option<OwnedSemaphorePermit>,
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// For `most` connections, of which one address that is none of `proxies` has at most `per_address`.
    pub fn new(most: usize, per_address: Option<usize>, proxies: &[Network]) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(most)),
            per_address,
            proxies: proxies.to_vec(),
            taken: Mutex::default(),
        })
    }

    /// Waits for a place for the next connection, whoever's it will be.
    pub async fn free(&self) -> Option<OwnedSemaphorePermit> {
        self.all.clone().acquire_owned().await.ok() // none only where places are closed, which they never are
    }

    /// Gives the place `one` to a connection from `address`; none where that address has as many as it may.
    pub fn take(self: &Arc<Self>, one: Option<OwnedSemaphorePermit>, address: IpAddr) -> Option<Place> {
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(address));
        let address = subscriber(address);
        let mut taken = self.taken();
        let of_address = taken.entry(address).or_insert(0);
        // Where there are none yet, the entry is new, and one is allowed.
        if !is_proxy && self.per_address.is_some_and(|most| *of_address >= most.max(1)) {
            return None;
        }
        *of_address += 1;
        Some(Place {
            _one: one,
            places: self.clone(),
            address,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(of_address) = taken.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_as_many_as_it_may_and_again_once_one_is_given_back() {
        let places = Places::new(10, Some(2), &[]);
        let [one, other] = [address("192.0.2.1"), address("192.0.2.2")];
        let first = places.take(None, one).unwrap();
        let _second = places.take(None, one).unwrap();
        assert!(places.take(None, one).is_none());
        assert!(
            places.take(None, address("::ffff:192.0.2.1")).is_none(),
            "the same, written as IPv6"
        );
        let _others = (
            places.take(None, other).unwrap(),
            places.take(None, other).unwrap(),
        );
        drop(first);
        let again = places.take(None, one).unwrap();
        assert!(places.take(None, one).is_none());
        drop(again);
        assert_eq!(places.taken()[&one], 1);
    }

    #[test]
    fn addresses_without_connections_are_forgotten_and_any_number_is_any_number() {
        let places = Places::new(10, None, &[]);
        let many: Vec<Place> = (0..100)
            .map(|_| places.take(None, address("2001:db8::1")).unwrap())
            .collect();
        assert_eq!(places.taken().len(), 1);
        drop(many);
        assert!(places.taken().is_empty());
    }

    #[test]
    fn a_proxy_has_the_connections_of_many() {
        let places = Places::new(10, Some(1), &["10.0.0.0/8".parse().unwrap()]);
        let take = |text| places.take(None, address(text));
        let _proxy = (take("10.0.0.1").unwrap(), take("10.0.0.1").unwrap());
        let _other = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
    }

    #[tokio::test]
    async fn a_refused_connection_gives_its_place_back() {
        let places = Places::new(2, Some(1), &[]);
        let one = address("192.0.2.1");
        let place = places.take(places.free().await, one).unwrap();
        assert!(places.take(places.free().await, one).is_none());
        assert_eq!(places.all.available_permits(), 1);
        drop(place);
        assert_eq!(places.all.available_permits(), 2);
    }
}
