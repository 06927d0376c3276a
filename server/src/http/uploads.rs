//! How many updates are received at the same time, and how much memory they may take.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{network, of_a_network, subscriber};

/// Half a tebibyte: what a semaphore counts to on every machine.
const MOST_KIB: u32 = (1 << 29) - 1;

/// One address has at most one of so many parts of the memory; one update that is larger it has alone.
const MEMORY_SHARES: u32 = 4;

/// The places of updates that are being received: so many in all, and so many for one address, so that whoever sends slowly, or
/// much, cannot take all of them. And so much memory for the coordinates of all of them together, from an update's first byte to its answer,
/// of which one address has a share, too. An IPv6 /48 has three quarters at most.
#[derive(Debug)]
pub struct Uploads {
    most: usize,
    places: Arc<Semaphore>,
    /// One permit for a kibibyte.
    memory: Arc<Semaphore>,
    memory_kib: u32,
    per_address: Option<usize>,
    addresses: Addresses,
    networks: Addresses,
}

type Addresses = Arc<Mutex<HashMap<IpAddr, Arc<Share>>>>;

/// What one address, or one network, may have.
#[derive(Debug)]
struct Share {
    places: Arc<Semaphore>,
    /// One permit for a kibibyte.
    memory: Arc<Semaphore>,
}

/// A place, and memory, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _memory: Option<OwnedSemaphorePermit>,
    _place: Option<OwnedSemaphorePermit>,
    _own: Vec<Own>,
}

/// Something of the share of one address, or one network. It is forgotten with its last one, waiting ones included.
#[derive(Debug)]
struct Own {
    addresses: Addresses,
    address: IpAddr,
    share: Option<Arc<Share>>,
    place: Option<OwnedSemaphorePermit>,
    memory: Option<OwnedSemaphorePermit>,
}

impl Uploads {
    /// So many places in all, and for one address, and so many bytes.
    pub fn new(places: usize, per_address: Option<usize>, bytes: u64) -> Self {
        let memory_kib = kib(bytes).clamp(1, MOST_KIB);
        Self {
            most: places,
            places: Arc::new(Semaphore::new(places)),
            memory: Arc::new(Semaphore::new(memory_kib as usize)),
            memory_kib,
            per_address,
            addresses: Arc::default(),
            networks: Arc::default(),
        }
    }

    /// Places that are free.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Waits for memory for so many bytes, and for a place; for all the memory that there is where it is less, so that any update can come.
    /// An address that has all of its own share waits without taking anything of the others', and whoever waits for memory without a place.
    pub async fn turn(&self, address: Option<IpAddr>, bytes: u64) -> Turn {
        let needed = kib(bytes).min(self.memory_kib);
        let mut own = Vec::new();
        if let (Some(address), Some(most)) = (address, self.per_address) {
            let address = subscriber(address);
            let share_kib = (self.memory_kib / MEMORY_SHARES).max(1) as usize;
            own.push(Own::wait(&self.addresses, address, most, share_kib, needed).await);
            if address.is_ipv6() {
                let (places, kib) = (of_a_network(self.most), of_a_network(self.memory_kib as usize));
                own.push(Own::wait(&self.networks, network(address), places, kib, needed).await);
            }
        }
        // An error says that a semaphore is closed, which none ever is.
        let memory = self.memory.clone().acquire_many_owned(needed).await.ok();
        let place = self.places.clone().acquire_owned().await.ok();
        Turn {
            _memory: memory,
            _place: place,
            _own: own,
        }
    }
}

/// Kibibytes, rounded up.
fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Own {
    /// Waits for one of the `places` of `address`, and for so much of its `most_kib` of memory; for all of that where it is less.
    async fn wait(addresses: &Addresses, address: IpAddr, places: usize, most_kib: usize, kib: u32) -> Self {
        let share = {
            let mut known = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Share {
                places: Arc::new(Semaphore::new(places)),
                memory: Arc::new(Semaphore::new(most_kib)),
            };
            known.entry(address).or_insert_with(|| Arc::new(new())).clone()
        };
        let (free_places, free_memory) = (share.places.clone(), share.memory.clone());
        let mut own = Self {
            addresses: addresses.clone(),
            address,
            share: Some(share),
            place: None,
            memory: None,
        };
        own.place = free_places.acquire_owned().await.ok();
        let kib = kib.min(u32::try_from(most_kib).unwrap_or(u32::MAX));
        own.memory = free_memory.acquire_many_owned(kib).await.ok();
        own
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        (self.place, self.memory, self.share) = (None, None, None);
        let last = known
            .get(&self.address)
            .is_some_and(|share| Arc::strong_count(share) == 1);
        if last {
            known.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const ONE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    /// More than any test takes.
    const ENOUGH: u64 = 1 << 30;

    #[test]
    fn one_address_cannot_take_every_place_and_is_forgotten_when_it_is_done() {
        let uploads = Uploads::new(3, Some(2), ENOUGH);
        let now = |address| uploads.turn(address, 4_000).now_or_never();
        let (first, second) = (now(ONE).unwrap(), now(ONE).unwrap());
        assert!(now(ONE).is_none(), "it has its two");
        assert_eq!(uploads.free(), 1, "and waits without a place");
        let third = now(OTHER).unwrap();
        assert!(now(OTHER).is_none(), "all three are taken");
        drop(first);
        let again = now(ONE).unwrap();
        drop((second, again, third));
        assert_eq!(uploads.free(), 3);
        assert!(uploads.addresses.lock().unwrap().is_empty());
        let unlimited = Uploads::new(3, None, ENOUGH);
        let all: Vec<_> = (0..3)
            .map(|_| unlimited.turn(ONE, 4_000).now_or_never().unwrap())
            .collect();
        assert_eq!((all.len(), unlimited.free()), (3, 0));
    }

    #[test]
    fn a_customer_with_many_ipv6_networks_leaves_a_quarter_to_others() {
        let uploads = Uploads::new(8, Some(2), 16 << 10);
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let now = |text: &str, bytes| uploads.turn(address(text), bytes).now_or_never();
        let subnets = (0..9).map(|subnet| now(&format!("2001:db8:1:{subnet}::1"), 1 << 10));
        let six: Vec<_> = subnets.flatten().collect();
        assert_eq!((six.len(), uploads.free()), (6, 2));
        drop((now("2001:db8:2::1", 1).unwrap(), now("192.0.2.1", 1).unwrap()));
        drop(six);
        let twelve: Vec<_> = (0..4)
            .flat_map(|subnet| now(&format!("2001:db8:1:{subnet}::1"), 4 << 10))
            .collect();
        assert_eq!(twelve.len(), 3, "of the memory, too");
        drop((now("2001:db8:2::1", 4 << 10).unwrap(), twelve));
        assert!(uploads.addresses.lock().unwrap().is_empty() && uploads.networks.lock().unwrap().is_empty());
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let uploads = Uploads::new(1, Some(1), ENOUGH);
        let held = uploads.turn(OTHER, 4_000).now_or_never().unwrap();
        assert!(uploads.turn(ONE, 4_000).now_or_never().is_none());
        assert_eq!(
            uploads.addresses.lock().unwrap().len(),
            1,
            "only who holds one is known"
        );
        drop(held);
        assert!(uploads.turn(ONE, 4_000).now_or_never().is_some());
    }

    #[test]
    fn updates_wait_for_memory_and_one_that_is_larger_than_all_of_it_comes_alone() {
        let uploads = Uploads::new(9, None, 10 << 10);
        let now = |bytes| uploads.turn(ONE, bytes).now_or_never();
        let (first, second) = (now(6 << 10).unwrap(), now(4 << 10).unwrap());
        assert!(now(1).is_none(), "all of it is taken");
        drop(first);
        assert!(now((6 << 10) + 1).is_none(), "a byte more than is free");
        let third = now(6 << 10).unwrap();
        drop((second, third));
        let alone = now(u64::MAX).unwrap();
        assert!(now(1).is_none());
        drop(alone);
        assert!(now(1).is_some());
        assert_eq!(uploads.free(), 9, "whoever gave up waiting holds no place");
    }

    #[test]
    fn one_address_cannot_take_all_the_memory_and_whoever_waits_for_memory_has_no_place() {
        let uploads = Uploads::new(9, Some(9), 16 << 10);
        let now = |address, bytes| uploads.turn(address, bytes).now_or_never();
        let quarter: Vec<_> = (0..4).map(|_| now(ONE, 1 << 10).unwrap()).collect();
        assert!(now(ONE, 1).is_none(), "it has its quarter");
        let rest = now(OTHER, 12 << 10).unwrap();
        assert_eq!(uploads.free(), 4);
        let third = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3)));
        let mut waiting = Box::pin(uploads.turn(third, 1));
        assert!((&mut waiting).now_or_never().is_none(), "all of it is taken");
        assert_eq!(uploads.free(), 4, "and it waits without a place");
        drop(quarter);
        drop(waiting.now_or_never().unwrap());
        drop(rest);
        let large = now(ONE, 12 << 10).unwrap();
        assert!(now(ONE, 1).is_none(), "more than its quarter comes alone");
        drop((now(OTHER, 4 << 10).unwrap(), large));
        assert!(uploads.addresses.lock().unwrap().is_empty());
    }
}
