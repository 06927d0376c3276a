//! TLS, HTTP/2 over it, and certificates.

use std::{sync::Arc, time::Duration};

use axum::body::HttpBody;
use futures_util::FutureExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use unsaid_relay::{
    RelayOptions,
    http::{admin::AdminToken, forwarded::Network},
    tls,
};

use crate::{harness::*, operating::TOKEN};

#[tokio::test]
async fn the_operators_calls_reach_a_relay_over_tls_that_they_trust_and_no_other() {
    let folder = TempDir::new().unwrap();
    let made = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let paths = [format!("{name}.pem"), format!("{name}.key")].map(|file| folder.path().join(file));
        std::fs::write(&paths[0], made.cert.pem()).unwrap();
        std::fs::write(&paths[1], made.signing_key.serialize_pem()).unwrap();
        paths
    };
    let ([certificate, key], [other, _]) = (made("relay"), made("other"));
    let token = token_file(folder.path(), TOKEN);
    let options = RelayOptions {
        admin_token: AdminToken::new(TOKEN),
        tls: Some(tls::read(&certificate, &key).unwrap()),
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let port = relay.api.base.rsplit_once(':').unwrap().1.to_owned();
    let pause = async |address: String, trusted: &std::path::Path| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_unsaid-relay"))
            .args(["admin", "pause", "tiny", "--relay", &address, "--token-file"])
            .arg(&token)
            .arg("--ca-cert")
            .arg(trusted)
            .output();
        let output = output.await.unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    let (done, said) = pause(format!("https://localhost:{port}"), &certificate).await;
    assert!(done && said.contains("\"paused\":true"), "{said}");
    let (done, said) = pause(format!("https://localhost:{port}/"), &other).await;
    assert!(!done && said.contains("certificate"), "{said}");
    let (done, said) = pause(format!("ftp://localhost:{port}"), &certificate).await;
    assert!(!done && said.contains("no address of a relay"), "{said}");
}

/// A relay over TLS with a certificate of its own, and a client that trusts it.
async fn over_tls(folder: &TempDir) -> (TestRelay, Arc<ClientConfig>) {
    over_tls_behind(folder, Vec::new()).await
}

/// The same, which knows of these proxies.
async fn over_tls_behind(folder: &TempDir, proxies: Vec<Network>) -> (TestRelay, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let options = RelayOptions {
        tls: Some(tls::read(&certificate, &key).unwrap()),
        page: Some(folder.path().to_owned()),
        head_timeout: Duration::from_millis(600),
        answer_timeout: Duration::from_millis(600),
        proxies,
        ..RelayOptions::default()
    };
    let relay = TestRelay::over(FaultyStore::new(), &[], options).await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&certificate).unwrap())
        .unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (relay, Arc::new(config))
}

async fn connect(
    relay: &TestRelay,
    config: &Arc<ClientConfig>,
    protocol: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut config = (**config).clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let address = relay.api.base.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn tls_carries_http_1_and_http_2() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let mut one = connect(&relay, &config, b"http/1.1").await;
    let request = b"GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    one.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = one.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"tiny\""),
        "{answer}"
    );
    assert!(
        answer.contains(&format!("\r\nstrict-transport-security: {FOR_A_YEAR}\r\n")),
        "{answer}"
    );

    let two = connect(&relay, &config, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(two))
            .await
            .unwrap();
    tokio::spawn(connection.map(drop));
    let mut ask = |path: &str| {
        let request = hyper::Request::get(format!("https://localhost{path}"));
        sender.send_request(request.body(axum::body::Body::empty()).unwrap())
    };
    // Two at a time over one connection.
    let both = (ask("/v1/tasks"), ask("/healthz"));
    let (first, second) = futures_util::future::join(both.0, both.1).await;
    let problem = ask("/v1/nothing").await;
    for (response, status) in [(first, 200), (second, 200), (problem, 404)] {
        let response = response.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (status, hyper::Version::HTTP_2)
        );
        assert_eq!(response.headers()["strict-transport-security"], FOR_A_YEAR);
    }
}

const FOR_A_YEAR: &str = "max-age=31536000";

/// A browser that was told so over plain HTTP would have to pass over it, and one behind a proxy might have no TLS at all.
#[tokio::test]
async fn a_relay_without_tls_does_not_ask_for_it() {
    let relay = TestRelay::start(&[]).await;
    for path in ["/healthz", "/v1/nothing"] {
        let answer = relay.api.get(path).await;
        assert_eq!(
            answer.headers()["x-content-type-options"],
            "nosniff",
            "the control"
        );
        assert!(
            !answer.headers().contains_key("strict-transport-security"),
            "{path}"
        );
    }
}

type Sender = hyper::client::conn::http2::SendRequest<axum::body::Body>;

/// HTTP/2 over `stream`; the task ends with the connection.
async fn http_2(stream: tokio_rustls::client::TlsStream<TcpStream>) -> (Sender, tokio::task::JoinHandle<()>) {
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = made.await.unwrap();
    (sender, tokio::spawn(connection.map(drop)))
}

async fn get(sender: &mut Sender, path: &str) -> hyper::Response<hyper::body::Incoming> {
    let request = hyper::Request::get(format!("https://localhost{path}"));
    let request = request.body(axum::body::Body::empty()).unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn http_2_that_is_agreed_and_not_spoken_is_closed() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let mut silent = connect(&relay, &config, b"h2").await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), silent.read_to_end(&mut rest));
    let _ = end.await.expect("the relay closes the connection");
}

#[tokio::test]
async fn http_2_that_asks_once_and_then_only_answers_pings_is_closed() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let (mut sender, connection) = http_2(connect(&relay, &config, b"h2").await).await;
    for _ in 0..3 {
        let response = get(&mut sender, "/healthz").await;
        assert_eq!(response.status(), 200);
        drop(response);
        tokio::time::sleep(Duration::from_millis(400)).await; // less than the time that it may be silent
    }
    let end = tokio::time::timeout(Duration::from_secs(5), connection);
    end.await.expect("the relay closes the connection").unwrap();
    drop(sender); // kept until now: it was not the client that ended it
}

#[tokio::test]
async fn http_2_with_an_event_stream_is_not_silent() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    let (mut sender, connection) = http_2(connect(&relay, &config, b"h2").await).await;
    let events = get(&mut sender, "/v1/tasks/tiny/events").await;
    tokio::time::sleep(Duration::from_millis(2_400)).await; // four times as long as it may be silent
    assert!(!connection.is_finished());
    assert_eq!(get(&mut sender, "/healthz").await.status(), 200);
    drop(events); // resets the stream: nothing is open any more
    let end = tokio::time::timeout(Duration::from_secs(5), connection);
    end.await.expect("the relay closes the connection").unwrap();
}

#[tokio::test]
async fn http_2_whose_answer_is_not_taken_is_closed() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    std::fs::write(folder.path().join("large.bin"), vec![7; 24 << 20]).unwrap();
    let (mut sender, connection) = http_2(connect(&relay, &config, b"h2").await).await;
    // The client's windows are full soon, and it goes on to answer pings.
    let answer = get(&mut sender, "/large.bin").await;
    assert_eq!(answer.status(), 200);
    let end = tokio::time::timeout(Duration::from_secs(5), connection);
    end.await.expect("the relay closes the connection").unwrap();
    drop((answer, sender));
}

#[tokio::test]
async fn http_2_whose_answer_is_taken_slowly_is_not() {
    let folder = TempDir::new().unwrap();
    let (relay, config) = over_tls(&folder).await;
    std::fs::write(folder.path().join("large.bin"), vec![7; 1 << 20]).unwrap();
    // With a window of one piece the relay sends the next only when one was taken.
    let made = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535)
        .handshake(TokioIo::new(connect(&relay, &config, b"h2").await));
    let (mut sender, connection) = made.await.unwrap();
    tokio::spawn(connection.map(drop));
    let mut body = get(&mut sender, "/large.bin").await.into_body();
    let mut taken = 0;
    while let Some(frame) =
        std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_frame(context)).await
    {
        let length = frame.expect("the relay waits").into_data().unwrap().len();
        let pieces = taken / 65_535;
        taken += length;
        // All of it takes five times as long as a piece may, and as a connection may be silent.
        if taken / 65_535 > pieces {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    assert_eq!(taken, 1 << 20);
}

#[tokio::test]
async fn a_proxy_that_was_named_is_not_cut_off_for_what_one_of_its_clients_does_not_take() {
    let folder = TempDir::new().unwrap();
    let proxies = vec!["127.0.0.1".parse().unwrap()];
    let (relay, config) = over_tls_behind(&folder, proxies).await;
    std::fs::write(folder.path().join("large.bin"), vec![7; 24 << 20]).unwrap();
    let (mut sender, connection) = http_2(connect(&relay, &config, b"h2").await).await;
    let answer = get(&mut sender, "/large.bin").await;
    tokio::time::sleep(Duration::from_millis(2_400)).await; // four times as long as a peer may take nothing
    assert!(!connection.is_finished());
    assert_eq!(get(&mut sender, "/healthz").await.status(), 200);
    drop(answer);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let folder = TempDir::new().unwrap();
    let (relay, _) = over_tls(&folder).await;
    let address = relay.api.base.strip_prefix("http://").unwrap();
    for first in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        let _ = end.await.expect("the relay closes the connection");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let folder = TempDir::new().unwrap();
    let (empty, missing) = (folder.path().join("empty.pem"), folder.path().join("missing.pem"));
    std::fs::write(&empty, "").unwrap();
    let error = tls::read(&missing, &empty).unwrap_err().to_string();
    assert!(error.contains("missing.pem"), "{error}");
    let error = tls::read(&empty, &empty).unwrap_err().to_string();
    assert!(error.contains("empty.pem"), "{error}");
}
