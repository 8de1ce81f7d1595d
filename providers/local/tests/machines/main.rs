//! Machines on this computer, made for real. Needs root, and the binaries for hosts in the folder that
//! `WINDLASS_BINARIES` names (`cargo xtask engine` builds them and prints it).

mod scene;

use std::time::Duration;

use scene::{Scene, until};
use windlass_provider::{ErrorKind, PowerState, Provider, conformance};

const WHY: &str = "needs root and WINDLASS_BINARIES";

#[tokio::test]
#[ignore = "needs root and WINDLASS_BINARIES"]
async fn conforms() {
    let scene = Scene::new(WHY);
    let factory = || async { Box::new(scene.provider()) as Box<dyn Provider> };
    conformance::run(factory, &conformance::Settings::default()).await;
    scene.assert_nothing_is_left().await;
}
