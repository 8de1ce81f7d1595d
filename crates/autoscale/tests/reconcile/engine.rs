//! CPU from an engine's API: the arithmetic, and each way in which it can be missing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use windlass_autoscale::{BoxError, Cpu, EngineMetrics, Member, Metrics, Roster};
use windlass_engine_api::{Client, Dial, Stream};

/// Containers: seconds used, and the CPU limit.
type Containers = BTreeMap<String, (f64, Option<f64>)>;

#[derive(Default)]
struct Host {
    containers: Mutex<Containers>,
    mute: std::sync::atomic::AtomicBool,
}

/// An engine with two processors on the other end of a pipe.
struct HostDial(Arc<Host>);

#[async_trait]
impl Dial for HostDial {
    async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let host = Arc::clone(&self.0);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&host), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .await;
        });
        Ok(Box::new(ours))
    }
}

async fn answer(
    host: Arc<Host>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if host.mute.load(std::sync::atomic::Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let containers = host.containers.lock().expect("containers").clone();
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path
        .split('/')
        .skip_while(|p| *p != "containers" && *p != "info")
        .collect();
    let body = match parts.as_slice() {
        ["info"] => json!({ "NCPU": 2 }),
        ["containers", "json"] => containers
            .keys()
            .map(|id| json!({ "Id": id, "State": "running" }))
            .collect(),
        ["containers", id, "stats"] => match containers.get(*id) {
            Some((used, _)) => {
                json!({ "cpu_stats": { "cpu_usage": { "total_usage": (used * 1e9) as u64 } } })
            }
            None => serde_json::Value::Null,
        },
        ["containers", id, "json"] => {
            let limit = containers.get(*id).and_then(|c| c.1).unwrap_or(0.0);
            json!({ "Id": id, "HostConfig": { "NanoCpus": (limit * 1e9) as i64 } })
        }
        _ => serde_json::Value::Null,
    };
    let status = if body.is_null() { 404 } else { 200 };
    let body = if body.is_null() {
        json!({ "message": "no such thing" })
    } else {
        body
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("status");
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

struct Machines(Arc<Host>);

#[async_trait]
impl Roster for Machines {
    async fn members(&self) -> Result<Vec<Member>, BoxError> {
        let engine = Ok(Client::new(Arc::new(HostDial(Arc::clone(&self.0)))));
        let age = Some(Duration::from_secs(50));
        Ok(vec![
            Member {
                name: "m0".to_owned(),
                ready_for: age,
                engine,
            },
            Member {
                name: "m1".to_owned(),
                ready_for: age,
                engine: Err("ssh: connection refused".to_owned()),
            },
            Member {
                name: "m2".to_owned(),
                ready_for: None,
                engine: Err("being made".to_owned()),
            },
        ])
    }
}

fn set(host: &Host, containers: &[(&str, f64, Option<f64>)]) {
    *host.containers.lock().expect("containers") = containers
        .iter()
        .map(|(id, used, limit)| ((*id).to_owned(), (*used, *limit)))
        .collect();
}

async fn first(metrics: &EngineMetrics<Machines>, seconds: u64) -> Cpu {
    let samples = metrics
        .sample(Duration::from_secs(seconds))
        .await
        .expect("samples");
    assert_eq!(samples.len(), 3);
    assert_eq!(samples[0].ready_at, Some(Duration::from_secs(seconds - 50)));
    assert!(matches!(&samples[1].cpu, Cpu::Missing { reason } if reason.contains("refused")));
    assert_eq!(samples[2].ready_at, None);
    samples.into_iter().next().expect("m0").cpu
}

fn percent(cpu: &Cpu) -> f64 {
    match cpu {
        Cpu::Percent { value, .. } => (value * 10.0).round() / 10.0,
        Cpu::Missing { reason } => panic!("missing: {reason}"),
    }
}

#[tokio::test]
async fn the_tighter_budget_counts() {
    let host = Arc::new(Host::default());
    let metrics = EngineMetrics::new(Machines(Arc::clone(&host)), Duration::from_secs(5));
    set(&host, &[("a", 100.0, None)]);
    assert!(
        matches!(first(&metrics, 1000).await, Cpu::Missing { .. }),
        "one reading is no rate"
    );
    set(&host, &[("a", 110.0, None)]);
    assert_eq!(
        percent(&first(&metrics, 1010).await),
        50.0,
        "one of two processors"
    );
    // A new container with a limit of half a processor that it uses to 80 %.
    set(&host, &[("a", 110.0, None), ("b", 4.0, Some(0.5))]);
    assert_eq!(percent(&first(&metrics, 1020).await), 80.0);
    // The limited one idles, the other is busy on both.
    set(&host, &[("a", 128.0, None), ("b", 4.0, Some(0.5))]);
    assert_eq!(percent(&first(&metrics, 1030).await), 90.0);
    // A counter that begins anew, and a container that has gone.
    set(&host, &[("b", 1.0, Some(0.5))]);
    assert_eq!(percent(&first(&metrics, 1040).await), 20.0);
    set(&host, &[]);
    assert_eq!(percent(&first(&metrics, 1050).await), 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_missing() {
    let host = Arc::new(Host::default());
    let metrics = EngineMetrics::new(Machines(Arc::clone(&host)), Duration::from_secs(5));
    set(&host, &[("a", 100.0, None)]);
    first(&metrics, 1000).await;
    host.mute.store(true, std::sync::atomic::Ordering::SeqCst);
    let cpu = first(&metrics, 1010).await;
    assert!(
        matches!(&cpu, Cpu::Missing { reason } if reason.contains("5 s")),
        "{cpu:?}"
    );
    host.mute.store(false, std::sync::atomic::Ordering::SeqCst);
    set(&host, &[("a", 120.0, None)]);
    assert_eq!(
        percent(&first(&metrics, 1020).await),
        50.0,
        "the mean since the last answer"
    );
}
