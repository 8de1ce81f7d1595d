//! Attach, exec and logs: hijacked connections and framed streams.

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, LogsOptionsBuilder, StartContainerOptions,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;

use super::{Done, client, create, exit_code, remove, shell, start, status};

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn attached_streams_stay_apart_and_stdin_is_closed() -> Done {
    let docker = client().await?;
    let mut body = shell("cat; echo done >&2");
    body.open_stdin = Some(true);
    body.stdin_once = Some(true);
    body.attach_stdin = Some(true);
    create(&docker, "bollard-attach", body).await?;
    let options = AttachContainerOptionsBuilder::new()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .stream(true)
        .build();
    let mut attached = docker
        .attach_container("bollard-attach", Some(options))
        .await?;
    docker
        .start_container("bollard-attach", None::<StartContainerOptions>)
        .await?;
    attached.input.write_all(b"through\n").await?;
    attached.input.shutdown().await?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(part) = attached.output.next().await {
        match part? {
            LogOutput::StdOut { message } => out.extend_from_slice(&message),
            LogOutput::StdErr { message } => err.extend_from_slice(&message),
            other => return Err(format!("unexpected {other:?}").into()),
        }
    }
    assert_eq!((&out[..], &err[..]), (&b"through\n"[..], &b"done\n"[..]));
    assert_eq!(exit_code(&docker, "bollard-attach").await?, 0);
    remove(&docker, "bollard-attach").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn an_exec_with_its_environment_and_exit_code() -> Done {
    let docker = client().await?;
    start(&docker, "bollard-exec", shell("sleep 600")).await?;
    let exec = docker
        .create_exec(
            "bollard-exec",
            CreateExecOptions {
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                env: Some(vec!["WORD=hello"]),
                working_dir: Some("/bin"),
                cmd: Some(vec!["sh", "-c", "echo $WORD $PWD; exit 5"]),
                ..Default::default()
            },
        )
        .await?
        .id;
    let before = docker.inspect_exec(&exec).await?;
    assert_eq!((before.running, before.exit_code), (Some(false), None));
    let StartExecResults::Attached { output, .. } =
        docker.start_exec(&exec, None::<StartExecOptions>).await?
    else {
        return Err("not attached".into());
    };
    let parts: Vec<LogOutput> = output.try_collect().await?;
    let said: String = parts.iter().map(ToString::to_string).collect();
    assert_eq!(said, "hello /bin\n");
    let after = docker.inspect_exec(&exec).await?;
    assert_eq!((after.running, after.exit_code), (Some(false), Some(5)));
    remove(&docker, "bollard-exec").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn an_exec_on_a_terminal_is_resized() -> Done {
    let docker = client().await?;
    start(&docker, "bollard-tty", shell("sleep 600")).await?;
    let exec = docker
        .create_exec(
            "bollard-tty",
            CreateExecOptions {
                attach_stdin: Some(true),
                attach_stdout: Some(true),
                tty: Some(true),
                cmd: Some(vec!["sh", "-c", "read word; stty size; echo got $word"]),
                ..Default::default()
            },
        )
        .await?
        .id;
    let StartExecResults::Attached { output, mut input } =
        docker.start_exec(&exec, None::<StartExecOptions>).await?
    else {
        return Err("not attached".into());
    };
    docker
        .resize_exec(
            &exec,
            ResizeExecOptions {
                height: 33,
                width: 111,
            },
        )
        .await?;
    input.write_all(b"it\n").await?;
    let parts: Vec<LogOutput> = output.try_collect().await?;
    let said: String = parts.iter().map(ToString::to_string).collect();
    assert!(said.contains("33 111"), "{said:?}");
    assert!(said.contains("got it"), "{said:?}");
    remove(&docker, "bollard-tty").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn an_exec_needs_a_running_container() -> Done {
    let docker = client().await?;
    create(&docker, "bollard-idle", shell("true")).await?;
    let options = || CreateExecOptions {
        cmd: Some(vec!["true"]),
        ..Default::default()
    };
    let refused = docker
        .create_exec("bollard-idle", options())
        .await
        .unwrap_err();
    assert_eq!(status(&refused), Some(409));
    let missing = docker
        .create_exec("bollard-nobody", options())
        .await
        .unwrap_err();
    assert_eq!(status(&missing), Some(404));
    remove(&docker, "bollard-idle").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn logs_by_stream_tail_and_time() -> Done {
    let docker = client().await?;
    start(&docker, "bollard-tail", shell("echo one; echo two")).await?;
    exit_code(&docker, "bollard-tail").await?;
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .tail("1")
        .timestamps(true)
        .build();
    let last: Vec<LogOutput> = docker
        .logs("bollard-tail", Some(options))
        .try_collect()
        .await?;
    assert_eq!(last.len(), 1, "{last:?}");
    let line = last[0].to_string();
    assert!(line.ends_with(" two\n") && line.contains('T'), "{line:?}");
    // Two streams come by two ways, so that in what order their lines arrive is anybody's guess.
    start(
        &docker,
        "bollard-logs",
        shell("echo bad >&2; echo one; echo two"),
    )
    .await?;
    exit_code(&docker, "bollard-logs").await?;
    let options = LogsOptionsBuilder::new().stderr(true).follow(true).build();
    let errors: Vec<LogOutput> = docker
        .logs("bollard-logs", Some(options))
        .try_collect()
        .await?;
    assert!(
        matches!(&errors[..], [LogOutput::StdErr { message }] if message == "bad\n"),
        "{errors:?}"
    );
    remove(&docker, "bollard-tail").await;
    remove(&docker, "bollard-logs").await;
    Ok(())
}
