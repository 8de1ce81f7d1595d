//! Heads, bodies and upgrades on their way through.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Proxy, Server, route, send, until};

async fn before(server: &Server) -> Proxy {
    let proxy = Proxy::start().await;
    proxy.put(1, vec![route(None, "/", &[server])]).await;
    proxy
}

async fn raw(proxy: &Proxy, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy.address).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer))
        .await
        .expect("in time")
        .expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_is_told() {
    let a = Server::start("a").await;
    let proxy = before(&a).await;
    let request = "GET /headers?q=1 HTTP/1.1\r\nHost: shop.test:8080\r\nX-Forwarded-For: 1.2.3.4\r\nX-Secret: s\r\n\
                   Connection: close, x-secret\r\n\r\n";
    let answer = raw(&proxy, request).await;
    for part in [
        "GET /headers?q=1",
        "\"host\": \"shop.test:8080\"",
        "\"x-forwarded-for\": \"127.0.0.1\"",
        "\"x-forwarded-proto\": \"http\"",
        "\"x-forwarded-host\": \"shop.test:8080\"",
    ] {
        assert!(answer.contains(part), "{part} is missing in {answer}");
    }
    assert!(!answer.contains("x-secret"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_and_old_requests() {
    let a = Server::start("a").await;
    let proxy = before(&a).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "405",
        ),
        // One of the two lengths is dropped before anybody could read them differently.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "200",
        ),
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\n\r\n", "200"),
        (
            "GET http://abs.test/ HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
            "200",
        ),
    ] {
        // HTTP/1.1 without Connection: close would stay open; a complaint about the Host header does not close either.
        let request = request.replace("HTTP/1.1\r\n\r\n", "HTTP/1.1\r\nConnection: close\r\n\r\n");
        let answer = raw(&proxy, &request).await;
        assert!(
            answer.split(' ').nth(1) == Some(status),
            "{request:?} -> {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let a = Server::start("a").await;
    let proxy = before(&a).await;
    // Each chunk comes back before the next is sent: nothing on the way waits for the end.
    let (chunks, source) = tokio::sync::mpsc::channel::<Bytes>(1);
    let source = futures_util::stream::unfold(source, |mut source| async move {
        source
            .recv()
            .await
            .map(|chunk| (Ok::<_, std::io::Error>(Frame::data(chunk)), source))
    });
    let request = Request::post("/echo")
        .header("host", "x")
        .body(StreamBody::new(source.boxed()))
        .expect("request");
    let mut answer = send(proxy.address, request)
        .await
        .expect("answer")
        .into_body();
    for turn in 0..50u8 {
        chunks
            .send(Bytes::from(vec![turn; 10_000]))
            .await
            .expect("send");
        let mut got = 0;
        while got < 10_000 {
            let frame = answer
                .frame()
                .await
                .expect("more")
                .expect("frame")
                .into_data()
                .expect("data");
            assert!(frame.iter().all(|b| *b == turn));
            got += frame.len();
        }
    }
    drop(chunks);
    assert!(answer.frame().await.is_none());
    assert!(until(async || proxy.active(a.address).await == 0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_pass_and_count_as_in_progress() {
    let a = Server::start("a").await;
    let proxy = before(&a).await;
    let mut stream = TcpStream::connect(proxy.address).await.expect("connect");
    stream
        .write_all(
            b"GET /upgrade HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n",
        )
        .await
        .expect("write");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("read"));
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(
        head.starts_with("http/1.1 101") && head.contains("upgrade: echo"),
        "{head}"
    );
    for _ in 0..100 {
        stream.write_all(b"ping!").await.expect("write");
        let mut pong = [0; 5];
        stream.read_exact(&mut pong).await.expect("read");
        assert_eq!(&pong, b"ping!");
    }
    assert_eq!(proxy.active(a.address).await, 1);
    drop(stream);
    assert!(until(async || proxy.active(a.address).await == 0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_bodies_and_kept_connections() {
    let a = Server::start("a").await;
    let proxy = before(&a).await;
    let mut stream = TcpStream::connect(proxy.address).await.expect("connect");
    for _ in 0..20 {
        stream
            .write_all(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("write");
        let mut answers = Vec::new();
        while !answers.ends_with(b"\r\n\r\na") {
            answers.push(stream.read_u8().await.expect("read"));
        }
        let answers = String::from_utf8_lossy(&answers).into_owned();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    }
    assert_eq!(proxy.get("x", "/nothing").await.0, StatusCode::OK);
}
