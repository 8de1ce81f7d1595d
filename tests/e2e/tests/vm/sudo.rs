//! A user with passwordless sudo instead of root, and a registry that wants a password.

use anyhow::{Result, ensure};
use windlass_e2e::{PAGE, Vps, tells};
use windlass_fixtures::Access;

const USER: &str = "ann";
const PASSWORD: &str = "correct-horse-battery";

#[test]
#[ignore = "needs root, QEMU and WINDLASS_BINARIES"]
fn a_sudo_user_pulls_with_a_password() -> Result<()> {
    let vps = Vps::boot(Access::Password(USER, PASSWORD))?;
    vps.windlass.ok(&vps.create("web2", "ops")?)?;
    let file = vps.windlass.home().join("private.yaml");
    let image = format!("{}/library/httpd:2.4", vps.registry_for_host());
    fs_err::write(
        &file,
        format!("name: private\nservices:\n  web:\n    image: {image}\n    ports: [\"8080:80\"]\n"),
    )?;
    let file = file.to_string_lossy();
    let refused = vps.windlass.fails(&["up", "-f", &file])?;
    tells(&refused, &["web2", &image])?;
    log_in(&vps, "wrong")?;
    let refused = vps.windlass.fails(&["up", "-f", &file])?;
    tells(&refused, &["web2"])?;
    ensure!(
        !refused.contains("wrong"),
        "the password is in the message:\n{refused}"
    );
    log_in(&vps, PASSWORD)?;
    vps.windlass.ok(&["up", "-f", &file])?;
    ensure!(vps.page(8080)?.contains(PAGE));
    no_secret_is_left(&vps)?;
    vps.windlass.ok(&["down", "-f", &file])?;
    vps.windlass.ok(&["rm", "-y", "web2"])?;
    Ok(())
}

/// As `docker login` would leave it.
fn log_in(vps: &Vps, password: &str) -> Result<()> {
    let folder = vps.windlass.home().join("docker");
    fs_err::create_dir_all(&folder)?;
    let login = serde_json::json!({"username": USER, "password": password});
    let config = serde_json::json!({"auths": {vps.registry_for_host(): login}});
    Ok(fs_err::write(
        folder.join("config.json"),
        config.to_string(),
    )?)
}

/// The password is neither in the state nor on the host.
fn no_secret_is_left(vps: &Vps) -> Result<()> {
    let on_host = vps
        .vm
        .shell(&format!("grep -rl '{PASSWORD}' /etc/windlass /var/lib/windlass/*.json /run/windlass /var/log 2>/dev/null || true"))?;
    ensure!(on_host.is_empty(), "the password is in {on_host}");
    let store = fs_err::read(vps.windlass.home().join("windlass.db"))?;
    let found = store
        .windows(PASSWORD.len())
        .any(|window| window == PASSWORD.as_bytes());
    ensure!(!found, "the password is in the store");
    Ok(())
}
