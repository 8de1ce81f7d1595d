//! One connection that asks for one address.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is asked for, and where.
#[derive(Clone, Debug)]
pub struct Target {
    address: SocketAddr,
    host: String,
    path: String,
}

/// Why a URL cannot be a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetError(String);

/// Whether a connection serves more than one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// As long as it lasts, as browsers do.
    Kept,
    /// A new one for each request.
    Each,
}

impl Target {
    /// `http://ADDRESS[:PORT][/PATH]` with an IP address or `localhost`; the `Host` header is `host` when given.
    pub fn new(url: &str, host: Option<&str>) -> Result<Self, TargetError> {
        let bad = |what: &str| TargetError(format!("`{url}`: {what}"));
        let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("only http:// is supported"));
        }
        let name = uri.host().ok_or_else(|| bad("no host"))?;
        let ip = match name.trim_start_matches('[').trim_end_matches(']') {
            "localhost" => "127.0.0.1",
            name => name,
        };
        let ip = ip
            .parse()
            .map_err(|_| bad("give an IP address, and the name as the Host header"))?;
        let authority = uri.authority().map_or(name, |a| a.as_str());
        Ok(Self {
            address: SocketAddr::new(ip, uri.port_u16().unwrap_or(80)),
            host: host.unwrap_or(authority).to_owned(),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }

    fn request(&self, reuse: Reuse) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::get(&self.path).header(HOST, &self.host);
        if reuse == Reuse::Each {
            request = request.header(CONNECTION, "close");
        }
        request.body(Empty::new())
    }
}

impl std::fmt::Display for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TargetError {}

/// Sends one request after the other.
pub(crate) struct Connection {
    target: Target,
    reuse: Reuse,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Connection {
    pub fn new(target: Target, reuse: Reuse) -> Self {
        Self {
            target,
            reuse,
            sender: None,
        }
    }

    /// Asks and reads the whole answer. Any end but a complete answer is an error, and nothing is tried twice, except that a request
    /// which a closing connection gave back unsent is sent on a new one, as every client does.
    pub async fn get(&mut self, timeout: Duration) -> Result<StatusCode, String> {
        match tokio::time::timeout(timeout, self.exchange()).await {
            Ok(result) => result,
            Err(_) => {
                self.sender = None;
                Err(format!("no answer within {} s", timeout.as_secs_f64()))
            }
        }
    }

    async fn exchange(&mut self) -> Result<StatusCode, String> {
        let mut request = self.target.request(self.reuse).map_err(|e| e.to_string())?;
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return self.finish(sender, response).await,
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(format!("send: {}", failed.into_error())),
                },
            }
        }
        let stream = TcpStream::connect(self.target.address)
            .await
            .map_err(|e| format!("connect: {e}"))?;
        stream
            .set_nodelay(true)
            .map_err(|e| format!("connect: {e}"))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| format!("connect: {e}"))?;
        tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| format!("send: {e}"))?;
        self.finish(sender, response).await
    }

    async fn finish(
        &mut self,
        sender: SendRequest<Empty<Bytes>>,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<StatusCode, String> {
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|e| format!("receive: {e}"))?;
        }
        if self.reuse == Reuse::Kept {
            self.sender = Some(sender);
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let t = Target::new("http://127.0.0.1:81/x?y", None).expect("target");
        assert_eq!(
            (
                t.address.to_string().as_str(),
                t.host.as_str(),
                t.path.as_str()
            ),
            ("127.0.0.1:81", "127.0.0.1:81", "/x?y")
        );
        let t = Target::new("http://localhost", Some("a.b")).expect("target");
        assert_eq!(
            (
                t.address.to_string().as_str(),
                t.host.as_str(),
                t.path.as_str()
            ),
            ("127.0.0.1:80", "a.b", "/")
        );
        let t = Target::new("http://[::1]:8080/", None).expect("target");
        assert_eq!(t.address.to_string(), "[::1]:8080");
        for bad in ["https://127.0.0.1/", "127.0.0.1", "http://example.com/", ""] {
            assert!(Target::new(bad, None).is_err(), "{bad}");
        }
    }
}
