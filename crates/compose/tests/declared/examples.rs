//! The projects in `examples/` say what they are meant to say.

use std::path::Path;
use std::time::Duration;

use windlass_compose::model::{Mode, Order, Project};
use windlass_compose::{Source, load};

use crate::support::context;

fn example(name: &str) -> Project {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(name);
    let path = folder.join("windlass.yaml");
    let text = fs_err::read_to_string(&path).unwrap();
    let context = windlass_compose::Context {
        project_dir: folder,
        ..context()
    };
    let loaded = load(&[Source::new("windlass.yaml", text)], &context).unwrap();
    assert_eq!(loaded.warnings, []);
    loaded.project
}

#[test]
fn httpd_is_one_apache_with_a_published_port() {
    let project = example("httpd");
    let web = &project.services["web"];
    assert_eq!(web.image, "httpd:2.4");
    assert_eq!(
        (web.ports[0].published, web.ports[0].target),
        (Some(80), 80)
    );
    assert_eq!(web.deploy.mode, Mode::Replicated(1));
    assert!(project.fleets.is_empty());
}

#[test]
fn fleet_is_global_behind_the_ingress_and_scales() {
    let project = example("fleet");
    let web = &project.services["web"];
    assert_eq!(web.image, "fleet-web");
    assert_eq!(web.build.as_ref().unwrap().context, "../hello");
    assert_eq!(web.deploy.mode, Mode::Global);
    assert_eq!(web.deploy.update.order, Order::StartFirst);
    assert_eq!(web.resources.cpus, Some(0.5));
    assert_eq!(web.ingress.as_ref().unwrap().port, 8080);
    let fleet = &project.fleets["web"];
    assert_eq!((fleet.min, fleet.max, &fleet.provider), (2, 3, &None));
    let scaling = fleet.scaling.as_ref().unwrap();
    assert_eq!(scaling.target_cpu_percent, 60.0);
    assert_eq!(scaling.stabilisation_window, Some(Duration::from_secs(20)));
}
