//! `docker build` without BuildKit, and its cache.

use crate::bench::{text, with_engine};

const DOCKERFILE: &str = r#"
FROM box
LABEL who="me" what=test
ENV GREETING=hello
WORKDIR /srv/app
COPY a.txt ./
RUN echo "$GREETING $(cat a.txt)" > out.txt
ADD b.tar /opt/
EXPOSE 8080
VOLUME /data
USER 1000:1000
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat /srv/app/out.txt; id -u; pwd"]
"#;

#[test]
fn every_instruction_and_the_cache() {
    with_engine(|b| {
        let context = b.path("context");
        std::fs::create_dir(&context).unwrap();
        let put = |name: &str, content: &[u8]| std::fs::write(context.join(name), content).unwrap();
        put("Dockerfile", DOCKERFILE.as_bytes());
        put("a.txt", b"world\n");
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive
            .append_data(&mut header, "in-b", &b"bbb"[..])
            .unwrap();
        put("b.tar", &archive.into_inner().unwrap());
        let folder = context.to_str().unwrap();
        let build = || b.ok(&["build", "-t", "app", folder]);
        let cached = |output: &str| output.matches("Using cache").count();

        let first = build();
        assert!(first.contains("Successfully tagged app:latest"), "{first}");
        assert_eq!(cached(&first), 0);
        assert_eq!(b.ok(&["run", "--rm", "app"]), "hello world\n1000\n/srv/app");
        assert_eq!(b.ok(&["run", "--rm", "app", "cat /opt/in-b"]), "bbb");
        let config = b.inspect("app", "{{json .Config}}");
        for words in [
            r#""8080/tcp":{}"#,
            r#""/data":{}"#,
            r#""who":"me""#,
            r#""what":"test""#,
        ] {
            assert!(config.contains(words), "{words} in {config}");
        }
        let id = b.inspect("app", "{{.Id}}");
        let again = build();
        assert_eq!(cached(&again), 11, "{again}");
        assert_eq!(b.inspect("app", "{{.Id}}"), id);

        put("a.txt", b"moon\n");
        let changed = build();
        assert_eq!(cached(&changed), 3, "up to COPY: {changed}");
        assert_eq!(b.ok(&["run", "--rm", "app"]), "hello moon\n1000\n/srv/app");
        assert!(b.ok(&["history", "app"]).contains("WORKDIR"));

        let failing = b.feed(&["build", "-"], b"FROM box\nRUN echo no >&2; exit 9\n");
        assert_eq!(failing.status.code(), Some(9));
        assert!(text(&failing.stderr).contains("returned a non-zero code: 9"));
        assert_eq!(b.ok(&["ps", "-aq"]), "");
        let unknown = b.feed(&["build", "-"], b"FROM box\nFROB x\n");
        let words = text(&unknown.stderr);
        assert!(
            words.to_lowercase().contains("unknown instruction: frob"),
            "{words}"
        );
    });
}

#[test]
fn the_dockerfile_comes_apart_from_its_context() {
    with_engine(|b| {
        let folder = b.path("context");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("f"), "content").unwrap();
        let folder = folder.to_str().unwrap();
        let dockerfile = b"FROM box\nCOPY f /f\nEXPOSE 81 80\n";
        let done = b.feed(&["build", "-t", "apart", "-f", "-", folder], dockerfile);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(b.ok(&["run", "--rm", "apart", "cat", "/f"]), "content");
        let dockerfile = b"FROM box\nCOPY f /f\nEXPOSE 80 81\n";
        let done = b.feed(&["build", "-t", "order", "-f", "-", folder], dockerfile);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(b.inspect("order", "{{.Id}}"), b.inspect("apart", "{{.Id}}"));
    });
}
