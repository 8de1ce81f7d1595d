//! Registries that break off, stall, lie, redirect, refuse and are busy: each is a small one that does just that.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::{Duration, Instant};

use super::super::{RegistryConfig, registry::Http, tar_of};
use super::*;

/// A request as it came.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    headers: BTreeMap<String, String>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where the wanted range begins.
    fn from(&self) -> usize {
        let range = self
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// So many bytes are sent.
    sent: usize,
    /// Afterwards the connection stays open, silently.
    stall: bool,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    Answer {
        status,
        headers: Vec::new(),
        sent: body.len(),
        body,
        stall: false,
    }
}

impl Answer {
    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn only(mut self, sent: usize) -> Self {
        self.sent = sent;
        self
    }

    fn then_stall(mut self) -> Self {
        self.stall = true;
        self
    }

    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", self.status);
        if !self
            .headers
            .iter()
            .any(|(name, _)| name == "Transfer-Encoding")
        {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        stream.write_all(&self.body[..self.sent])?;
        if self.stall {
            // Until the other side has had enough.
            let _ = stream.read(&mut [0]);
        }
        Ok(())
    }
}

/// Serves by `serve`; its threads end with the process.
struct Fake {
    host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    fn new(serve: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, serve) = (asked.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, serve) = (log.clone(), serve.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let lines = BufReader::new(&stream).lines();
                    let head: Vec<String> = lines
                        .map_while(std::io::Result::ok)
                        .take_while(|line| !line.is_empty())
                        .collect();
                    let Some(first) = head.first() else { return };
                    let asked = Asked {
                        path: first.split(' ').nth(1).unwrap_or_default().to_owned(),
                        headers: head[1..]
                            .iter()
                            .filter_map(|line| line.split_once(": "))
                            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                            .collect(),
                    };
                    log.lock().unwrap().push(asked.clone());
                    // A client that has gone away is not this side's trouble.
                    let _ = serve(&asked).write(&mut stream);
                });
            }
        });
        Self { host, asked }
    }

    fn count(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.path.contains(what))
            .count()
    }
}

/// An image of one layer that does not compress.
#[derive(Clone)]
struct Sample {
    layer: Vec<u8>,
    layer_digest: String,
    config: String,
    manifest: String,
}

fn sample() -> Sample {
    let noise: Vec<u8> = (0..1 << 20).map(|_| rand::random::<u8>()).collect();
    let files = BTreeMap::from([("noise".to_owned(), (0o644, noise))]);
    let layer = tar_of(&files).unwrap();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest_of(&layer)
    );
    let mut sample = Sample {
        layer_digest: digest_of(&layer),
        layer,
        config,
        manifest: String::new(),
    };
    sample.manifest = sample.manifest_of(sample.layer.len());
    sample
}

impl Sample {
    fn manifest_of(&self, size: usize) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":{}}},"layers":[{{"digest":"{}","size":{size}}}]}}"#,
            digest_of(self.config.as_bytes()),
            self.config.len(),
            self.layer_digest
        )
    }

    /// What an honest registry says.
    fn serve(&self, asked: &Asked) -> Answer {
        if asked.path.contains("/manifests/") {
            return answer(200, self.manifest.clone());
        }
        if asked.path.ends_with(&self.layer_digest) {
            return self.layer_from(asked);
        }
        if asked.path.ends_with(&digest_of(self.config.as_bytes())) {
            return answer(200, self.config.clone());
        }
        answer(404, "")
    }

    fn layer_from(&self, asked: &Asked) -> Answer {
        match asked.from() {
            0 => answer(200, self.layer.clone()),
            from => answer(206, &self.layer[from..]).header(
                "Content-Range",
                format!("bytes {from}-{}/{}", self.layer.len() - 1, self.layer.len()),
            ),
        }
    }
}

struct Puller {
    root: tempfile::TempDir,
    store: Arc<ImageStore>,
}

impl Puller {
    fn new() -> Self {
        Self::with(RegistryConfig::default())
    }

    fn impatient() -> Self {
        Self::with(RegistryConfig {
            http: Http::patient_for(Duration::from_millis(300)),
            ..RegistryConfig::default()
        })
    }

    fn with(config: RegistryConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(ImageStore::open(root.path(), config).unwrap());
        Self { root, store }
    }

    async fn pull(&self, host: &str) -> Result<String> {
        self.pull_as(host, None, &Platform::host()).await
    }

    async fn pull_as(
        &self,
        host: &str,
        auth: Option<RegistryAuth>,
        platform: &Platform,
    ) -> Result<String> {
        let (progress, mut lines) = mpsc::channel(16);
        let reference = Reference::parse(&format!("{host}/a:1")).unwrap();
        let reading = tokio::spawn(async move { while lines.recv().await.is_some() {} });
        let pulled = self.store.pull(&reference, auth, platform, &progress).await;
        drop(progress);
        reading.await.unwrap();
        pulled
    }

    /// Nothing of an image, a layer or an unfinished one; the last of it goes in the background.
    async fn is_empty(&self) {
        let entries = |name: &str| {
            fs_err::read_dir(self.root.path().join(name))
                .unwrap()
                .count()
        };
        let begun = Instant::now();
        while entries("images") + entries("layers") + entries("tmp") > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "something stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn text(result: Result<String>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn a_connection_that_breaks_or_stalls_is_resumed_where_it_was() {
    for stalls in [false, true] {
        let sample = sample();
        let (serving, times) = (sample.clone(), AtomicUsize::new(0));
        let fake = Fake::new(move |asked| {
            let answer = serving.serve(asked);
            if !asked.path.ends_with(&serving.layer_digest) {
                return answer;
            }
            match times.fetch_add(1, Ordering::SeqCst) {
                0 | 1 if stalls => answer.only(300_000).then_stall(),
                0 | 1 => answer.only(300_000),
                _ => answer,
            }
        });
        let puller = if stalls {
            Puller::impatient()
        } else {
            Puller::new()
        };
        puller.pull(&fake.host).await.unwrap();
        assert!(puller.store.layers().has(&sample.layer_digest));
        let asked = fake.asked.lock().unwrap();
        let froms: Vec<usize> = asked
            .iter()
            .filter(|asked| asked.path.ends_with(&sample.layer_digest))
            .map(Asked::from)
            .collect();
        assert_eq!(froms, [0, 300_000, 600_000], "stalls: {stalls}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_resume_sends_all_again() {
    let sample = sample();
    let (serving, times) = (sample.clone(), AtomicUsize::new(0));
    let fake = Fake::new(move |asked| {
        if !asked.path.ends_with(&serving.layer_digest) {
            return serving.serve(asked);
        }
        let whole = answer(200, serving.layer.clone());
        match times.fetch_add(1, Ordering::SeqCst) {
            0 => whole.only(500_000),
            _ => whole,
        }
    });
    Puller::new().pull(&fake.host).await.unwrap();
    assert_eq!(fake.count(&sample.layer_digest), 2);
}

#[tokio::test]
async fn one_that_always_breaks_off_is_given_up() {
    let sample = sample();
    let serving = sample.clone();
    let fake = Fake::new(move |asked| {
        let answer = serving.serve(asked);
        let layer = asked.path.ends_with(&serving.layer_digest);
        if layer { answer.only(10) } else { answer }
    });
    let puller = Puller::new();
    puller.pull(&fake.host).await.unwrap_err();
    assert_eq!(fake.count(&sample.layer_digest), 6);
    puller.is_empty().await;
}

#[tokio::test]
async fn lies_are_refused_and_leave_nothing() {
    let honest = sample();
    let other = sample();
    let mut cases: Vec<(&str, Sample, &str)> = Vec::new();
    let lie = |change: &dyn Fn(&mut Sample)| {
        let mut sample = honest.clone();
        change(&mut sample);
        sample
    };
    cases.push((
        "other bytes of the same size",
        lie(&|sample| sample.layer = other.layer.clone()),
        "does not match its digest",
    ));
    cases.push((
        "more bytes than the manifest says",
        lie(&|sample| sample.manifest = sample.manifest_of(1000)),
        "sends more bytes than the 1000",
    ));
    cases.push((
        "fewer bytes than the manifest says",
        lie(&|sample| sample.manifest = sample.manifest_of(1 << 30)),
        "sends fewer bytes",
    ));
    cases.push((
        "a diff id of something else",
        lie(&|sample| {
            sample.config = sample
                .config
                .replace(&sample.layer_digest, &digest_of(b"else"));
            sample.manifest = sample.manifest_of(sample.layer.len());
        }),
        "unpacked layer does not match its digest",
    ));
    cases.push((
        "a digest that is a path",
        lie(&|sample| {
            sample.manifest = sample
                .manifest
                .replace(&sample.layer_digest, "sha256:../../x");
        }),
        "is no sha256 digest",
    ));
    cases.push((
        "a manifest cut off",
        lie(&|sample| sample.manifest.truncate(40)),
        "manifest: ",
    ));
    cases.push((
        "a manifest of a layer too few",
        lie(&|sample| {
            let at = sample.manifest.find("\"layers\"").unwrap();
            sample.manifest.replace_range(at.., "\"layers\":[]}");
        }),
        "the config names 1 layers, the manifest 0",
    ));
    cases.push((
        "a manifest over all limits",
        lie(&|sample| sample.manifest = " ".repeat(5 << 20)),
        "over 4 MB",
    ));
    cases.push((
        "a config over all limits",
        lie(&|sample| {
            sample.config = " ".repeat(9 << 20);
            sample.manifest = sample.manifest_of(sample.layer.len());
        }),
        "over 8388608 bytes",
    ));
    for (what, sample, said) in cases {
        let fake = Fake::new(move |asked| sample.serve(asked));
        let puller = Puller::new();
        let error = text(puller.pull(&fake.host).await);
        assert!(error.contains(said), "{what}: {error}");
        puller.is_empty().await;
    }
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_credentials() {
    let sample = sample();
    let serving = sample.clone();
    let elsewhere = Fake::new(move |asked| serving.layer_from(asked));
    let (serving, host) = (sample.clone(), elsewhere.host.clone());
    let fake = Fake::new(move |asked| {
        if asked.header("authorization").is_none() {
            return answer(401, "").header("WWW-Authenticate", "Basic realm=x");
        }
        if asked.path.ends_with(&serving.layer_digest) {
            return answer(307, "").header("Location", format!("http://{host}/somewhere"));
        }
        serving.serve(asked)
    });
    let auth = RegistryAuth {
        username: "me".into(),
        password: "secret".into(),
        ..RegistryAuth::default()
    };
    let puller = Puller::new();
    let host = Platform::host();
    let pulled = puller.pull_as(&fake.host, Some(auth), &host).await;
    pulled.unwrap();
    {
        let asked = elsewhere.asked.lock().unwrap();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].header("authorization"), None);
    }
    let error = text(Puller::new().pull(&fake.host).await);
    assert!(error.contains("no basic auth credentials"), "{error}");
}

#[tokio::test]
async fn a_token_that_runs_out_is_replaced() {
    let sample = sample();
    let (serving, tokens, blobs) = (sample, AtomicUsize::new(0), AtomicUsize::new(0));
    let valid = Arc::new(AtomicUsize::new(0));
    let host = Arc::new(Mutex::new(String::new()));
    let realm = host.clone();
    let fake = Fake::new(move |asked| {
        if asked.path.starts_with("/token") {
            let token = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            valid.store(token, Ordering::SeqCst);
            return answer(200, format!(r#"{{"token":"t{token}"}}"#));
        }
        let wanted = format!("Bearer t{}", valid.load(Ordering::SeqCst));
        if asked.header("authorization") != Some(&wanted) {
            let realm = format!("Bearer realm=\"http://{}/token\"", realm.lock().unwrap());
            return answer(401, "").header("WWW-Authenticate", realm);
        }
        let answer = serving.serve(asked);
        if asked.path.ends_with(&serving.layer_digest) && blobs.fetch_add(1, Ordering::SeqCst) == 0
        {
            // In the middle of the layer it is no longer good.
            valid.store(usize::MAX, Ordering::SeqCst);
            return answer.only(400_000);
        }
        answer
    });
    fake.host.clone_into(&mut host.lock().unwrap());
    Puller::new().pull(&fake.host).await.unwrap();
    assert_eq!(fake.count("/token"), 2);
}

#[tokio::test]
async fn a_busy_registry_is_waited_for_within_bounds() {
    for status in [429, 503] {
        let (serving, times) = (sample(), AtomicUsize::new(0));
        let fake = Fake::new(move |asked| match times.fetch_add(1, Ordering::SeqCst) {
            0 => answer(status, "").header("Retry-After", "1"),
            _ => serving.serve(asked),
        });
        let begun = Instant::now();
        Puller::new().pull(&fake.host).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
    let busy =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit."}]}"#;
    let fake = Fake::new(move |_| answer(429, busy).header("Retry-After", "3600"));
    let begun = Instant::now();
    let error = text(Puller::new().pull(&fake.host).await);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(
        error.contains("toomanyrequests: You have reached your limit."),
        "{error}"
    );
}

#[tokio::test]
async fn a_list_without_our_platform_says_so() {
    let list = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:x","platform":{"os":"plan9","architecture":"mips"}}]}"#;
    let fake = Fake::new(move |_| answer(200, list));
    let arm = Platform {
        os: "linux".into(),
        architecture: "arm64".into(),
        variant: Some("v8".into()),
    };
    let error = text(Puller::new().pull_as(&fake.host, None, &arm).await);
    assert_eq!(
        error,
        "no matching manifest for linux/arm64/v8 in the manifest list entries"
    );
}

#[tokio::test]
async fn two_pulls_share_a_layer_and_a_third_asks_for_little() {
    let sample = sample();
    let serving = sample.clone();
    let fake = Fake::new(move |asked| serving.serve(asked));
    let puller = Puller::new();
    let (one, two) = tokio::join!(puller.pull(&fake.host), puller.pull(&fake.host));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(fake.count(&sample.layer_digest), 1);
    let before = fake.count("");
    puller.pull(&fake.host).await.unwrap();
    assert_eq!(fake.count("") - before, 1, "what is here is not asked for");
}

#[tokio::test]
async fn a_pull_that_is_given_up_stops_and_leaves_nothing() {
    let sample = sample();
    let serving = sample.clone();
    let fake = Fake::new(move |asked| {
        let answer = serving.serve(asked);
        let layer = asked.path.ends_with(&serving.layer_digest);
        if layer {
            answer.only(500_000).then_stall()
        } else {
            answer
        }
    });
    let puller = Puller::new();
    let (store, reference) = (puller.store.clone(), format!("{}/a:1", fake.host));
    let (progress, mut lines) = mpsc::channel(16);
    let pulling = tokio::spawn(async move {
        let reference = Reference::parse(&reference).unwrap();
        store
            .pull(&reference, None, &Platform::host(), &progress)
            .await
    });
    let begun = Instant::now();
    while fake.count(&sample.layer_digest) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pulling.abort();
    while lines.recv().await.is_some() {}
    puller.is_empty().await;
}

/// The store lies on a file system that is smaller than the layer.
#[tokio::test]
async fn a_full_disk_is_said_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        folder.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=600k"),
    );
    mounted.expect("tests of the engine run as root");
    let store = ImageStore::open(folder.path(), RegistryConfig::default());
    let serving = sample();
    let fake = Fake::new(move |asked| serving.serve(asked));
    let reference = Reference::parse(&format!("{}/a:1", fake.host)).unwrap();
    let (progress, _lines) = mpsc::channel(64);
    let pulled = Arc::new(store.unwrap())
        .pull(&reference, None, &Platform::host(), &progress)
        .await;
    let left = fs_err::read_dir(folder.path().join("tmp")).unwrap().count();
    rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = text(pulled);
    assert!(
        error.contains("failed to register layer") && error.contains("no space left on device"),
        "{error}"
    );
    assert_eq!(left, 0);
}
