//! Which request goes where, and what is said when it goes nowhere.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use nix::sys::signal::Signal;
use windlass_ingress::{AdminError, Balance, Route, RouteTable};

use crate::harness::{Proxy, Server, checked, route, until};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_paths() {
    let (proxy, a, b, c) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
        Server::start("c").await,
    );
    let routes = vec![
        route(Some("a.example.com"), "/", &[&a]),
        route(Some("a.example.com"), "/b", &[&b]),
        route(Some("*.example.com"), "/", &[&c]),
        route(Some("empty.test"), "/", &[]),
    ];
    proxy.put(1, routes).await;
    for (host, path, name) in [
        ("a.example.com", "/", "a"),
        ("A.example.com:80", "/b/x?y", "b"),
        ("z.example.com", "/b", "c"),
    ] {
        assert_eq!(
            proxy.get(host, path).await,
            (StatusCode::OK, name.to_owned()),
            "{host}{path}"
        );
    }
    let (status, text) = proxy.get("other.test", "/").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::NOT_FOUND, "no route for this host and path\n")
    );
    let (status, text) = proxy.get("empty.test", "/").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_spread() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    for (generation, balance) in [(1, Balance::LeastRequests), (2, Balance::RoundRobin)] {
        let before = (a.served(), b.served());
        proxy
            .put(
                generation,
                vec![Route {
                    balance,
                    ..route(None, "/", &[&a, &b])
                }],
            )
            .await;
        for _ in 0..20 {
            proxy.get("x", "/").await;
        }
        assert_eq!(
            (a.served() - before.0, b.served() - before.1),
            (10, 10),
            "{balance:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busy_upstream_gets_fewer() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy
        .put(
            1,
            vec![route(None, "/only-a", &[&a]), route(None, "/", &[&a, &b])],
        )
        .await;
    // Two requests that take long: one is put on each, then both on one through the second table.
    let address = proxy.address;
    let slow = tokio::spawn(async move { crate::harness::get(address, "x", "/slow?3000").await });
    assert!(
        until(async || proxy.active(a.address).await + proxy.active(b.address).await == 1).await
    );
    let (busy, idle) = if proxy.active(a.address).await == 1 {
        (&a, &b)
    } else {
        (&b, &a)
    };
    let before = busy.served();
    for _ in 0..10 {
        proxy.get("x", "/").await;
    }
    assert_eq!(busy.served(), before);
    assert_eq!(idle.served(), 10);
    slow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_checked_and_stale_ones_refused() {
    let (proxy, a) = (Proxy::start().await, Server::start("a").await);
    let table = RouteTable {
        generation: 5,
        routes: vec![route(None, "/", &[&a])],
    };
    assert_eq!(proxy.admin.put_routes(&table).await.expect("taken"), 5);
    assert_eq!(
        proxy.admin.put_routes(&table).await.expect("taken again"),
        5
    );
    for generation in [4, 5] {
        let stale = RouteTable {
            generation,
            routes: Vec::new(),
        };
        let refused = proxy.admin.put_routes(&stale).await;
        assert!(
            matches!(refused, Err(AdminError::Stale { offered, in_force: 5 }) if offered == generation),
            "{refused:?}"
        );
    }
    let mut invalid = RouteTable {
        generation: 6,
        routes: vec![route(None, "no-slash", &[])],
    };
    assert!(matches!(
        proxy.admin.put_routes(&invalid).await,
        Err(AdminError::Table(_))
    ));
    invalid.generation = 0;
    assert!(proxy.admin.put_routes(&invalid).await.is_err());
    assert_eq!(proxy.admin.routes().await.expect("table"), table);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_proxy_serves_at_once() {
    let a = Server::start("a").await;
    let mut proxy = Proxy::start().await;
    proxy.put(7, vec![checked(None, "/", &[&a])]).await;
    proxy.signal(Signal::SIGKILL);
    proxy.process.wait().expect("it ends");
    let proxy = Proxy::start_in(Arc::clone(&proxy.folder)).await;
    assert_eq!(proxy.get("x", "/").await, (StatusCode::OK, "a".to_owned()));
    assert_eq!(proxy.admin.status().await.expect("status").generation, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_kept_table_does_not_stop_the_start() {
    let folder = Arc::new(tempfile::tempdir().expect("folder"));
    std::fs::write(folder.path().join("state.json"), "{\"generation\":").expect("write");
    let proxy = Proxy::start_in(folder).await;
    assert_eq!(proxy.get("x", "/").await.0, StatusCode::NOT_FOUND);
    proxy.put(1, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_proxy_finishes_what_it_has_begun() {
    let (mut proxy, a) = (Proxy::start().await, Server::start("a").await);
    proxy.put(1, vec![route(None, "/", &[&a])]).await;
    let address = proxy.address;
    let slow = tokio::spawn(async move { crate::harness::get(address, "x", "/slow?700").await });
    assert!(until(async || proxy.active(a.address).await == 1).await);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(
        slow.await.expect("task"),
        Ok((StatusCode::OK, "a".to_owned()))
    );
    let ended = until(async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    assert!(ended, "it still listens");
    let end = std::time::Instant::now() + Duration::from_secs(4);
    let status = loop {
        if let Some(status) = proxy.process.try_wait().expect("wait") {
            break status;
        }
        assert!(std::time::Instant::now() < end, "it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(status.success(), "{status}");
    assert!(!proxy.folder.path().join("admin.sock").exists());
}
