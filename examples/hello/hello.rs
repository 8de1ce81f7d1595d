//! A small web server to try windlass with: `/` says hello, `/work?ms=50` uses the processor, `/health` is well.
//!
//! One file, the standard library only, so that it can be built without a network. Deliberately absent: TLS, files, anything
//! that a real server would need.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const ADDRESS: &str = "0.0.0.0:8080";
/// Idle connections hold a thread each, with a small stack.
const MOST_CONNECTIONS: usize = 512;
const STACK_BYTES: usize = 64 * 1024;
/// Longer than a proxy in front of it keeps an idle connection.
const IDLE: Duration = Duration::from_secs(75);
const LONGEST_HEAD_BYTES: u64 = 16 * 1024;
const LONGEST_BODY_BYTES: u64 = 1024 * 1024;
const LONGEST_WORK: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    system::end_when_asked();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let host: Arc<str> = host.trim().into();
    let listener = TcpListener::bind(ADDRESS)?;
    println!("{host} listens on {ADDRESS}");
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        // A connection that failed before it was accepted is none of ours.
        let Ok(stream) = stream else { continue };
        let place = Place::take(&connections);
        let host = Arc::clone(&host);
        let serve = move || {
            // When the client goes away there is nobody to tell.
            let _ = serve(stream, &host, place.is_within());
            drop(place);
        };
        // Without a thread the connection is closed, which the client sees.
        let _ = thread::Builder::new().stack_size(STACK_BYTES).spawn(serve);
    }
    Ok(())
}

/// A place among the connections, given back when it is dropped.
struct Place(Arc<AtomicUsize>, usize);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        let before = connections.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(connections), before)
    }

    fn is_within(&self) -> bool {
        self.1 < MOST_CONNECTIONS
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, host: &str, within: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(request) = Request::read(&mut reader)? {
        let (status, body) = match within {
            true => answer(&request, host),
            false => (
                "503 Service Unavailable",
                "too many connections\n".to_owned(),
            ),
        };
        let keep = within && request.keep_alive;
        write_response(&mut stream, &request, status, &body, keep)?;
        if !keep {
            break;
        }
    }
    Ok(())
}

struct Request {
    method: String,
    path: String,
    query: String,
    keep_alive: bool,
}

impl Request {
    /// `None` when the client has closed the connection between two requests.
    fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
        let mut head = reader.take(LONGEST_HEAD_BYTES);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(target), Some(version)) = (method, target, version) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            keep_alive: version == "HTTP/1.1",
        };
        let body_bytes = request.read_headers(&mut head)?;
        io::copy(&mut reader.take(body_bytes), &mut io::sink())?;
        Ok(Some(request))
    }

    /// Gives the length of the body.
    fn read_headers(&mut self, head: &mut impl BufRead) -> io::Result<u64> {
        let mut body_bytes = 0;
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            let Some((name, value)) = line.split_once(':') else {
                return match line.is_empty() {
                    true => Ok(body_bytes),
                    false => Err(io::ErrorKind::InvalidData.into()),
                };
            };
            match (name, value.trim()) {
                ("connection", "close") => self.keep_alive = false,
                ("connection", "keep-alive") => self.keep_alive = true,
                ("content-length", length) => body_bytes = length.parse().unwrap_or(u64::MAX),
                ("transfer-encoding", _) => body_bytes = u64::MAX,
                _ => {}
            }
            if body_bytes > LONGEST_BODY_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

fn answer(request: &Request, host: &str) -> (&'static str, String) {
    if !matches!(request.method.as_str(), "GET" | "HEAD" | "POST") {
        return (
            "405 Method Not Allowed",
            "GET, HEAD and POST only\n".to_owned(),
        );
    }
    match request.path.as_str() {
        "/" => ("200 OK", format!("hello from {host}\n")),
        "/health" => ("200 OK", "well\n".to_owned()),
        "/work" => {
            let time = Duration::from_millis(milliseconds(&request.query)).min(LONGEST_WORK);
            let rounds = system::use_processor(time);
            (
                "200 OK",
                format!(
                    "{host} worked for {} ms, {rounds} rounds\n",
                    time.as_millis()
                ),
            )
        }
        _ => (
            "404 Not Found",
            "there are /, /work?ms=50 and /health\n".to_owned(),
        ),
    }
}

/// The `ms=` of a query; 50 without it.
fn milliseconds(query: &str) -> u64 {
    let given = query.split('&').find_map(|part| part.strip_prefix("ms="));
    given.and_then(|text| text.parse().ok()).unwrap_or(50)
}

fn write_response(
    stream: &mut TcpStream,
    request: &Request,
    status: &str,
    body: &str,
    keep: bool,
) -> io::Result<()> {
    let connection = if keep { "keep-alive" } else { "close" };
    let length = body.len();
    let body = if request.method == "HEAD" { "" } else { body };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes())
}

/// The three functions of the C library that the standard library has no name for.
mod system {
    use std::hint::black_box;
    use std::time::Duration;

    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;

    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }

    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        fn _exit(code: i32) -> !;
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }

    extern "C" fn end(_: i32) {
        // SAFETY: `_exit` may be called from a signal handler; it touches no memory of ours.
        unsafe { _exit(0) }
    }

    /// The first process of a container ignores signals that it does not handle.
    pub fn end_when_asked() {
        for number in [SIGINT, SIGTERM] {
            // SAFETY: `end` has the type that `signal` asks for and does only what a handler may do.
            unsafe { signal(number, end) };
        }
    }

    /// Processor time of this thread, which waiting for a busy processor does not lengthen.
    fn thread_time() -> Duration {
        let mut time = Timespec {
            seconds: 0,
            nanoseconds: 0,
        };
        // SAFETY: `time` is a valid timespec of a 64-bit Linux, and outlives the call.
        unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
        Duration::new(time.seconds as u64, time.nanoseconds as u32)
    }

    /// Computes for so long; gives the number of rounds.
    pub fn use_processor(time: Duration) -> u64 {
        let end = thread_time() + time;
        let mut rounds = 0;
        let mut state = 1u64;
        while thread_time() < end {
            for _ in 0..10_000 {
                state = black_box(
                    state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1),
                );
            }
            rounds += 1;
        }
        rounds
    }
}
