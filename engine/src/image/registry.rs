//! A registry over HTTP: the pull side of the OCI distribution specification, with Docker's token and basic login.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderValue, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use serde::Deserialize;
use windlass_engine_api::RegistryAuth;

use super::outage::describe;
use super::{Error, Reference, RegistryConfig, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that sends nothing for so long has stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 5;
/// What a registry that is busy may make us wait for, in all.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Of a manifest or a token, as other engines have it too.
const MAX_ANSWER: usize = 4 << 20;
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A manifest as it came.
#[derive(Clone, Debug)]
pub struct RawManifest {
    /// The bytes that the digest is of.
    pub bytes: Vec<u8>,
    /// The registry's own word on the digest, if it gave one.
    pub digest: Option<String>,
}

/// The client of an engine, made when it is first needed.
#[derive(Clone, Debug)]
pub struct Http {
    client: Arc<OnceLock<reqwest::Client>>,
    stall: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self::patient_for(STALL_TIMEOUT)
    }
}

impl Http {
    /// For so long an answer may stand still.
    pub fn patient_for(stall: Duration) -> Self {
        Self {
            client: Arc::default(),
            stall,
        }
    }

    fn client(&self) -> Result<reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = http_client_for(self.stall)?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

/// The body of a blob.
pub struct Blob {
    response: Response,
    /// Bytes to leave out, where a registry sends all when asked for the rest.
    skip: u64,
}

impl Blob {
    /// The answer itself, for a blob that was asked for from its beginning.
    pub(super) fn into_response(self) -> Response {
        self.response
    }

    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> reqwest::Result<Option<Bytes>> {
        while let Some(mut chunk) = self.response.chunk().await? {
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            let rest = chunk.split_off(skipped as usize);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
        Ok(None)
    }
}

/// One repository at one registry.
pub struct Registry {
    http: reqwest::Client,
    endpoints: Vec<String>,
    reference: Reference,
    /// For the last of the endpoints, which is the registry itself; nothing of it goes to a mirror.
    auth: Option<RegistryAuth>,
    /// What to send as `Authorization`, by endpoint.
    logins: Mutex<HashMap<String, HeaderValue>>,
}

impl Registry {
    /// A client for the repository of `reference`.
    pub fn new(
        config: &RegistryConfig,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Self> {
        let http = config.http.client()?;
        let auth = auth.filter(|auth| !auth.is_anonymous());
        let endpoints = config.endpoints(&reference.registry);
        Ok(Self {
            http,
            endpoints,
            reference: reference.clone(),
            auth,
            logins: Mutex::default(),
        })
    }

    /// Whether a registry takes the credentials; `serveraddress` empty means Docker Hub.
    pub async fn log_in_at(config: &RegistryConfig, auth: &RegistryAuth) -> Result<()> {
        let address = auth
            .serveraddress
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = address.split('/').next().unwrap_or_default();
        let registry = match host {
            "" | "index.docker.io" | "docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let reference = Reference {
            registry: registry.to_owned(),
            repository: String::new(),
            tag: None,
            digest: None,
        };
        let this = Self::new(config, &reference, Some(auth.clone()))?;
        // A mirror's word is not the registry's own: that is the last one.
        let endpoint = this.endpoints.last().cloned().unwrap_or_default();
        let url = format!("{endpoint}/v2/");
        let response = this.send(&endpoint, |http| http.get(&url)).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Denied(format!(
                "login attempt to {url} failed with status: {}",
                response.status()
            ))),
            status => Err(failed(&url, &format!("the registry answered {status}"))),
        }
    }

    /// Fetches a manifest by tag or digest, from the first endpoint that has it.
    pub async fn manifest(&self, target: &str) -> Result<RawManifest> {
        let mut last = None;
        for endpoint in &self.endpoints {
            match self.manifest_from(endpoint, target).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => {
                    tracing::debug!(endpoint, %error, "no manifest from this endpoint");
                    // What the registry itself says outweighs a mirror's not having it.
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::ManifestUnknown(self.reference.to_string())))
    }

    /// Opens a blob at byte `from`; the body is read by the caller.
    pub async fn blob(&self, digest: &str, from: u64) -> Result<Blob> {
        let mut last = None;
        for endpoint in &self.endpoints {
            match self.blob_from(endpoint, digest, from).await {
                Ok(blob) => return Ok(blob),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::ManifestUnknown(self.reference.to_string())))
    }

    async fn blob_from(&self, endpoint: &str, digest: &str, from: u64) -> Result<Blob> {
        let url = format!("{endpoint}/v2/{}/blobs/{digest}", self.reference.repository);
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self
            .send(endpoint, |http| {
                let request = http.request(Method::GET, &url);
                range
                    .iter()
                    .fold(request, |request, range| request.header(RANGE, range))
            })
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(failed(&url, "unknown blob"));
        }
        let response = self.check(&url, response).await?;
        let mut skip = from;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let begins = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|range| range.to_str().ok()?.strip_prefix("bytes "))
                .is_none_or(|range| range.starts_with(&format!("{from}-")));
            if !begins {
                return Err(failed(&url, "the registry resumes at another place"));
            }
            skip = 0;
        }
        Ok(Blob { response, skip })
    }

    async fn manifest_from(&self, endpoint: &str, target: &str) -> Result<RawManifest> {
        let url = format!(
            "{endpoint}/v2/{}/manifests/{target}",
            self.reference.repository
        );
        let response = self
            .send(endpoint, |http| http.get(&url).header(ACCEPT, ACCEPTED))
            .await?;
        let response = self.check(&url, response).await?;
        let digest = response
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok());
        let digest = digest.map(str::to_owned);
        let bytes = small(&url, response).await?;
        Ok(RawManifest { bytes, digest })
    }

    pub(super) async fn check(&self, url: &str, response: Response) -> Result<Response> {
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED if self.auth.is_none() && wants_basic(&response) => {
                Err(failed(url, "no basic auth credentials"))
            }
            StatusCode::NOT_FOUND => Err(Error::ManifestUnknown(self.reference.to_string())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.auth.is_some() => {
                Err(Error::Unauthorized(self.reference.registry.clone()))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Error::AccessDenied(self.reference.familiar_name()))
            }
            status => {
                let said = small(url, response).await.ok();
                let said = said.as_deref().and_then(complaint);
                let said = match (said, status) {
                    (Some(said), _) => said,
                    (None, StatusCode::TOO_MANY_REQUESTS) => {
                        "toomanyrequests: the registry limits this host; try again later or log in"
                            .to_owned()
                    }
                    (None, status) => format!("received unexpected HTTP status: {status}"),
                };
                Err(failed(url, &said))
            }
        }
    }

    /// Sends what `build` makes, logs in when asked to, and tries again what may pass.
    pub(super) async fn send(
        &self,
        endpoint: &str,
        build: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response> {
        let mut challenged = false;
        let mut attempt = 1;
        let mut waited = Duration::ZERO;
        loop {
            let outcome = self.execute(endpoint, build(&self.http)).await;
            match outcome {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !challenged => {
                    challenged = true;
                    match self.log_in(endpoint, &response).await? {
                        Some(login) => drop(self.logins().insert(endpoint.to_owned(), login)),
                        None => return Ok(response),
                    }
                }
                Ok(response) if attempt < ATTEMPTS && may_pass(response.status()) => {
                    let delay = retry_delay(&response, attempt);
                    if waited + delay > LONGEST_WAIT {
                        return Ok(response);
                    }
                    tokio::time::sleep(delay).await;
                    (attempt, waited) = (attempt + 1, waited + delay);
                }
                Ok(response) => return Ok(response),
                Err(error) if attempt < ATTEMPTS && !error.is_connect() && !error.is_builder() => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(error) => {
                    // Docker asks for the root of the interface first.
                    let url = match error.url() {
                        Some(url) if !error.is_connect() => url.to_string(),
                        _ => format!("{endpoint}/v2/"),
                    };
                    return Err(failed(&url, &describe(&error)));
                }
            }
        }
    }

    /// Mirrors, then the registry itself.
    pub(super) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The registry itself, which is not a mirror.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoints.last().map_or("", String::as_str)
    }

    /// `library/httpd`.
    pub(super) fn repository(&self) -> &str {
        &self.reference.repository
    }

    /// `docker.io/library/httpd`.
    pub(super) fn name(&self) -> String {
        self.reference.full_name()
    }

    /// The client, for requests that cannot be sent twice.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Whether there is something to log in with.
    pub(super) fn has_login(&self) -> bool {
        self.auth.is_some()
    }

    /// Sends it once, with the login that this endpoint has taken before; an address elsewhere, which a registry may name for an upload, is not
    /// told of it.
    pub(super) async fn execute(
        &self,
        endpoint: &str,
        request: RequestBuilder,
    ) -> reqwest::Result<Response> {
        let mut request = request.build()?;
        let login = self.logins().get(endpoint).cloned();
        if let Some(login) = login.filter(|_| is_at(request.url(), endpoint)) {
            request.headers_mut().insert(AUTHORIZATION, login);
        }
        self.http.execute(request).await
    }

    /// The answer to a challenge; `None` where we have nothing to answer with.
    async fn log_in(&self, endpoint: &str, response: &Response) -> Result<Option<HeaderValue>> {
        let auth = self
            .auth_at(endpoint)
            .filter(|_| is_at(response.url(), endpoint));
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> = challenges
            .iter()
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .collect();
        if let Some(bearer) = challenges
            .iter()
            .find(|challenge| challenge.scheme == "bearer")
        {
            return self.token(bearer, response.url(), auth).await.map(Some);
        }
        Ok(challenges
            .iter()
            .any(|challenge| challenge.scheme == "basic")
            .then(|| auth.and_then(basic))
            .flatten())
    }

    fn auth_at(&self, endpoint: &str) -> Option<&RegistryAuth> {
        let own = self.endpoints.last().is_some_and(|own| own == endpoint);
        self.auth.as_ref().filter(|_| own)
    }

    async fn token(
        &self,
        challenge: &Challenge,
        asked: &reqwest::Url,
        auth: Option<&RegistryAuth>,
    ) -> Result<HeaderValue> {
        if let Some(token) = auth
            .map(|auth| &auth.registrytoken)
            .filter(|token| !token.is_empty())
        {
            return secret(&format!("Bearer {token}"))
                .ok_or_else(|| Error::Unauthorized(self.reference.registry.clone()));
        }
        let realm = challenge
            .parameters
            .get("realm")
            .cloned()
            .unwrap_or_default();
        let mut url = reqwest::Url::parse(&realm)
            .map_err(|_| failed(&realm, "the registry's challenge names no valid realm"))?;
        if asked.scheme() == "https" && url.scheme() != "https" {
            return Err(failed(
                &realm,
                "the registry wants the login sent to an address without TLS",
            ));
        }
        let scope = format!("repository:{}:pull", self.reference.repository);
        let scope = challenge.parameters.get("scope").cloned().unwrap_or(scope);
        if let Some(service) = challenge.parameters.get("service") {
            url.query_pairs_mut().append_pair("service", service);
        }
        if !self.reference.repository.is_empty() {
            url.query_pairs_mut().append_pair("scope", &scope);
        }
        let request = auth
            .and_then(basic)
            .into_iter()
            .fold(self.http.get(url), |request, login| {
                request.header(AUTHORIZATION, login)
            });
        let response = request
            .send()
            .await
            .map_err(|error| failed(&realm, &describe(&error)))?;
        let response = self.accepted(&realm, response).await?;
        let token = small(&realm, response).await?;
        let token: Token = serde_json::from_slice(&token)
            .map_err(|error| failed(&realm, &format!("the token is not usable: {error}")))?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        if token.is_empty() {
            return Err(Error::Refused(
                "authorization server did not include a token in the response".into(),
            ));
        }
        secret(&format!("Bearer {token}")).ok_or_else(|| failed(&realm, "the token is not usable"))
    }

    fn logins(&self) -> std::sync::MutexGuard<'_, HashMap<String, HeaderValue>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// One `WWW-Authenticate` challenge.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: HashMap<String, String>,
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parameters = HashMap::new();
        let mut rest = rest.trim_start();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            parameters.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            parameters,
        })
    }
}

fn wants_basic(response: &Response) -> bool {
    let challenges = response.headers().get_all(WWW_AUTHENTICATE);
    let mut challenges = challenges
        .iter()
        .filter_map(|value| Challenge::parse(value.to_str().ok()?));
    challenges.any(|challenge| challenge.scheme == "basic")
}

/// Whether an address is of the same scheme, host and port.
fn is_at(address: &reqwest::Url, endpoint: &str) -> bool {
    reqwest::Url::parse(endpoint).is_ok_and(|own| own.origin() == address.origin())
}

/// reqwest takes the credentials off a request that is redirected to another host or port.
pub(crate) fn http_client() -> Result<reqwest::Client> {
    http_client_for(STALL_TIMEOUT)
}

fn http_client_for(stall: Duration) -> Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    // The host's own authorities count too: a private registry's is installed there.
    for bundle in [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
    ] {
        use rustls::pki_types::pem::PemObject as _;
        let Ok(certificates) = rustls::pki_types::CertificateDer::pem_file_iter(bundle) else {
            continue;
        };
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Unsupported(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("windlassd/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(stall)
        .build()
        .map_err(|error| Error::Unsupported(format!("HTTP client: {}", describe(&error))))
}

/// Opens what lies at any address, for an import.
pub(crate) async fn fetch(address: &str) -> Result<Response> {
    let response = http_client()?.get(address).send().await;
    let response = response.map_err(|error| failed(address, &describe(&error)))?;
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(Error::Unsupported(format!(
            "failed to GET {address} with status {status}: the server has no such archive"
        ))),
    }
}

/// The whole of an answer that has no reason to be long.
pub(super) async fn small(url: &str, mut response: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failed(url, &describe(&error)))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(failed(url, "the answer is over 4 MB"));
        }
    }
    Ok(bytes)
}

/// What a registry says in its own words: `{"errors": [{"code": …, "message": …}]}`.
fn complaint(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Complaints {
        errors: Vec<Complaint>,
    }
    #[derive(Deserialize)]
    struct Complaint {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Complaints { errors } = serde_json::from_slice(body).ok()?;
    let first = errors.first()?;
    let code = first.code.to_ascii_lowercase().replace('_', "");
    Some(format!("{code}: {}", first.message))
}

fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn retry_delay(response: &Response, attempt: u32) -> Duration {
    let header = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    header.map_or_else(|| backoff(attempt), Duration::from_secs)
}

/// 0.25 s, 0.5 s, 1 s, …
pub(super) fn backoff(attempt: u32) -> Duration {
    // Tests of what is tried again are many.
    let unit = if cfg!(test) { 5 } else { 125 };
    Duration::from_millis(unit) * 2_u32.saturating_pow(attempt.min(8))
}

fn basic(auth: &RegistryAuth) -> Option<HeaderValue> {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD
        .encode(format!("{}:{}", auth.username, auth.password));
    secret(&format!("Basic {pair}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn failed(url: &str, reason: &str) -> Error {
    Error::Registry {
        url: url.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Wants a login for everything but a token, and gives back what came as `Authorization`. Its thread ends with the process.
    fn wants_login(scheme: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (realm, came) = (format!("{base}/token"), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream)
                    .lines()
                    .map_while(std::io::Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let logins = head.iter().filter_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    let is_login = name.eq_ignore_ascii_case("authorization");
                    is_login.then(|| value.to_owned())
                });
                came.lock().unwrap().extend(logins);
                let answer = if head[0].starts_with("GET /token") {
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{\"token\":\"t\"}".to_owned()
                } else {
                    format!(
                        "HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 0\r\nWWW-Authenticate: {scheme} realm=\"{realm}\"\r\n\r\n"
                    )
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (base, seen)
    }

    #[test]
    fn a_login_is_for_one_scheme_host_and_port() {
        let at = |address: &str| is_at(&reqwest::Url::parse(address).unwrap(), "https://r.example");
        assert!(at("https://r.example/v2/") && at("https://r.example:443/x?y"));
        for other in [
            "http://r.example/v2/",
            "https://r.example:5000/v2/",
            "https://r.example.evil/v2/",
            "https://evil/r.example",
        ] {
            assert!(!at(other), "{other}");
        }
    }

    #[tokio::test]
    async fn a_mirror_gets_no_credentials() {
        let login = "Basic bWU6c2VjcmV0";
        for (scheme, token, at_mirror, at_own) in [
            ("Basic", "", vec![], vec![login]),
            ("Bearer", "", vec!["Bearer t"], vec![login, "Bearer t"]),
            ("Bearer", "mine", vec!["Bearer t"], vec!["Bearer mine"]),
        ] {
            let ((mirror, came), (own, came_own)) = (wants_login(scheme), wants_login(scheme));
            let registry = Registry {
                http: http_client().unwrap(),
                endpoints: vec![mirror, own],
                reference: Reference::parse("httpd:2.4").unwrap(),
                auth: Some(RegistryAuth {
                    username: "me".to_owned(),
                    password: "secret".to_owned(),
                    registrytoken: token.to_owned(),
                    ..RegistryAuth::default()
                }),
                logins: Mutex::default(),
            };
            let refused = registry.manifest("2.4").await.unwrap_err();
            assert!(matches!(refused, Error::Unauthorized(_)), "{refused}");
            assert_eq!(*came.lock().unwrap(), at_mirror);
            assert_eq!(*came_own.lock().unwrap(), at_own);
        }
    }

    #[test]
    fn challenges_are_read() {
        let challenge =
            Challenge::parse(r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#).unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameters["realm"], "https://auth.example/token");
        assert_eq!(challenge.parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(
            Challenge::parse("Basic realm=x").unwrap().parameters["realm"],
            "x"
        );
        assert_eq!(Challenge::parse("Negotiate").unwrap().scheme, "negotiate");
        assert_eq!(Challenge::parse(r#"Bearer realm="unterminated"#), None);
    }
}
