//! Whom a request comes from, where proxies of the operator's stand in between.
//!
//! A proxy appends the address that it was asked from to `x-forwarded-for`. Whoever asks may have written anything there before, so only
//! what proxies wrote counts that the operator has named: from the last address back, the first that is none of theirs.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use axum::http::{HeaderMap, HeaderName};

/// The header that proxies append to.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// One address, or all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Bits that count.
    prefix: u32,
}

/// What is no [`Network`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It has another form.
    #[error("this is no address (192.0.2.1) and no network (10.0.0.0/8)")]
    Form,
    /// It begins as IPv4 addresses do that are written as IPv6, and has others, too.
    #[error("an IPv4 network written as IPv6 has 96 bits or more (::ffff:10.0.0.0/104 is 10.0.0.0/8)")]
    Mapped,
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(it, of)| (it, Some(of)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = match prefix {
            Some(digits) => digits.parse().map_err(|_| NetworkError::Form)?,
            None => most,
        };
        if prefix > most {
            return Err(NetworkError::Form);
        }
        // An IPv4 address is the same written as IPv6, and its first 96 bits are those that say so.
        let canonical = address.to_canonical();
        let prefix = if canonical == address {
            prefix
        } else {
            prefix.checked_sub(96).ok_or(NetworkError::Mapped)?
        };
        Ok(Self {
            address: canonical,
            prefix,
        })
    }
}

impl Network {
    /// Whether `address` is one of it. An IPv4 address is the same written as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (one, other, bits) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let differ: u128 = one ^ other;
        differ.checked_shr(bits - self.prefix).unwrap_or(0) == 0
    }
}

/// The address that a request counts with which came from `peer`.
///
/// ```
/// # use unsaid_relay::http::forwarded::{FORWARDED_FOR, origin};
/// let proxies = ["10.0.0.0/8".parse().unwrap()];
/// let (proxy, stranger) = ("10.0.0.1".parse().unwrap(), "192.0.2.9".parse().unwrap());
/// let headers = [(FORWARDED_FOR, "203.0.113.7, 198.51.100.3".parse().unwrap())].into_iter().collect();
/// assert_eq!(origin(proxy, &headers, &proxies).to_string(), "198.51.100.3");
/// assert_eq!(origin(stranger, &headers, &proxies), stranger);
/// ```
pub fn origin(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let is_proxy = |address| proxies.iter().any(|proxy| proxy.contains(address));
    let mut nearest = peer;
    let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let written = values
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b','));
    for address in written {
        if !is_proxy(nearest) {
            break;
        }
        // What cannot be read was not written by one of the proxies, or tells nothing.
        let Some(address) = std::str::from_utf8(address).ok().and_then(address_of) else {
            break;
        };
        nearest = address;
    }
    nearest
}

/// An address, with or without a port; one of IPv6 may be in brackets without one, too.
fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let in_brackets = || Some(IpAddr::V6(bare?.parse().ok()?));
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn from(peer: &str, written: &[&str]) -> String {
        let proxies = [network("10.0.0.0/8"), network("2001:db8::1")];
        let header = |text: &&str| (FORWARDED_FOR, text.parse().unwrap());
        origin(address(peer), &written.iter().map(header).collect(), &proxies).to_string()
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (text, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.0"),
            ("192.0.2.1", "::ffff:192.0.2.1", "::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("::ffff:10.1.0.0/112", "::ffff:10.1.255.255", "10.2.0.0"),
        ] {
            assert!(network(text).contains(address(inside)), "{inside} is in {text}");
            assert!(
                !network(text).contains(address(outside)),
                "{outside} is not in {text}"
            );
        }
        assert!(network("0.0.0.0/0").contains(address("255.1.2.3")));
        assert!(network("::/0").contains(address("2001:db8::1")));
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0/8",
            "example.org",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError::Form), "{wrong}");
        }
        assert!(network("::ffff:0.0.0.0/96").contains(address("255.1.2.3")));
        assert_eq!("::ffff:10.0.0.0/95".parse::<Network>(), Err(NetworkError::Mapped));
    }

    #[test]
    fn nobody_but_a_proxy_says_whom_a_request_comes_from() {
        assert_eq!(from("192.0.2.9", &["203.0.113.7"]), "192.0.2.9", "a stranger");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1", "a proxy that says nothing");
        assert_eq!(from("10.0.0.1", &["203.0.113.7"]), "203.0.113.7");
        assert_eq!(from("::ffff:10.0.0.1", &["203.0.113.7:4711"]), "203.0.113.7");
        for written in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443"] {
            assert_eq!(from("2001:db8::1", &[written]), "2001:db8::7", "{written}");
        }
        for nonsense in ["[2001:db8::7", "2001:db8::7]", "[203.0.113.7]", "[]"] {
            assert_eq!(from("2001:db8::1", &[nonsense]), "2001:db8::1", "{nonsense}");
        }
        // The client wrote the first; the proxy, which was asked from there, the last.
        assert_eq!(
            from("10.0.0.1", &["1.1.1.1, 10.0.0.9, 203.0.113.7"]),
            "203.0.113.7"
        );
        assert_eq!(
            from("10.0.0.1", &["1.1.1.1", "203.0.113.7"]),
            "203.0.113.7",
            "two lines"
        );
        assert_eq!(
            from("10.0.0.1", &["1.1.1.1, 203.0.113.7, 10.0.0.2"]),
            "203.0.113.7",
            "two proxies"
        );
        assert_eq!(from("10.0.0.1", &["nonsense, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(from("10.0.0.1", &["203.0.113.7, "]), "10.0.0.1");
    }
}
