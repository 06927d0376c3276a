//! Limits per address behind a proxy: whose word on where a request comes from is taken.

use unsaid_relay::{
    RelayOptions,
    http::{forwarded::FORWARDED_FOR, limits::RateLimit},
};

use crate::harness::*;

/// A relay that takes two requests of an address, and hardly more later; it knows of these proxies.
async fn behind(proxies: &[&str]) -> TestRelay {
    let options = RelayOptions {
        proxies: proxies.iter().map(|text| text.parse().unwrap()).collect(),
        rate_limit: Some(RateLimit {
            per_second: 1e-3,
            burst: 2.0,
        }),
        ..RelayOptions::default()
    };
    TestRelay::over(FaultyStore::new(), &[], options).await
}

/// What a request is answered that came with this in `x-forwarded-for`.
async fn ask(relay: &TestRelay, written: &str) -> u16 {
    let request = relay.api.http.get(relay.api.url("/v1/tasks/tiny/round"));
    let answer = request.header(FORWARDED_FOR, written).send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn behind_a_proxy_that_is_known_each_address_has_a_limit_of_its_own() {
    let relay = behind(&["127.0.0.0/8"]).await;
    for client in ["203.0.113.1", "203.0.113.2"] {
        assert_eq!(ask(&relay, client).await, 200);
        assert_eq!(ask(&relay, client).await, 200);
        assert_eq!(ask(&relay, client).await, 429, "{client}");
    }
    // Before its own address, which the proxy writes last, a client may write what it likes.
    assert_eq!(ask(&relay, "198.51.100.1, 203.0.113.1").await, 429);
    assert_eq!(ask(&relay, "203.0.113.2, 203.0.113.3").await, 200);
}

#[tokio::test]
async fn nobody_but_a_proxy_that_is_known_says_where_a_request_comes_from() {
    for proxies in [&[][..], &["10.0.0.1"]] {
        let relay = behind(proxies).await;
        assert_eq!(ask(&relay, "203.0.113.1").await, 200);
        assert_eq!(ask(&relay, "203.0.113.2").await, 200);
        assert_eq!(ask(&relay, "203.0.113.3").await, 429, "all three came from here");
    }
}
