//! A request's body until somebody wants it. One that nobody wanted is read all the same: a client that is still sending when the engine has
//! answered and closed sees a broken pipe instead of the answer.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// What is read of a body that nobody wants; Docker's server reads as much.
const AT_MOST: usize = 256 * 1024;
const WITHIN: Duration = Duration::from_secs(5);

/// The body, or nothing once it is taken.
#[derive(Debug)]
pub struct Unread(Option<Incoming>);

impl Unread {
    /// Of a request that has just come.
    pub fn new(body: Incoming) -> Self {
        Self(Some(body))
    }

    /// From now on it is the caller's.
    pub fn take(&mut self) -> Option<Incoming> {
        self.0.take()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(WITHIN, read_away(body)));
        }
    }
}

async fn read_away(mut body: Incoming) {
    let mut left = AT_MOST;
    while let Some(Ok(frame)) = body.frame().await {
        let count = frame.data_ref().map_or(0, |data| data.len());
        match left.checked_sub(count) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_body_that_comes_after_the_answer_is_taken_and_the_connection_goes_on() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let service = service_fn(|request: http::Request<Incoming>| async {
            drop(Unread::new(request.into_body()));
            Ok::<_, std::convert::Infallible>(http::Response::new(String::from("no")))
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service);
        let served = tokio::spawn(served);
        for _ in 0..2 {
            client
                .write_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"no") {
                let mut part = [0; 256];
                let count = client.read(&mut part).await.unwrap();
                assert_ne!(count, 0, "closed after {answer:?}");
                answer.extend_from_slice(&part[..count]);
            }
            client.write_all(b"body").await.unwrap();
        }
        drop(client);
        served.await.unwrap().unwrap();
    }
}
