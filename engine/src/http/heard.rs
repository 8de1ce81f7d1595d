//! A request's body whose client is heard out: who is answered before he has sent everything may fail at sending, and never look
//! at the answer. So what a handler leaves unread is read and dropped, within limits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::{BodyDataStream, BodyExt as _};
use hyper::body::Incoming;

/// More than this is not worth hearing.
const MOST: usize = 2 << 30;
/// Nor who says nothing for so long.
const SILENCE: Duration = Duration::from_secs(10);

/// The pieces of a body.
#[derive(Debug)]
pub struct Heard {
    body: Option<BodyDataStream<Incoming>>,
    /// Whether the client sends: one that waits to be told to is not told when nobody wants it.
    sends: bool,
}

impl Heard {
    /// Of the request with these headers.
    pub fn new(body: Incoming, headers: &HeaderMap) -> Self {
        Self {
            body: Some(body.into_data_stream()),
            sends: !headers.contains_key(EXPECT),
        }
    }
}

impl Stream for Heard {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sends = true;
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let next = std::task::ready!(body.poll_next_unpin(context));
        if !matches!(next, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(next.map(|piece| piece.map_err(io::Error::other)))
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        let (Some(body), Ok(runtime)) = (self.body.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        if self.sends {
            runtime.spawn(hear_out(body));
        }
    }
}

async fn hear_out(mut body: BodyDataStream<Incoming>) {
    let mut heard = 0;
    while let Ok(Some(Ok(piece))) = tokio::time::timeout(SILENCE, body.next()).await {
        heard += piece.len();
        if heard > MOST {
            break;
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
    async fn a_client_who_is_refused_before_a_word_was_read_is_heard_out() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let service = service_fn(|request: http::Request<Incoming>| async {
            let (parts, body) = request.into_parts();
            drop(Heard::new(body, &parts.headers));
            Ok::<_, std::convert::Infallible>(http::Response::new(String::from("no")))
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service);
        let served = tokio::spawn(served);
        for _ in 0..2 {
            let head = b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
            client.write_all(head).await.unwrap();
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
