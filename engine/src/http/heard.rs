//! A request's body whose client is heard out: who is answered before he has sent everything may fail at sending, and never look
//! at the answer. So what a handler leaves unread is read and dropped, within limits.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
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
    /// A client that waits to be told to send is not told to when nobody wants it.
    begun: bool,
}

impl Heard {
    /// Of this body.
    pub fn new(body: Incoming) -> Self {
        Self {
            body: Some(body.into_data_stream()),
            begun: false,
        }
    }
}

impl Stream for Heard {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.begun = true;
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
        if self.begun {
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
