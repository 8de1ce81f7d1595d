//! Tables change under load: nobody notices, and nobody is sent to what has been taken out.

use std::time::{Duration, Instant};

use windlass_ingress::RouteTable;
use windlass_load::{Pressure, Steady, Target, closed_loop};

use crate::harness::{Proxy, Server, checked, route, until};

fn target(proxy: &Proxy) -> Target {
    Target::new(&format!("http://{}/", proxy.address), None).expect("target")
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_replaced_under_load_without_a_failed_request() {
    let proxy = Proxy::start().await;
    let mut now = vec![Server::start("0").await, Server::start("0b").await];
    let mut generation = 1;
    proxy
        .put(generation, vec![checked(None, "/", &[&now[0], &now[1]])])
        .await;
    let steady = Steady::start(
        target(&proxy),
        Duration::from_millis(2),
        Duration::from_secs(5),
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let load_target = target(&proxy);
    let load = tokio::spawn(async move {
        closed_loop(&load_target, Pressure::full(8), async {
            let _ = stopped.await;
        })
        .await
    });
    for round in 1..=20 {
        // Start first, then let go, then stop: what a rollout does.
        let new = Server::start(&round.to_string()).await;
        generation += 1;
        proxy
            .put(
                generation,
                vec![checked(None, "/", &[&now[0], &now[1], &new])],
            )
            .await;
        assert!(until(async || proxy.is_healthy(new.address).await).await);
        let old = now.remove(0);
        now.push(new);
        generation += 1;
        proxy
            .put(generation, vec![checked(None, "/", &[&now[0], &now[1]])])
            .await;
        assert!(
            until(async || proxy.active(old.address).await == 0).await,
            "it does not drain"
        );
        drop(old);
    }
    let _ = stop.send(());
    let (load, steady) = (load.await.expect("load"), steady.stop().await);
    println!("load: {load}\nsteady: {steady}");
    assert!(
        load.requests > 200 && steady.requests > 50,
        "too little was sent to show anything"
    );
    assert_eq!(
        (load.failures, steady.failures),
        (0, 0),
        "{:?} {:?}",
        load.problems,
        steady.problems
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_answer_no_new_request_uses_the_former_table() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy.put(1, vec![route(None, "/", &[&a])]).await;
    proxy.put(1, vec![route(None, "/", &[&a])]).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let load_target = target(&proxy);
    let load = tokio::spawn(async move {
        closed_loop(&load_target, Pressure::full(16), async {
            let _ = stopped.await;
        })
        .await
    });
    for generation in 2..=200u64 {
        let (inside, outside) = if generation % 2 == 0 {
            (&a, &b)
        } else {
            (&b, &a)
        };
        proxy
            .put(generation, vec![route(None, "/", &[inside])])
            .await;
        // Those in progress may still arrive; once there is none, nothing more may.
        assert!(until(async || proxy.active(outside.address).await == 0).await);
        let served = outside.served();
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(
            outside.served(),
            served,
            "generation {generation}: a request came after the answer"
        );
    }
    let _ = stop.send(());
    let load = load.await.expect("load");
    assert_eq!(load.failures, 0, "{:?}", load.problems);
    assert!(load.requests > 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_shows_in_the_status_until_it_is_over() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy.put(1, vec![route(None, "/", &[&a])]).await;
    let address = proxy.address;
    let slow = tokio::spawn(async move { crate::harness::get(address, "x", "/slow?800").await });
    assert!(until(async || proxy.active(a.address).await == 1).await);
    proxy.put(2, vec![route(None, "/", &[&b])]).await;
    let status = proxy.admin.status().await.expect("status");
    let leaving = status
        .upstreams
        .iter()
        .find(|u| u.address == a.address)
        .expect("it is still shown");
    assert!(
        leaving.draining && leaving.active_requests == 1,
        "{leaving:?}"
    );
    assert_eq!(proxy.get("x", "/").await.1, "b");
    assert_eq!(slow.await.expect("task").expect("answer").1, "a");
    assert!(until(async || proxy.active(a.address).await == 0).await);
    // Back again before it was gone for good: its count is the same one.
    proxy.put(3, vec![route(None, "/", &[&a])]).await;
    assert_eq!(proxy.get("x", "/").await.1, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tables() {
    let (proxy, a, b) = (
        Proxy::start().await,
        Server::start("a").await,
        Server::start("b").await,
    );
    proxy.put(1, vec![route(None, "/", &[&a, &b])]).await;
    let steady = Steady::start(
        target(&proxy),
        Duration::from_millis(5),
        Duration::from_secs(5),
    );
    let before = resident_kb(&proxy);
    let begun = Instant::now();
    for generation in 2..=10_000u64 {
        let servers: &[&Server] = match generation % 3 {
            0 => &[&a],
            1 => &[&b],
            _ => &[&a, &b],
        };
        let table = RouteTable {
            generation,
            routes: vec![route(None, "/", servers)],
        };
        assert_eq!(
            proxy.admin.put_routes(&table).await.expect("taken"),
            generation
        );
    }
    let took = begun.elapsed();
    let after = resident_kb(&proxy);
    let report = steady.stop().await;
    println!(
        "10,000 tables in {:.1} s, resident {before} -> {after} kB, {report}",
        took.as_secs_f64()
    );
    assert_eq!(report.failures, 0, "{:?}", report.problems);
    assert!(
        after < before + 8192,
        "memory grows with the tables: {before} -> {after} kB"
    );
    assert!(took < Duration::from_secs(120));
}

fn resident_kb(proxy: &Proxy) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", proxy.process.id())).expect("status");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .expect("VmRSS")
}
