//! An engine within a privileged container of an engine: this test's own program runs there again.

use std::path::{Path, PathBuf};

use windlassd::container::MountRecord;
use windlassd::container::parts::{MountSpec, Runtime as _};

use crate::lab::{Lab, collect, process, shim_program, until, within};

fn bind(source: PathBuf, destination: &Path, rw: bool) -> MountSpec {
    let record = MountRecord {
        kind: "bind".to_owned(),
        destination: destination.display().to_string(),
        rw,
        ..MountRecord::default()
    };
    MountSpec { record, source }
}

#[tokio::test]
async fn engine_in_a_container() {
    let lab = Lab::new();
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "{} --test-threads 1 life::exit_codes life::deletion streams::execs pausing; sleep 100",
        own.display()
    );
    let mut spec = lab.spec(&["sh", "-c", &script]);
    spec.host.privileged = true;
    spec.process.privileged = true;
    let shim = shim_program();
    spec.process.env = vec![format!("WINDLASS_TEST_SHIM={}", shim.display())];
    let volume = lab.dir.path().join("inner");
    std::fs::create_dir(&volume).unwrap();
    spec.mounts = vec![bind(volume, Path::new("/var/tmp"), true)];
    for path in [own, shim] {
        spec.mounts.push(bind(path.clone(), &path, false));
    }
    for path in ["/usr", "/lib", "/lib64"].map(Path::new) {
        if path.exists() {
            spec.mounts
                .push(bind(std::fs::canonicalize(path).unwrap(), path, false));
        }
    }
    let mut attachment = lab.run(&spec).await;
    let text = until(&mut attachment, "test result: ").await;
    let text = if text.contains("filtered out") {
        text
    } else {
        text + &until(&mut attachment, "filtered out").await
    };
    assert!(text.contains("ok. 4 passed"), "{text}");
    // The inner engine has moved things about in its control groups; the outer one can still work with the container.
    let (_, exec) = lab
        .runtime
        .exec(&spec.id, "e", &process(&["echo", "here"]))
        .await
        .unwrap();
    assert_eq!(collect(exec).await.stdout, "here\n");
    assert_eq!(
        within(lab.runtime.wait_exec(&spec.id, "e"))
            .await
            .unwrap()
            .code,
        0
    );
    lab.runtime.delete(&spec.id).await.unwrap();
    assert_eq!(Lab::groups(&spec.id), Vec::<PathBuf>::new());
}
