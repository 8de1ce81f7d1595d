//! Bad declared files: each gives one clear error with its place, and changes nothing.

use crate::sandbox::{Sandbox, snapshot};

fn nothing_was_made(sandbox: &Sandbox) {
    assert!(sandbox.names().is_empty());
    assert!(!sandbox.state().join("projects").exists());
}

#[test]
fn files_that_are_not_there() {
    let sandbox = Sandbox::new();
    snapshot!("no_file", sandbox.run(&["up"]));
    snapshot!(
        "named_file_missing",
        sandbox.run(&["up", "-f", "shop.yaml"])
    );
    snapshot!("ps_without_project", sandbox.run(&["ps"]));
    nothing_was_made(&sandbox);
}

#[test]
fn mistakes_in_the_file() {
    let sandbox = Sandbox::new();
    let cases = [
        (
            "unknown_key",
            "name: shop\nservices:\n  web:\n    image: httpd:2.4\n    prots: [\"80\"]\n",
        ),
        (
            "wrong_type",
            "name: shop\nservices:\n  web:\n    image: httpd:2.4\n    deploy:\n      replicas: many\n",
        ),
        (
            "not_yaml",
            "name: shop\nservices:\n  web:\n    image: [httpd\n",
        ),
        (
            "missing_variable",
            "name: shop\nservices:\n  web:\n    image: ${IMAGE:?set it to the image}\n",
        ),
    ];
    for (name, text) in cases {
        sandbox.write("compose.yaml", text);
        let ran = sandbox.run(&["up"]);
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains("compose.yaml:"), "{ran}");
        snapshot!(format!("file_{name}"), ran);
    }
    nothing_was_made(&sandbox);
}

#[test]
fn a_project_without_a_machine() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "name: shop\nservices:\n  web:\n    image: httpd:2.4\n",
    );
    let ran = sandbox.run(&["up", "--dry-run"]);
    assert_eq!(ran.code, Some(2), "{ran}");
    snapshot!("no_machine_to_run_on", ran);
}

#[test]
fn fleets_and_their_drivers() {
    let sandbox = Sandbox::new();
    let file = |fleet: &str| {
        format!("name: shop\nservices:\n  web:\n    image: httpd:2.4\nx-fleets:\n  web:\n{fleet}")
    };
    sandbox.write("windlass.yaml", &file("    count: 2\n"));
    snapshot!("fleet_without_driver", sandbox.run(&["up"]));
    snapshot!(
        "fleet_unknown_driver",
        sandbox.run(&["up", "--driver", "amazon"])
    );
    sandbox.write(
        "windlass.yaml",
        &file("    provider: local\n    count: 2\n    options: { cpu: 2 }\n"),
    );
    snapshot!("fleet_unknown_option", sandbox.run(&["up"]));
    sandbox.write(
        "windlass.yaml",
        &file("    provider: local\n    count: 2\n"),
    );
    snapshot!("fleet_plan", sandbox.run(&["up", "--dry-run"]));
    let plan = sandbox.run(&["up", "--dry-run", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!(plan["steps"][0]["action"], "create-machine");
    snapshot!("fleet_does_not_scale", sandbox.run(&["autoscale"]));
    snapshot!(
        "fleet_unknown",
        sandbox.run(&["autoscale", "--fleet", "db"])
    );
    nothing_was_made(&sandbox);
}

#[test]
fn the_first_file_that_is_there() {
    let sandbox = Sandbox::new();
    let file = |name: &str| format!("name: {name}\nservices:\n  web:\n    imag: x\n");
    for name in ["docker-compose.yml", "compose.yaml", "windlass.yaml"] {
        sandbox.write(name, &file("shop"));
        let ran = sandbox.run(&["up"]);
        assert!(ran.stderr.contains(&format!("error: {name}:4")), "{ran}");
    }
}

#[test]
fn a_second_autoscaler_is_refused() {
    let sandbox = Sandbox::new();
    let file = "name: shop\nservices:\n  web:\n    image: httpd:2.4\nx-fleets:\n  web:\n    provider: local\n    min: 1\n    max: 3\n    target: { cpu: 60 }\n";
    sandbox.write("windlass.yaml", file);
    let locks = sandbox.state().join("locks");
    fs_err::create_dir_all(&locks).unwrap();
    let lock = fs_err::File::create(locks.join("autoscale.shop.web")).unwrap();
    lock.file().lock().unwrap();
    fs_err::write(locks.join("autoscale.shop.web"), "4711\n").unwrap();
    let refused = sandbox.run(&["autoscale"]);
    assert_eq!(refused.code, Some(4), "{refused}");
    snapshot!("second_autoscaler", refused);
}
