//! How many connections there may be at a time, in all and from one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::{
    forwarded::Network,
    limits::{network, of_a_network, subscriber},
};

/// The places for connections. Where an address has no more than so many, an IPv6 /48 has no more than three quarters of all.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    per_address: Option<usize>,
    per_network: usize,
    /// Whose connections are other people's: each may have any number.
    proxies: Vec<Network>,
    taken: Mutex<Taken>,
}

/// How many connections each has that has any: no more entries than there are places.
#[derive(Debug, Default)]
struct Taken {
    of_addresses: HashMap<IpAddr, usize>,
    /// Of IPv6 networks.
    of_networks: HashMap<IpAddr, usize>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _one: Option<OwnedSemaphorePermit>,
    places: Arc<Places>,
    address: IpAddr,
    /// Where it counts with its network: with IPv6, unless a proxy's.
    network: Option<IpAddr>,
}

impl Places {
    /// For `most` connections, of which one address that is none of `proxies` has at most `per_address`.
    pub fn new(most: usize, per_address: Option<usize>, proxies: &[Network]) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(most)),
            per_address,
            per_network: of_a_network(most),
            proxies: proxies.to_vec(),
            taken: Mutex::default(),
        })
    }

    /// Waits for a place for the next connection, whoever's it will be.
    pub async fn free(&self) -> Option<OwnedSemaphorePermit> {
        self.all.clone().acquire_owned().await.ok() // none only where places are closed, which they never are
    }

    /// Gives the place `one` to a connection from `address`; none where that address, or its network, has as many as it may.
    pub fn take(self: &Arc<Self>, one: Option<OwnedSemaphorePermit>, address: IpAddr) -> Option<Place> {
        let is_proxy = self.proxies.iter().any(|proxy| proxy.contains(address));
        let address = subscriber(address);
        let mut taken = self.taken();
        let network = (address.is_ipv6() && !is_proxy).then(|| network(address));
        let has = |counts: &HashMap<IpAddr, usize>, of| counts.get(&of).copied().unwrap_or_default();
        if let (false, Some(most)) = (is_proxy, self.per_address) {
            let of_network = network.map_or(0, |network| has(&taken.of_networks, network));
            if has(&taken.of_addresses, address) >= most.max(1) || of_network >= self.per_network {
                return None;
            }
        }
        *taken.of_addresses.entry(address).or_default() += 1;
        if let Some(network) = network {
            *taken.of_networks.entry(network).or_default() += 1;
        }
        Some(Place {
            _one: one,
            places: self.clone(),
            address,
            network,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        give_back(&mut taken.of_addresses, self.address);
        if let Some(network) = self.network {
            give_back(&mut taken.of_networks, network);
        }
    }
}

fn give_back(counts: &mut HashMap<IpAddr, usize>, of: IpAddr) {
    if let Some(count) = counts.get_mut(&of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&of);
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
        assert_eq!(places.taken().of_addresses[&one], 1);
    }

    #[test]
    fn addresses_without_connections_are_forgotten_and_any_number_is_any_number() {
        let places = Places::new(10, None, &[]);
        let many: Vec<Place> = (0..100)
            .map(|_| places.take(None, address("2001:db8::1")).unwrap())
            .collect();
        assert_eq!(places.taken().of_addresses.len(), 1);
        drop(many);
        assert!(places.taken().of_addresses.is_empty() && places.taken().of_networks.is_empty());
    }

    #[test]
    fn a_customer_with_many_ipv6_networks_leaves_a_quarter_to_others() {
        let places = Places::new(8, Some(4), &[]);
        let take = |text: &str| places.take(None, address(text));
        let subnets = (0..9).map(|subnet| take(&format!("2001:db8:1:{subnet}::1")));
        let taken: Vec<Place> = subnets.flatten().collect();
        assert_eq!(taken.len(), 6);
        let _others = (
            take("2001:db8:2::1").unwrap(),
            take("192.0.2.1").unwrap(),
            take("192.0.3.1").unwrap(),
        );
        drop(taken);
        assert!(take("2001:db8:1:9::1").is_some());
        let v4: Vec<Place> = (0..8)
            .flat_map(|host| take(&format!("198.51.100.{host}")))
            .collect();
        assert_eq!(v4.len(), 8, "a network of IPv4 is many people's");
    }

    #[test]
    fn a_proxy_has_the_connections_of_many() {
        let places = Places::new(10, Some(1), &["10.0.0.0/8".parse().unwrap()]);
        let take = |text| places.take(None, address(text));
        let _proxy = (take("10.0.0.1").unwrap(), take("10.0.0.1").unwrap());
        let _other = take("192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
    }

    #[test]
    fn a_proxy_takes_nothing_of_its_network() {
        let places = Places::new(4, Some(4), &["2001:db8:1:1::/64".parse().unwrap()]);
        let proxied: Vec<Place> = (0..4)
            .flat_map(|_| places.take(None, address("2001:db8:1:1::1")))
            .collect();
        assert_eq!(proxied.len(), 4);
        let beside = places.take(None, address("2001:db8:1:2::1"));
        drop(proxied);
        assert!(beside.is_some() && places.taken().of_networks.len() == 1);
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
