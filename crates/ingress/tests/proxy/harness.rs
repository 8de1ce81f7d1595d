//! A proxy process, upstreams in this process, and a client of few words.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use windlass_engine_api::UnixDial;
use windlass_ingress::{AdminClient, Balance, HealthCheck, Route, RouteTable, Upstream};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// The proxy under test; killed when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    pub admin: AdminClient,
    pub process: Child,
    pub folder: Arc<tempfile::TempDir>,
}

impl Proxy {
    pub async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().expect("folder"))).await
    }

    /// With what a former proxy kept in the folder.
    pub async fn start_in(folder: Arc<tempfile::TempDir>) -> Self {
        let address = free_address().await;
        let socket = folder.path().join("admin.sock");
        let mut process = Command::new(env!("CARGO_BIN_EXE_windlass-ingress"))
            .args(["--listen", &address.to_string(), "--grace", "5"])
            .arg("--admin-socket")
            .arg(&socket)
            .arg("--state")
            .arg(folder.path().join("state.json"))
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the proxy starts");
        let admin = AdminClient::new(Arc::new(UnixDial::new(&socket)));
        let ready = until(async || {
            admin.status().await.is_ok() && TcpStream::connect(address).await.is_ok()
        });
        if !ready.await {
            let _ = process.kill();
            let _ = process.wait();
            panic!("the proxy does not answer");
        }
        Self {
            address,
            admin,
            process,
            folder,
        }
    }

    pub async fn put(&self, generation: u64, routes: Vec<Route>) {
        let in_force = self
            .admin
            .put_routes(&RouteTable { generation, routes })
            .await
            .expect("the table is taken");
        assert_eq!(in_force, generation);
    }

    pub async fn get(&self, host: &str, path: &str) -> (StatusCode, String) {
        get(self.address, host, path).await.expect("an answer")
    }

    pub async fn active(&self, address: SocketAddr) -> u64 {
        let status = self.admin.status().await.expect("status");
        status
            .upstreams
            .iter()
            .filter(|u| u.address == address)
            .map(|u| u.active_requests)
            .sum()
    }

    pub async fn is_healthy(&self, address: SocketAddr) -> bool {
        let status = self.admin.status().await.expect("status");
        status
            .upstreams
            .iter()
            .any(|u| u.address == address && u.healthy && !u.draining)
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).expect("pid"));
        nix::sys::signal::kill(pid, signal).expect("signal");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server whose answers tell who it is. Gone, with all its connections, when dropped.
pub struct Server {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
pub struct Shared {
    name: String,
    pub unhealthy: AtomicBool,
    pub served: AtomicU64,
    /// Answers of `/endless` that are being read.
    pub endless: AtomicU64,
}

impl Server {
    pub async fn start(name: &str) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("address"), name).await
    }

    pub async fn start_at(address: SocketAddr, name: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            ..Shared::default()
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    pub fn upstream(&self) -> Upstream {
        Upstream {
            id: self.shared.name.clone(),
            address: self.address,
        }
    }

    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the task: then all connections end too.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

async fn answer(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
) -> Result<Answer, std::io::Error> {
    let path = request.uri().path().to_owned();
    let number = || {
        request
            .uri()
            .query()
            .and_then(|q| q.parse().ok())
            .unwrap_or(0)
    };
    if path != "/up" {
        shared.served.fetch_add(1, Ordering::SeqCst);
    }
    Ok(match path.as_str() {
        "/up" if shared.unhealthy.load(Ordering::SeqCst) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "down".to_owned())
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(number())).await;
            text(StatusCode::OK, shared.name.clone())
        }
        "/break" => return Err(std::io::Error::other("as asked")),
        "/headers" => text(
            StatusCode::OK,
            format!(
                "{} {}\n{:#?}",
                request.method(),
                request.uri(),
                request.headers()
            ),
        ),
        "/echo" => Response::new(request.into_body().boxed_unsync()),
        "/endless" => endless(shared),
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await?);
                let (mut read, mut write) = tokio::io::split(&mut stream);
                tokio::io::copy(&mut read, &mut write)
                    .await
                    .map_err(|_| ())
                    .ok();
                Ok::<(), hyper::Error>(())
            });
            let mut response = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
            response
                .headers_mut()
                .insert("connection", http::HeaderValue::from_static("Upgrade"));
            response
                .headers_mut()
                .insert("upgrade", http::HeaderValue::from_static("echo"));
            response
        }
        _ => text(StatusCode::OK, shared.name.clone()),
    })
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(
        Full::new(Bytes::from(text))
            .map_err(|never: Infallible| match never {})
            .boxed_unsync(),
    );
    *response.status_mut() = status;
    response
}

/// A chunk every 5 ms until the client has gone.
fn endless(shared: Arc<Shared>) -> Answer {
    struct Reading(Arc<Shared>);
    impl Drop for Reading {
        fn drop(&mut self) {
            self.0.endless.fetch_sub(1, Ordering::SeqCst);
        }
    }
    shared.endless.fetch_add(1, Ordering::SeqCst);
    let chunks = futures_util::stream::unfold(Reading(shared), |reading| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((
            Ok::<_, hyper::Error>(Frame::data(Bytes::from_static(&[b'x'; 4096]))),
            reading,
        ))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks.boxed())))
}

/// One request on a connection of its own.
pub async fn get(
    address: SocketAddr,
    host: &str,
    path: &str,
) -> Result<(StatusCode, String), String> {
    let request = Request::get(path)
        .header("host", host)
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let (parts, body) = send(address, request).await?.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok((parts.status, String::from_utf8_lossy(&body).into_owned()))
}

/// The head of the answer, with its body still to be read.
pub async fn send<B>(address: SocketAddr, request: Request<B>) -> Result<Response<Incoming>, String>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| e.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    sender
        .send_request(request)
        .await
        .map_err(|e| e.to_string())
}

pub fn route(host: Option<&str>, path: &str, servers: &[&Server]) -> Route {
    Route {
        host: host.map(str::to_owned),
        path: path.to_owned(),
        upstreams: servers.iter().map(|s| s.upstream()).collect(),
        health: None,
        balance: Balance::default(),
    }
}

pub fn checked(host: Option<&str>, path: &str, servers: &[&Server]) -> Route {
    let check = HealthCheck {
        path: "/up".to_owned(),
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
        unhealthy_after: 2,
        ..HealthCheck::default()
    };
    Route {
        health: Some(check),
        ..route(host, path, servers)
    }
}

/// An address where nobody listens.
pub async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("address")
}

/// Whether the condition comes true in good time.
pub async fn until(condition: impl AsyncFn() -> bool) -> bool {
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        if condition().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}
