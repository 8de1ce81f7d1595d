//! Upstreams that fail, in each way.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use windlass_ingress::{HealthCheck, Upstream};
use windlass_load::{Steady, Target};

use crate::harness::{Proxy, Server, checked, free_address, get, route, send, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_costs_no_request() {
    let (proxy, a) = (Proxy::start().await, Server::start("a").await);
    let mut r = route(None, "/", &[&a]);
    r.upstreams.push(Upstream {
        id: "nobody".to_owned(),
        address: free_address().await,
    });
    proxy.put(1, vec![r]).await;
    for _ in 0..50 {
        assert_eq!(proxy.get("x", "/").await, (StatusCode::OK, "a".to_owned()));
        // A body that has not been sent is not lost either.
        let post = Request::post("/")
            .header("host", "x")
            .body(Full::new(Bytes::from("body")))
            .expect("request");
        assert_eq!(
            send(proxy.address, post).await.expect("answer").status(),
            StatusCode::OK
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_costs_no_request() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy.put(1, vec![checked(None, "/", &[&a, &b])]).await;
    let target = Target::new(&format!("http://{}/", proxy.address), None).expect("target");
    let steady = Steady::start(target, Duration::from_millis(1), Duration::from_secs(5));
    let address = b.address;
    let mut killed = Some(b);
    for _ in 0..10 {
        let sent = steady.sent();
        assert!(until(async || steady.sent() > sent + 20).await);
        drop(killed.take());
        let sent = steady.sent();
        assert!(until(async || steady.sent() > sent + 20).await);
        killed = Some(Server::start_at(address, "b").await);
        assert!(until(async || proxy.is_healthy(address).await).await);
    }
    let report = steady.stop().await;
    println!("{report}");
    assert_eq!(report.failures, 0, "{:?}", report.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_upstream_gets_nothing_until_it_is_well() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy.put(1, vec![checked(None, "/", &[&a, &b])]).await;
    assert!(
        until(async || proxy.is_healthy(a.address).await && proxy.is_healthy(b.address).await)
            .await
    );
    b.shared.unhealthy.store(true, Ordering::SeqCst);
    assert!(until(async || !proxy.is_healthy(b.address).await).await);
    let before = b.served();
    for _ in 0..20 {
        assert_eq!(proxy.get("x", "/").await.1, "a");
    }
    assert_eq!(b.served(), before);
    a.shared.unhealthy.store(true, Ordering::SeqCst);
    assert!(until(async || !proxy.is_healthy(a.address).await).await);
    assert_eq!(proxy.get("x", "/").await.0, StatusCode::SERVICE_UNAVAILABLE);
    b.shared.unhealthy.store(false, Ordering::SeqCst);
    assert!(until(async || proxy.is_healthy(b.address).await).await);
    assert_eq!(proxy.get("x", "/").await.1, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_without_an_answer_is_a_failed_one() {
    let (proxy, a) = (Proxy::start().await, Server::start("a").await);
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let mut r = route(None, "/", &[&a]);
    let address = mute.local_addr().expect("address");
    r.upstreams.push(Upstream {
        id: "mute".to_owned(),
        address,
    });
    let timeout = Duration::from_millis(100);
    r.health = Some(HealthCheck {
        interval: timeout,
        timeout,
        ..HealthCheck::default()
    });
    proxy.put(1, vec![r]).await;
    assert!(until(async || proxy.is_healthy(a.address).await).await);
    // The first probe has timed out by then; before, an unknown upstream ranks behind a healthy one anyway.
    for _ in 0..20 {
        assert_eq!(proxy.get("x", "/").await.1, "a");
    }
    assert!(!proxy.is_healthy(address).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_had_an_effect_is_not_sent_twice() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy.put(1, vec![route(None, "/", &[&a, &b])]).await;
    let post = Request::post("/break")
        .header("host", "x")
        .body(Full::new(Bytes::from("pay")))
        .expect("request");
    assert_eq!(
        send(proxy.address, post).await.expect("answer").status(),
        StatusCode::BAD_GATEWAY
    );
    assert_eq!(a.served() + b.served(), 1);
    // A GET is tried on each, then given up.
    assert_eq!(
        proxy.get("x", "/break").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(a.served() + b.served(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_holds_up_nobody_else() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy
        .put(
            1,
            vec![
                route(Some("slow"), "/", &[&a]),
                route(Some("fast"), "/", &[&b]),
            ],
        )
        .await;
    let address = proxy.address;
    let slow: Vec<_> = (0..200)
        .map(|_| tokio::spawn(async move { get(address, "slow", "/slow?3000").await }))
        .collect();
    assert!(until(async || proxy.active(a.address).await == 200).await);
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(proxy.get("fast", "/").await.1, "b");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for request in slow {
        assert_eq!(
            request.await.expect("task"),
            Ok((StatusCode::OK, "a".to_owned()))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_the_upstream() {
    let (proxy, a) = (Proxy::start().await, Server::start("a").await);
    proxy.put(1, vec![route(None, "/", &[&a])]).await;
    for path in ["/endless", "/slow?60000"] {
        let mut client = TcpStream::connect(proxy.address).await.expect("connect");
        client
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .await
            .expect("write");
        assert!(until(async || proxy.active(a.address).await == 1).await);
        if path == "/endless" {
            let mut some = [0; 10_000];
            client.read_exact(&mut some).await.expect("read");
        }
        drop(client);
        assert!(
            until(async || proxy.active(a.address).await == 0).await,
            "{path}: still active"
        );
    }
    assert!(
        until(async || a.shared.endless.load(Ordering::SeqCst) == 0).await,
        "the upstream still sends"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_passed_as_complete() {
    let (proxy, listener) = (
        Proxy::start().await,
        TcpListener::bind("127.0.0.1:0").await.expect("port"),
    );
    let mut r = route(None, "/", &[]);
    r.upstreams.push(Upstream {
        id: String::new(),
        address: listener.local_addr().expect("address"),
    });
    proxy.put(1, vec![r]).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            .await;
    });
    assert!(get(proxy.address, "x", "/").await.is_err());
}
