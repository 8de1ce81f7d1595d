//! A stand-in for the engine: a script that serves `/_ping` and `/version` on its socket, and stand-in binaries made of it.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use windlass_install::Binaries;

/// An engine that works.
pub fn working(version: &str) -> String {
    let python = python();
    format!(
        r#"#!{python}
import sys, os, socket, threading, socketserver, http.server
if sys.argv[1:] == ["--version"]:
    print("windlassd {version}")
    sys.exit(0)
if sys.argv[1:2] == ["dial"]:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[2])
    def forth():
        while data := os.read(0, 65536):
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    threading.Thread(target=forth, daemon=True).start()
    while data := peer.recv(65536):
        os.write(1, data)
    sys.exit(0)
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b'{{"Version": "{version}"}}' if self.path.endswith("/version") else b"OK"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "client"
    def log_message(self, *a):
        pass
class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
path = options["--socket"]
os.makedirs(os.path.dirname(path), exist_ok=True)
if os.path.exists(path):
    os.unlink(path)
print("started {version}", file=sys.stderr, flush=True)
os.umask(0o077)
Server(path, Handler).serve_forever()
"#
    )
}

/// The program itself: what is first on the path may be a script that needs half a system.
fn python() -> String {
    let print = "import os, sys; print(os.path.realpath(sys.executable))";
    let output = std::process::Command::new("python3")
        .args(["-c", print])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An engine that ends with a complaint.
pub fn broken() -> String {
    "#!/bin/sh\necho 'cannot open /var/lib/windlass: the moon is full' >&2\nexit 1\n".to_owned()
}

/// A folder of binaries with this engine, grown to at least `size` bytes that do not compress.
pub fn binaries(folder: &Path, program: &str, size: usize) -> Binaries {
    let mut program = program.to_owned();
    let mut state = 1u64;
    while program.len() < size {
        let mut line = String::from("\n# ");
        for _ in 0..8 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            line.push_str(&format!("{:08x}", state >> 32));
        }
        program.push_str(&line);
    }
    program.push('\n');
    for arch in ["x86_64", "aarch64"] {
        fs_err::create_dir_all(folder.join(arch)).unwrap();
        let file = fs_err::File::create(folder.join(arch).join("windlassd.gz")).unwrap();
        let mut gz = GzEncoder::new(file, Compression::default());
        gz.write_all(program.as_bytes()).unwrap();
        gz.finish().unwrap();
    }
    Binaries::new(folder)
}
