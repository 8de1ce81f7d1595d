//! The deployer over the store and engines in memory: what goes over the wire, and what is left behind.

mod engine;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use engine::Engine;
use windlass_compose::model::{Fleet, Mode, Project, Scaling, Service, ServiceVolume, VolumeDecl};
use windlass_deploy::{BoxError, DeployError, Deployer, Host, Hosts, Silent, UpOptions, Volumes};
use windlass_engine_api::Dial;
use windlass_machine::{MachineName, Slot, SqliteStore, Store};

#[derive(Default)]
struct Machines(Mutex<BTreeMap<MachineName, (Host, Engine)>>);

impl Machines {
    fn add(&self, name: &MachineName, project: Option<&str>, slot: Option<&Slot>) -> Host {
        let mut all = self.0.lock().expect("machines");
        let host = Host {
            name: name.clone(),
            slot: slot.cloned(),
            project: project.map(str::to_owned),
            labels: BTreeMap::new(),
            address: None,
            private_address: Some(format!("10.0.0.{}", all.len() + 1)),
            ready: true,
            unfinished: false,
        };
        all.insert(name.clone(), (host.clone(), Engine::default()));
        host
    }

    fn engine(&self, name: &str) -> Engine {
        let all = self.0.lock().expect("machines");
        all[&MachineName::new(name).expect("name")].1.clone()
    }

    fn names(&self) -> Vec<String> {
        let all = self.0.lock().expect("machines");
        all.keys().map(MachineName::to_string).collect()
    }
}

#[async_trait]
impl Hosts for Machines {
    async fn list(&self) -> Result<Vec<Host>, BoxError> {
        let all = self.0.lock().expect("machines");
        Ok(all.values().map(|(host, _)| host.clone()).collect())
    }
    async fn create(
        &self,
        project: &str,
        _: &Fleet,
        name: &MachineName,
        slot: &Slot,
    ) -> Result<Host, BoxError> {
        Ok(self.add(name, Some(project), Some(slot)))
    }
    async fn remove(&self, name: &MachineName) -> Result<(), BoxError> {
        self.0.lock().expect("machines").remove(name);
        Ok(())
    }
    async fn engine(&self, name: &MachineName) -> Result<Arc<dyn Dial>, BoxError> {
        let all = self.0.lock().expect("machines");
        match all.get(name) {
            Some((_, engine)) => Ok(Arc::new(engine.clone())),
            None => Err("connection refused".into()),
        }
    }
    async fn socket(&self, _: &MachineName, _: &str) -> Result<Arc<dyn Dial>, BoxError> {
        Err("no ingress here".into())
    }
    async fn ingress_binary(&self, _: &str) -> Result<Vec<u8>, BoxError> {
        Err("no ingress here".into())
    }
}

struct Ground {
    machines: Arc<Machines>,
    store: Arc<SqliteStore>,
    deployer: Deployer,
    _state: tempfile::TempDir,
}

fn ground() -> Ground {
    let state = tempfile::tempdir().expect("folder");
    let machines = Arc::new(Machines::default());
    let store = Arc::new(SqliteStore::open(state.path()).expect("store"));
    let deployer = Deployer::new(machines.clone(), store.clone(), Arc::new(Silent));
    Ground {
        machines,
        store,
        deployer,
        _state: state,
    }
}

fn project(image: &str) -> Project {
    let web = Service {
        image: image.to_owned(),
        environment: [("TOKEN".to_owned(), "hush".to_owned())].into(),
        volumes: vec![ServiceVolume::Volume {
            name: Some("data".to_owned()),
            target: "/data".to_owned(),
            read_only: false,
        }],
        ..Service::default()
    };
    let volume = VolumeDecl {
        name: "shop_data".to_owned(),
        ..VolumeDecl::default()
    };
    Project {
        name: "shop".to_owned(),
        services: [("web".to_owned(), web)].into(),
        volumes: [("data".to_owned(), volume)].into(),
        ..Project::default()
    }
}

fn options() -> UpOptions {
    UpOptions {
        lock_wait: Duration::ZERO,
        ..UpOptions::new(".")
    }
}

#[tokio::test(start_paused = true)]
async fn up_again_changed_and_down() {
    let g = ground();
    g.machines
        .add(&MachineName::new("vps").expect("name"), None, None);
    let plan = g.deployer.plan_up(&project("httpd:1"), &options()).await;
    assert!(
        plan.expect("plan")
            .to_string()
            .starts_with("pull httpd:1 on vps\n")
    );
    let engine = g.machines.engine("vps");
    assert!(
        engine.contents().changes.is_empty(),
        "a plan changes nothing"
    );

    let first = g
        .deployer
        .up(&project("httpd:1"), &options())
        .await
        .expect("up");
    assert!(first.steps > 0 && first.release.is_some());
    {
        let contents = engine.contents();
        let config = &contents.containers["shop-web-1"]["Config"];
        assert_eq!(config["Labels"]["windlass.service"], "web");
        assert_eq!(config["Labels"]["windlass.replica"], "1");
        assert_eq!(
            config["Labels"]["windlass.spec"].as_str().map(str::len),
            Some(64)
        );
        assert_eq!(
            contents.containers["shop-web-1"]["State"]["Status"],
            "running"
        );
        assert_eq!(
            contents.volumes["shop_data"]["Labels"]["windlass.project"],
            "shop"
        );
    }
    let before = engine.contents().changes.len();
    let again = g
        .deployer
        .up(&project("httpd:1"), &options())
        .await
        .expect("up");
    assert_eq!((again.steps, again.release), (0, None));
    assert_eq!(engine.contents().changes.len(), before);

    let changed = g
        .deployer
        .up(&project("httpd:2"), &options())
        .await
        .expect("up");
    assert!(changed.release > first.release);
    let ps = g.deployer.ps("shop").await.expect("ps");
    assert_eq!(ps.replicas.len(), 1);
    assert_eq!(
        (ps.replicas[0].name.as_str(), ps.replicas[0].image.as_str()),
        ("web.1", "httpd:2")
    );
    let logs = g
        .deployer
        .log_targets("shop", &["web".to_owned()])
        .await
        .expect("logs");
    assert_eq!(logs[0].container, "id-shop-web-1");
    let unknown = g
        .deployer
        .log_targets("shop", &["wbe".to_owned()])
        .await
        .expect_err("wbe");
    assert!(unknown.to_string().contains("(there is: web)"), "{unknown}");

    let kept = g.store.releases("shop", 9).await.expect("releases");
    assert_eq!(kept.len(), 2);
    assert!(
        kept.iter()
            .all(|r| !r.declared.to_string().contains("hush"))
    );

    g.deployer
        .down("shop", Volumes::Keep, Duration::ZERO)
        .await
        .expect("down");
    {
        let contents = engine.contents();
        assert!(contents.containers.is_empty() && contents.networks.is_empty());
        assert_eq!(contents.volumes.len(), 1);
    }
    g.deployer
        .down("shop", Volumes::Remove, Duration::ZERO)
        .await
        .expect("down -v");
    assert!(engine.contents().volumes.is_empty());
    assert_eq!(g.machines.names(), ["vps"], "made by hand, so not removed");
}

#[tokio::test(start_paused = true)]
async fn failures_name_machine_service_and_exit_code() {
    let g = ground();
    g.machines
        .add(&MachineName::new("vps").expect("name"), None, None);
    let text = |e: DeployError| {
        let mut text = e.to_string();
        let mut cause = std::error::Error::source(&e);
        while let Some(e) = cause {
            text = format!("{text}: {e}");
            cause = e.source();
        }
        text
    };
    let e = g
        .deployer
        .up(&project("unknown:1"), &options())
        .await
        .expect_err("image");
    let e = text(e);
    assert!(
        e.contains("pull unknown:1 on vps") && e.contains("access denied"),
        "{e}"
    );
    let engine = g.machines.engine("vps");
    engine.contents().broken.push("httpd:1".to_owned());
    let e = text(
        g.deployer
            .up(&project("httpd:1"), &options())
            .await
            .expect_err("ends"),
    );
    assert!(
        e.contains("web.1 on vps") && e.contains("exit code 7"),
        "{e}"
    );
    assert!(
        g.store
            .releases("shop", 1)
            .await
            .expect("releases")
            .is_empty()
    );
    engine.contents().broken.clear();
    g.deployer
        .up(&project("httpd:1"), &options())
        .await
        .expect("repaired");

    let _held = g
        .store
        .lock("project.shop", Duration::ZERO)
        .await
        .expect("lock");
    let e = g
        .deployer
        .up(&project("httpd:1"), &options())
        .await
        .expect_err("locked");
    assert!(matches!(e, DeployError::Store(_)), "{e:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_follows_its_count() {
    let g = ground();
    let mut project = project("httpd:1");
    if let Some(web) = project.services.get_mut("web") {
        web.deploy.mode = Mode::Global;
        web.volumes.clear();
    }
    let fleet = Fleet {
        min: 1,
        max: 3,
        scaling: Some(Scaling::default()),
        ..Fleet::default()
    };
    project.fleets.insert("f".to_owned(), fleet);
    g.deployer.up(&project, &options()).await.expect("up");
    assert_eq!(g.machines.names(), ["shop-f-1"]);
    for (count, there) in [(9, 3), (2, 2), (0, 1)] {
        g.deployer
            .set_count("shop", "f", count)
            .await
            .expect("count");
        assert_eq!(g.deployer.count(&project, "f").await.expect("count"), there);
        g.deployer.up(&project, &options()).await.expect("up");
        assert_eq!(g.machines.names().len(), there as usize);
        let ps = g.deployer.ps("shop").await.expect("ps");
        assert_eq!(ps.replicas.len(), there as usize);
    }
    g.deployer.set_count("shop", "f", 3).await.expect("count");
    g.deployer
        .down("shop", Volumes::Keep, Duration::ZERO)
        .await
        .expect("down");
    assert!(g.machines.names().is_empty());
    assert_eq!(
        g.deployer.count(&project, "f").await.expect("count"),
        1,
        "forgotten"
    );
}
