//! How many requests one address may make: a token bucket for each.
//!
//! A bucket holds up to `burst` requests and is filled by `per_second`; a request takes one, and is refused where there is none.
//! An IPv6 address counts with its whole /64, which is what one subscriber has. Behind a proxy that the relay does not know of, every
//! request comes from the proxy's address ([`super::forwarded`]).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use unsaid_protocol::ProblemKind;

use super::problem::{Refused, spread};
use crate::relay::Relay;

/// Whom a request comes from ([`super::forwarded::origin`]); set for every request that came through a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// How many requests one address may make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Requests per second in the long run, above 0.
    pub per_second: f64,
    /// Requests at once, at least 1.
    pub burst: f64,
}

/// Addresses that are remembered. Beyond that the full buckets are forgotten, which is what they would be anyway.
const MAX_ADDRESSES: usize = 65_536;

/// Seconds over which those are spread that are told to come again.
const SPREAD_SECONDS: u64 = 3;

/// The buckets.
#[derive(Debug)]
pub struct Limits {
    limit: RateLimit,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    requests: f64,
    at_ms: u64,
}

impl Limits {
    /// All buckets full.
    pub fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            buckets: Mutex::default(),
        }
    }

    /// Takes one request of `address`.
    ///
    /// # Errors
    /// The seconds after which there is one again, rounded up.
    pub fn take(&self, address: IpAddr, now_ms: u64) -> Result<(), u64> {
        let RateLimit { per_second, burst } = self.limit;
        let filled = |bucket: &Bucket| {
            let seconds = now_ms.saturating_sub(bucket.at_ms) as f64 / 1_000.0;
            (bucket.requests + seconds * per_second).min(burst)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let address = subscriber(address);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| filled(bucket) < burst);
            if buckets.len() >= MAX_ADDRESSES {
                // So many addresses at once are an attack that no limit per address stops; memory is bounded all the same.
                return Err(1);
            }
        }
        let full = Bucket {
            requests: burst,
            at_ms: now_ms,
        };
        let bucket = buckets.entry(address).or_insert(full);
        let requests = filled(bucket);
        bucket.at_ms = now_ms;
        if requests < 1.0 {
            bucket.requests = requests;
            return Err(((1.0 - requests) / per_second).ceil() as u64);
        }
        bucket.requests = requests - 1.0;
        Ok(())
    }
}

/// An address as it is counted.
pub(crate) fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

/// The network of an address: an IPv6 /48, of which one customer may have all 65,536 subscribers' worth, or an IPv4 /16.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() >> 16 << 16).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 80 << 80).into()),
    }
}

/// What one customer's network may have of something that there is so much of: three quarters. IPv4 addresses are counted one by one, for a /16 is
/// many people's.
pub(crate) const fn of_a_network(all: usize) -> usize {
    let most = all - all / 4;
    if most == 0 { 1 } else { most }
}

/// Refuses requests of addresses that make too many.
pub async fn limit(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    if let (Some(limits), Some(Peer(address))) = (&relay.limits, peer)
        && let Err(seconds) = limits.take(address, relay.clock.now_ms())
    {
        let refused = Refused::new(
            ProblemKind::TooManyRequests,
            "this address makes more requests than it may: wait, then send the same bytes again",
        );
        let mut response = refused.into_response();
        // A school behind one address is a crowd, too.
        let seconds = seconds + spread(SPREAD_SECONDS);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        return response;
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(RateLimit {
            per_second: 2.0,
            burst: 3.0,
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_bucket_empties_fills_and_never_overflows() {
        let (limits, one) = (limits(), address("192.0.2.1"));
        for _ in 0..3 {
            assert_eq!(limits.take(one, 1_000), Ok(()));
        }
        assert_eq!(limits.take(one, 1_000), Err(1));
        assert_eq!(
            limits.take(one, 1_499),
            Err(1),
            "half a second fills one, and not sooner"
        );
        assert_eq!(limits.take(one, 1_500), Ok(()));
        assert_eq!(limits.take(one, 1_500), Err(1));
        for _ in 0..3 {
            assert_eq!(limits.take(one, 1_000_000), Ok(()));
        }
        assert_eq!(
            limits.take(one, 1_000_000),
            Err(1),
            "no more than a burst, however long it waited"
        );
        assert_eq!(
            limits.take(one, 0),
            Err(1),
            "a clock that runs backwards gives nothing"
        );
    }

    #[test]
    fn addresses_have_buckets_of_their_own_and_a_subscriber_has_one() {
        let limits = limits();
        for _ in 0..3 {
            assert_eq!(limits.take(address("192.0.2.1"), 0), Ok(()));
            assert_eq!(limits.take(address("192.0.2.2"), 0), Ok(()));
        }
        assert_eq!(
            limits.take(address("::ffff:192.0.2.1"), 0),
            Err(1),
            "the same, written as IPv6"
        );
        for at in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:1"] {
            assert_eq!(limits.take(address(at), 0), Ok(()));
        }
        assert_eq!(limits.take(address("2001:db8::3"), 0), Err(1));
        assert_eq!(limits.take(address("2001:db8:0:1::1"), 0), Ok(()));
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_addresses() {
        let limits = limits();
        let stranger = |number: u32| IpAddr::V4(number.into());
        for number in 0..MAX_ADDRESSES as u32 {
            assert_eq!(limits.take(stranger(number), 0), Ok(()));
        }
        assert_eq!(limits.take(stranger(u32::MAX), 0), Err(1));
        assert_eq!(limits.take(stranger(7), 0), Ok(()), "those that are known go on");
        assert_eq!(
            limits.take(stranger(u32::MAX), 1_000),
            Ok(()),
            "full buckets were forgotten"
        );
        assert!(limits.buckets.lock().unwrap().len() < 3);
    }
}
