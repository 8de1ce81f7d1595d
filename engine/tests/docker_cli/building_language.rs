//! The Dockerfile's language: what instructions do, and how mistakes are told.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use crate::bench::{Bench, text, with_engine};

/// A folder with files.
pub fn context(b: &Bench, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = b.path(name);
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// Builds from stdin; all that was said.
pub fn say(b: &Bench, arguments: &[&str], dockerfile: &str) -> (i32, String) {
    let output = b.feed(
        &[&["build"], arguments, &["-"]].concat(),
        dockerfile.as_bytes(),
    );
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap_or(-1), said)
}

const FILES: &str = r#"# escape=\
ARG FROM=box
FROM ${FROM:-nothing}
ENV FILE=app.tar.gz DEEP="a b"
ENV COPY=$DEEP NAME=${FILE%%.*} KIND=${FILE##*.} OLD=${FILE/.tar/}
ARG user=1000
WORKDIR /w/$NAME
# Comments and empty lines in between do not end a line.
RUN echo "$COPY $NAME $KIND $OLD" \

    # like this one
    > vars
COPY --chown=sailor:5 --chmod=u=rwX,go=r a.sh /bin/a
COPY --chown=$user ["one/*", "two words", "names/"]
COPY --parents one/./deep/*.txt /kept/
COPY --exclude=*.md --exclude=deep one /part
COPY <<plain <<-"quoted" /docs/
$NAME
plain
	$NAME
	quoted
RUN <<EOT
echo first > /docs/script
echo second >> /docs/script
EOT
RUN cat <<-A - > /docs/joined
	inner
	A
RUN <<EOT
#!/bin/env sh
echo $0 > /docs/interpreter
EOT
ADD some.tar /un/packed/
ADD f.tar.bz2 /un/bz2/
ADD f.tar.xz /un/xz/
COPY some.tar /not/
"#;

#[test]
fn files_and_variables() {
    with_engine(|b| {
        let folder = context(
            b,
            "context",
            &[
                ("Dockerfile", FILES),
                ("a.sh", "#!/bin/sh\n"),
                ("one/x", "x"),
                ("one/y.md", "y"),
                ("one/deep/z.txt", "z"),
                ("one/deep/no.log", "no"),
                ("two words", "2"),
                ("secret.key", "k"),
                ("kept.key", "k"),
                (".dockerignore", "**/*.log\n*.key\n!kept.key\n"),
            ],
        );
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        archive
            .append_data(&mut header, "dir/in", &b"i"[..])
            .unwrap();
        std::fs::write(folder.join("some.tar"), archive.into_inner().unwrap()).unwrap();
        std::fs::write(folder.join("f.tar.bz2"), from_hex(BZIP2)).unwrap();
        std::fs::write(folder.join("f.tar.xz"), from_hex(XZ)).unwrap();
        b.ok(&["build", "-t", "app", folder.to_str().unwrap()]);
        let see = |command: &str| b.ok(&["run", "--rm", "app", "sh", "-c", command]);
        assert_eq!(see("pwd; cat vars"), "/w/app\na b app gz app.gz");
        assert_eq!(see("stat -c '%a %u:%g' /bin/a"), "644 1000:5");
        assert_eq!(
            see("ls names; stat -c %u:%g names names/x"),
            "two words\nx\ny.md\nz.txt\n1000:1000\n1000:1000"
        );
        assert_eq!(
            see("cat /kept/deep/z.txt; ls /kept /part"),
            "z/kept:\ndeep\n\n/part:\nx"
        );
        assert_eq!(
            see("cd /docs; cat plain quoted script joined interpreter"),
            "app\n$NAME\nfirst\nsecond\ninner\n/dev/pipes/EOT"
        );
        assert_eq!(
            see("stat -c '%a %u:%g %Y' /un/packed/dir/in; ls /not /un/packed"),
            "640 7:8 1000\n/not:\nsome.tar\n\n/un/packed:\ndir"
        );
        assert_eq!(see("cat /un/bz2/f /un/xz/f"), "f\nf");
        assert_eq!(see("ls -a /dev/pipes 2>/dev/null || echo none"), "none");
        let (_, said) = say(b, &["-q"], "FROM app\nRUN test ! -e /secret.key");
        assert!(
            said.starts_with("sha256:") || said.contains("\nsha256:"),
            "{said}"
        );
    });
}

#[test]
fn mistakes() {
    with_engine(|b| {
        for (dockerfile, wanted) in [
            (
                "FROM box\nFROB x\n",
                "dockerfile parse error line 2: unknown instruction: FROB",
            ),
            (
                "FROM box\nCOPY nope /\n",
                "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
            ),
            (
                "FROM box\nCOPY ../x /\n",
                "forbidden path outside the build context: ../x",
            ),
            ("FROM box\nCOPY n* /\n", "no source files were specified"),
            (
                "FROM box\nCOPY Dockerfile Dockerfile x\n",
                "the destination must be a directory and end with a /",
            ),
            ("FROM box\nCOPY . /bin/sh\n", "cannot copy to non-directory"),
            (
                "FROM box\nCOPY --from=3 a b\n",
                "\ninvalid from flag value 3: index out of bounds",
            ),
            (
                "FROM box\nCOPY ${X:?bad} /\n",
                "\nfailed to process \"${X:?bad}\": X: bad",
            ),
            (
                "FROM box\nCOPY --chown=who Dockerfile /\n",
                "no such user: who",
            ),
            (
                "FROM box\nCOPY --chmod=9 Dockerfile /\n",
                "invalid chmod parameter",
            ),
            (
                "FROM scratch\n",
                "No image was generated. Is your Dockerfile empty?",
            ),
            ("RUN x\n", "daemon: no build stage in current context"),
            ("# nothing\n", "file with no instructions"),
            ("FROM box\nENV A\n", "ENV must have two arguments"),
            ("FROM box\nRUN [\"nosuch\"]\n", "executable file not found"),
            (
                "FROM box\nADD https://a.invalid/b.git /\n",
                "does not clone repositories",
            ),
            ("FROM box\nRUN --security=insecure x\n", "confined"),
        ] {
            let (code, said) = say(b, &[], dockerfile);
            assert_eq!(code, 1, "{dockerfile}: {said}");
            assert!(said.contains(wanted), "{dockerfile}: {said}");
        }
        let (code, said) = say(
            b,
            &[],
            "FROM box\nRUN echo before\nRUN echo no >&2; exit 9\n",
        );
        assert_eq!(code, 9);
        assert!(
            said.contains(
                "The command '/bin/sh -c echo no >&2; exit 9' returned a non-zero code: 9"
            ),
            "{said}"
        );
        let (_, again) = say(b, &[], "FROM box\nRUN echo before\nRUN true\n");
        assert!(
            again.contains("Using cache"),
            "the steps before a failure are kept: {again}"
        );
        b.until("nothing is left", |b| {
            std::fs::read_dir(b.path("root/build")).unwrap().count() == 0
        });
        let (_, squashed) = b.fails(&["build", "--squash", "."]);
        assert!(squashed.contains("experimental"), "{squashed}");
    });
}

#[test]
fn triggers_labels_and_arguments() {
    with_engine(|b| {
        let (code, said) = say(
            b,
            &["-t", "base"],
            "FROM box\nONBUILD ARG V=1\nONBUILD RUN echo $V > /v\n",
        );
        assert_eq!(code, 0, "{said}");
        let (_, said) = say(
            b,
            &[
                "-t",
                "app",
                "-t",
                "app:two",
                "--label",
                "a=b c",
                "--build-arg",
                "V=2",
                "--build-arg",
                "W=3",
                "--build-arg",
                "no_proxy=here",
            ],
            "FROM base\nRUN echo $no_proxy >> /v\nARG TARGETARCH\nARG BUILDPLATFORM\nRUN test -n $TARGETARCH && echo $BUILDPLATFORM >> /v\n",
        );
        for wanted in [
            "# Executing 2 build triggers",
            "[Warning] One or more build-args [W] were not consumed",
            "Step 6/6 : LABEL a=b c",
            "Successfully tagged app:two",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        assert!(
            b.ok(&["run", "--rm", "app", "cat", "/v"])
                .starts_with("2\nhere\nlinux/")
        );
        assert_eq!(
            b.inspect("app", "{{.Config.Labels.a}} {{len .Config.OnBuild}}"),
            "b c 0"
        );
        assert!(!b.ok(&["history", "--no-trunc", "app"]).contains("here"));
    });
}

/// `f`, in a tar by bzip2.
const BZIP2: &str = "425a683931415926535930d5ff410000707b84c9900040400057800000e1009e0000008008200054348340000d0494ca68d1a7a80d325b1e6cee84149a48444a284575991249030559ecc36492cb082ed2c5147972c622931d1d7711a110c8880f8bb9229c2848186affa080";
/// And by xz.
const XZ: &str = "fd377a585a0000016922de360200210116000000742fe5a3e027ff005b5d00330033501868898301dce26e21054a7037c98c71d2f00c5bf9bf75c530e13b9ca25ad9fc4851d991260a9c57d5c9a970759e677858e1777365c6a63168f54749dd6711f3f4f633a50d307bd3ad7623f294151865c9d8f6ba3f1100000053daf1440001738050000000821408343e300d8b020000000001595a";

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

/// Answers every request with the same thing.
fn serve(answer: &'static str) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

#[test]
fn files_and_contexts_from_elsewhere() {
    with_engine(|b| {
        let port = serve(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 23\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\nFROM box\nENV WHO=remote\n",
        );
        let url = format!("http://127.0.0.1:{port}/some/name.txt");
        let (code, said) = say(
            b,
            &["-t", "app"],
            &format!("FROM box\nADD {url} /d/\nADD --chmod=644 {url} /e\n"),
        );
        assert_eq!(code, 0, "{said}");
        let seen = b.ok(&[
            "run",
            "--rm",
            "app",
            "stat",
            "-c",
            "%n %a %u %Y",
            "/d/name.txt",
            "/e",
        ]);
        assert_eq!(seen, "/d/name.txt 600 0 784111777\n/e 644 0 784111777");
        let (code, said) = say(
            b,
            &[],
            &format!(
                "FROM box\nADD --checksum=sha256:{} {url} /d/\n",
                "0".repeat(64)
            ),
        );
        assert!(code == 1 && said.contains("digest mismatch"), "{said}");
        b.ok(&["build", "-t", "far", &url]);
        assert!(b.inspect("far", "{{.Config.Env}}").contains("WHO=remote"));
    });
}

#[test]
fn odd_steps_do_what_docker_does() {
    with_engine(|b| {
        let (code, said) = say(b, &[], "FROM box\nCMD [\"true\"]\nRUN []\n");
        assert_eq!(code, 0, "{said}");
        let (code, said) = say(b, &[], "FROM box\nRUN echo > /file\nVOLUME /file\n");
        assert!(code != 0 && said.contains("file exists /file"), "{said}");
        let (_, said) = say(b, &["--build-arg", "NOBODYS"], "FROM box\nCMD x\n");
        assert!(said.contains("build-args [NOBODYS] were not"), "{said}");
        let (code, said) = say(b, &["--network=container:nobody"], "FROM box\nRUN true\n");
        assert!(code != 0 && said.contains("No such container"), "{said}");
    });
}

#[test]
fn a_link_to_nowhere_is_a_place_inside_the_image() {
    with_engine(|b| {
        let file =
            "FROM box\nRUN ln -s /../../no/where /x\nVOLUME /x\nADD a /x/\nRUN cat /no/where/a\n";
        let folder = context(b, "nowhere", &[("Dockerfile", file), ("a", "inside\n")]);
        let folder = folder.display().to_string();
        let first = b.ok(&["build", "-t", "nowhere", &folder]);
        assert!(first.contains("inside"), "{first}");
        let id = |name: &str| b.ok(&["image", "inspect", "-f", "{{.Id}}", name]);
        b.ok(&["build", "-t", "again", "--cache-from=nowhere", &folder]);
        assert_eq!(id("nowhere"), id("again"));
    });
}
