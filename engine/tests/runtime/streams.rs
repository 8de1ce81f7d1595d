//! Output, input, terminals, logs, execs.

use tokio::io::AsyncWriteExt as _;
use windlassd::container::parts::{ProcessSpec, Runtime as _};

use crate::lab::{Lab, collect, process, until, within};

fn lines(lab: &Lab, path: &std::path::Path) -> Vec<(String, String)> {
    let _ = lab;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .map(|l| {
            (
                l["stream"].as_str().unwrap().into(),
                l["log"].as_str().unwrap().into(),
            )
        })
        .collect()
}

#[tokio::test]
async fn both_streams_and_the_log() {
    let lab = Lab::new();
    let spec = lab.spec(&["sh", "-c", "echo out; echo err >&2; printf last"]);
    let (output, _) = lab.complete(&spec).await;
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\nlast", "err\n")
    );
    let mut kept = lines(&lab, &spec.log_path);
    kept.sort();
    let expected = [("stderr", "err\n"), ("stdout", "last"), ("stdout", "out\n")];
    assert_eq!(kept, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let mut spec = lab.spec(&["echo", "x"]);
    spec.host.log_config.kind = "none".to_owned();
    lab.complete(&spec).await;
    assert!(!spec.log_path.exists());
}

#[tokio::test]
async fn logs_rotate() {
    let lab = Lab::new();
    let mut spec = lab.spec(&[
        "sh",
        "-c",
        "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done",
    ]);
    let config = &mut spec.host.log_config.config;
    config.insert("max-size".to_owned(), "1k".to_owned());
    config.insert("max-file".to_owned(), "2".to_owned());
    lab.complete(&spec).await;
    let newest = lines(&lab, &spec.log_path);
    let older = lines(&lab, &spec.log_path.with_extension("log.1"));
    assert_eq!(newest.last().unwrap().1, "line 199\n");
    assert!(!older.is_empty() && !spec.log_path.with_extension("log.2").exists());
    assert!(std::fs::metadata(&spec.log_path).unwrap().len() < 1200);
}

#[tokio::test]
async fn much_output_to_several() {
    let lab = Lab::new();
    let spec = lab.spec(&["sh", "-c", "yes 0123456789abcde | head -c 3000000"]);
    lab.runtime.create(&spec).await.unwrap();
    let first = lab.runtime.attach(&spec.id).await.unwrap();
    let second = lab.runtime.attach(&spec.id).await.unwrap();
    lab.runtime.start(&spec.id).await.unwrap();
    let (first, second) = tokio::join!(collect(first), collect(second));
    assert_eq!(
        (first.stdout.len(), second.stdout.len()),
        (3_000_000, 3_000_000)
    );
    lab.wait(&spec.id).await;
    let kept: usize = lines(&lab, &spec.log_path)
        .iter()
        .map(|(_, l)| l.len())
        .sum();
    assert_eq!(kept, 3_000_000);
}

#[tokio::test]
async fn one_who_goes_away_does_not_hold_it_up() {
    let lab = Lab::new();
    let spec = lab.spec(&["sh", "-c", "yes | head -c 1000000; echo done >&2"]);
    let attachment = lab.run(&spec).await;
    drop(attachment);
    assert_eq!(lab.wait(&spec.id).await.code, 0);
}

#[tokio::test]
async fn input_and_its_end() {
    let lab = Lab::new();
    let mut spec = lab.spec(&["sh", "-c", "cat; echo end"]);
    spec.process.stdin = true;
    let mut attachment = lab.run(&spec).await;
    let mut stdin = attachment.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    until(&mut attachment, "hello").await;
    // Detached, it goes on; attached again, it takes more, and the end of the input is the end.
    drop(stdin);
    drop(attachment);
    let mut attachment = lab.runtime.attach(&spec.id).await.unwrap();
    let mut stdin = attachment.stdin.take().unwrap();
    let big = vec![b'x'; 300_000];
    let writing = tokio::spawn(async move {
        stdin.write_all(&big).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let output = collect(attachment).await;
    writing.await.unwrap();
    assert_eq!(output.stdout.len(), 300_000 + 4);
    assert_eq!(lab.wait(&spec.id).await.code, 0);
    // Without input it reads nothing.
    let (output, exit) = lab.script("cat; echo end").await;
    assert_eq!((output.stdout.as_str(), exit.code), ("end\n", 0));
}

#[tokio::test]
async fn terminals() {
    let lab = Lab::new();
    let script = "tty; stty size; ls -l /dev/console | cut -c1; read x; stty size; echo got $x";
    let mut spec = lab.spec(&["sh", "-c", script]);
    spec.process.tty = true;
    spec.process.stdin = true;
    spec.process.size = Some((24, 80));
    let mut attachment = lab.run(&spec).await;
    let text = until(&mut attachment, "24 80\r\nc\r\n").await;
    assert!(text.contains("/dev/pts/0"), "{text}");
    lab.runtime.resize(&spec.id, None, 40, 132).await.unwrap();
    let mut stdin = attachment.stdin.take().unwrap();
    stdin.write_all(b"word\r").await.unwrap();
    let text = until(&mut attachment, "got word").await;
    assert!(text.contains("40 132"), "{text}");
    assert_eq!(lab.wait(&spec.id).await.code, 0);
    let kept = lines(&lab, &spec.log_path);
    assert!(kept.iter().any(|(_, l)| l == "40 132\r\n"), "{kept:?}");
}

#[tokio::test]
async fn execs() {
    let lab = Lab::new();
    let mut spec = lab.spec(&["sleep", "100"]);
    spec.host.memory = 64 << 20;
    lab.run(&spec).await;
    let run = async |name: &str, process: ProcessSpec| {
        let (pid, attachment) = lab.runtime.exec(&spec.id, name, &process).await.unwrap();
        let output = collect(attachment).await;
        let exit = within(lab.runtime.wait_exec(&spec.id, name)).await.unwrap();
        (pid, output, exit.code)
    };
    let (pid, output, code) = run(
        "1",
        process(&["sh", "-c", "echo $$; hostname; echo e >&2; exit 3"]),
    )
    .await;
    assert!(pid > 0 && code == 3 && output.stderr == "e\n", "{output:?}");
    assert!(
        output.stdout.ends_with("\nboat\n") && output.stdout.len() < 12,
        "{output:?}"
    );
    let mut other = process(&["sh", "-c", "id -u; id -g; id -G; pwd; echo $NAME $HOME"]);
    other.user = "web".to_owned();
    other.cwd = "/tmp".to_owned();
    other.env = vec!["NAME=a".to_owned(), "NAME=b".to_owned()];
    let (_, output, _) = run("2", other.clone()).await;
    assert_eq!(output.stdout, "33\n33\n33 40\n/tmp\nb /srv\n");
    other.cwd = "/tmp/new".to_owned();
    let refused = lab.runtime.exec(&spec.id, "lost", &other).await;
    let words = refused.err().unwrap().message;
    assert!(words.contains("chdir to cwd (\"/tmp/new\")"), "{words}");
    let mut terminal = process(&["sh", "-c", "tty; stty size"]);
    terminal.tty = true;
    terminal.size = Some((10, 20));
    let (_, output, _) = run("3", terminal).await;
    assert_eq!(output.stdout, "/dev/pts/0\r\n10 20\r\n");
    let mut input = process(&["cat"]);
    input.stdin = true;
    let (_, mut attachment) = lab.runtime.exec(&spec.id, "4", &input).await.unwrap();
    let mut stdin = attachment.stdin.take().unwrap();
    stdin.write_all(b"through\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(collect(attachment).await.stdout, "through\n");
    let (_, output, _) = run("5", process(&["cat", "/proc/self/cgroup"])).await;
    let (_, first, _) = run("6", process(&["cat", "/proc/1/cgroup"])).await;
    assert_eq!(output.stdout, first.stdout);
    let error = lab
        .runtime
        .exec(&spec.id, "7", &process(&["nosuch"]))
        .await
        .err()
        .unwrap();
    assert!(
        error.message.contains("executable file not found in $PATH"),
        "{error}"
    );
    let left =
        std::fs::read_dir(lab.dir.path().join("run/shim").join(&spec.id).join("exec")).unwrap();
    assert_eq!(left.count(), 1, "only the one that was not waited for");
}
