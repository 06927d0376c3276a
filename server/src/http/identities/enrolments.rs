//! How many enrolments there may be: of an address on a day, and at a time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::limits::{network, subscriber};

pub(super) const DAY_MS: u64 = 86_400_000;

/// Addresses and networks that are remembered of one day.
pub(super) const MAX_ADDRESSES: usize = 65_536;

/// As many times as much as an address may enrol its network: an IPv6 /48, of which anyone can have all 65,536 addresses.
pub(super) const OF_A_NETWORK: u32 = 10;

/// Enrolments that use the store at a time, each with a thread of its own, and how long others wait for that, without one.
const AT_A_TIME: usize = 2;
const PATIENCE: Duration = Duration::from_secs(1);

/// Who has enrolled how many identities without an invitation today, as far as this relay knows since it started.
#[derive(Debug)]
pub struct Enrolments {
    taken: Mutex<Taken>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Taken {
    day: u64,
    of_addresses: HashMap<IpAddr, u32>,
    of_networks: HashMap<IpAddr, u32>,
}

/// One of an address's enrolments of a day, and where it was counted.
#[derive(Debug)]
pub(super) struct Place {
    day: u64,
    address: Option<IpAddr>,
    network: Option<IpAddr>,
}

impl Default for Enrolments {
    fn default() -> Self {
        Self {
            taken: Mutex::default(),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }
}

impl Enrolments {
    /// Waits until the store may be asked; none where that takes too long.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned());
        turn.await.ok()?.ok()
    }

    /// Takes one of an address's enrolments of today, where there is one left. Beyond the addresses that are remembered, those of one
    /// network (IPv4 /16, IPv6 /48) are counted together.
    pub(super) fn take(&self, address: IpAddr, most: u32, now_ms: u64) -> Option<Place> {
        let taken = &mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let today = now_ms / DAY_MS;
        // A clock that was more than a day ahead was wrong.
        if today > taken.day || taken.day > today + 1 {
            *taken = Taken {
                day: today,
                ..Taken::default()
            };
        }
        let address = subscriber(address);
        let by_network = !has_room(&taken.of_addresses, address);
        let place = Place {
            day: taken.day,
            address: (!by_network).then_some(address),
            network: (by_network || address.is_ipv6()).then(|| network(address)),
        };
        let left = |counts: &HashMap<IpAddr, u32>, key: Option<IpAddr>, most: u32| {
            key.is_none_or(|key| has_room(counts, key) && counts.get(&key).is_none_or(|&taken| taken < most))
        };
        let most_of_network = most.saturating_mul(OF_A_NETWORK);
        if most == 0
            || !left(&taken.of_addresses, place.address, most)
            || !left(&taken.of_networks, place.network, most_of_network)
        {
            return None;
        }
        for (counts, key) in taken.counts(&place) {
            *counts.entry(key).or_default() += 1;
        }
        Some(place)
    }

    /// Gives one back that was not needed.
    pub(super) fn give(&self, place: &Place) {
        let taken = &mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.day != place.day {
            return; // the day has ended, and its counts with it
        }
        for (counts, key) in taken.counts(place) {
            let left = counts.get(&key).map_or(0, |taken| taken.saturating_sub(1));
            if left == 0 {
                counts.remove(&key);
            } else {
                counts.insert(key, left);
            }
        }
    }
}

impl Taken {
    fn counts(&mut self, place: &Place) -> impl Iterator<Item = (&mut HashMap<IpAddr, u32>, IpAddr)> {
        let address = place.address.map(|key| (&mut self.of_addresses, key));
        address
            .into_iter()
            .chain(place.network.map(|key| (&mut self.of_networks, key)))
    }
}

fn has_room(counts: &HashMap<IpAddr, u32>, key: IpAddr) -> bool {
    counts.len() < MAX_ADDRESSES || counts.contains_key(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    /// An address of the `subnet`th /64 of the `site`th /48.
    fn v6(site: u128, subnet: u128) -> IpAddr {
        IpAddr::V6((0x2001_u128 << 112 | site << 80 | subnet << 64 | 1).into())
    }

    #[test]
    fn an_address_has_its_enrolments_a_day() {
        let enrolments = Enrolments::default();
        let first = enrolments.take(v4(1), 2, 0).unwrap();
        assert!(enrolments.take(v4(1), 2, 0).is_some());
        assert!(enrolments.take(v4(1), 2, DAY_MS - 1).is_none());
        assert!(enrolments.take(v4(2), 2, 0).is_some());
        assert!(enrolments.take(v4(3), 0, 0).is_none());
        enrolments.give(&first);
        assert!(enrolments.take(v4(1), 2, 0).is_some() && enrolments.take(v4(1), 2, 0).is_none());
        assert!(enrolments.take(v4(1), 2, DAY_MS).is_some());
    }

    #[test]
    fn what_is_given_back_after_midnight_opens_nothing_on_the_new_day() {
        let enrolments = Enrolments::default();
        let late = enrolments.take(v4(1), 1, DAY_MS - 1).unwrap();
        assert!(enrolments.take(v4(1), 1, DAY_MS).is_some());
        enrolments.give(&late);
        assert!(enrolments.take(v4(1), 1, DAY_MS).is_none());
    }

    #[test]
    fn nobody_closes_enrolment_for_others_with_many_addresses() {
        let enrolments = Enrolments::default();
        // What is given back leaves nothing in memory.
        for subnet in 0..MAX_ADDRESSES as u128 {
            let place = enrolments.take(v6(1, subnet), 2, 0).unwrap();
            enrolments.give(&place);
        }
        assert!(enrolments.taken.lock().unwrap().of_addresses.is_empty());
        assert!(enrolments.taken.lock().unwrap().of_networks.is_empty());
        // All addresses of a site are no more than ten of them.
        let all = (0..MAX_ADDRESSES as u128).filter(|&subnet| enrolments.take(v6(1, subnet), 2, 0).is_some());
        assert_eq!(all.count(), 20);
        assert!(enrolments.take(v6(2, 0), 2, 0).is_some());
    }

    #[tokio::test]
    async fn few_enrolments_use_the_store_at_a_time_and_others_wait_for_a_while() {
        let enrolments = Enrolments::default();
        let (first, _second) = (enrolments.turn().await.unwrap(), enrolments.turn().await.unwrap());
        assert!(enrolments.turn().await.is_none());
        let (third, ()) = tokio::join!(enrolments.turn(), async { drop(first) });
        assert!(third.is_some());
    }

    #[test]
    fn memory_is_bounded_and_beyond_it_networks_are_counted() {
        let enrolments = Enrolments::default();
        for number in 0..MAX_ADDRESSES as u32 {
            assert!(enrolments.take(v4(number), 2, 0).is_some());
        }
        // One that is remembered has its own; of a network of new ones twenty are taken in.
        assert!(enrolments.take(v4(7), 2, 0).is_some() && enrolments.take(v4(7), 2, 0).is_none());
        let new = (0..100).filter(|number| enrolments.take(v4(u32::MAX - number), 2, 0).is_some());
        assert_eq!(new.count(), 20);
        let taken = enrolments.taken.lock().unwrap();
        assert_eq!(
            (taken.of_addresses.len(), taken.of_networks.len()),
            (MAX_ADDRESSES, 1)
        );
    }
}
