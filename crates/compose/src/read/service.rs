//! One service: what runs and how; health, restart, dependencies, build.

use std::collections::BTreeMap;

use super::Reader;
use crate::field::{Field, Fields};
use crate::keys;
use crate::model::{Build, Dependency, Healthcheck, Restart, Service};
use crate::node::Value;

impl Reader<'_> {
    pub(super) fn service(&mut self, name: &str, field: &Field<'_>) -> Service {
        let Some(fields) = field.fields(&keys::SERVICE, self.log) else {
            return Service::default();
        };
        let mut service = Service {
            build: fields.get("build").and_then(|build| self.build(&build)),
            environment: self.environment(&fields),
            networks: fields
                .get("networks")
                .map(|n| self.memberships(&n))
                .unwrap_or_default(),
            network_mode: fields
                .get("network_mode")
                .and_then(|mode| self.network_mode(&mode)),
            ingress: fields
                .get("x-ingress")
                .and_then(|ingress| self.ingress(&ingress)),
            healthcheck: fields
                .get("healthcheck")
                .and_then(|check| self.healthcheck(&check)),
            depends_on: fields
                .get("depends_on")
                .map(|d| self.dependencies(&d))
                .unwrap_or_default(),
            restart: self.restart(&fields),
            resources: self.resources(&fields),
            deploy: self.deploy(&fields),
            ports: fields
                .get("ports")
                .map(|ports| self.ports(&ports))
                .unwrap_or_default(),
            expose: fields
                .get("expose")
                .map(|ports| self.expose(&ports))
                .unwrap_or_default(),
            volumes: fields
                .get("volumes")
                .map(|mounts| self.mounts(&mounts))
                .unwrap_or_default(),
            tmpfs: fields
                .get("tmpfs")
                .map(|mounts| self.tmpfs(&mounts))
                .unwrap_or_default(),
            logging: fields
                .get("logging")
                .and_then(|logging| self.logging(&logging)),
            labels: self.labels(&fields),
            hostname: fields
                .get("hostname")
                .and_then(|host| self.host_name(&host)),
            ..Service::default()
        };
        self.image(name, &fields, &mut service);
        self.process(&fields, &mut service);
        service
    }

    fn image(&mut self, name: &str, fields: &Fields<'_>, service: &mut Service) {
        match fields.get("image") {
            Some(field) => {
                let image = field.string(self.log).unwrap_or_default();
                let odd = |c: char| c.is_whitespace() || c.is_control();
                if image.contains(odd)
                    || (image.is_empty() && field.node.describe().contains("string"))
                {
                    field.reject(
                        &format!("must be the name of an image, but is `{image}`"),
                        self.log,
                    );
                }
                service.image = image;
            }
            None if fields.get("build").is_some() => {
                service.image = format!("{}-{name}", self.project)
            }
            None => {
                let message = format!("`{}` has neither `image` nor `build`", fields.path);
                self.log.error(fields.mark, message);
            }
        }
    }

    fn process(&mut self, fields: &Fields<'_>, service: &mut Service) {
        let log = &mut *self.log;
        service.command = fields
            .get("command")
            .and_then(|command| command.arguments(log));
        service.entrypoint = fields
            .get("entrypoint")
            .and_then(|entrypoint| entrypoint.arguments(log));
        service.user = fields.string("user", log);
        service.working_dir = fields.string("working_dir", log);
        service.stop_signal = fields.string("stop_signal", log);
        service.stop_grace_period = fields.duration("stop_grace_period", log);
        service.init = fields.flag("init", log);
        service.read_only = fields.flag("read_only", log);
        service.privileged = fields.flag("privileged", log);
        service.tty = fields.flag("tty", log);
        service.stdin_open = fields.flag("stdin_open", log);
        service.dns = fields.strings("dns", log);
        service.sysctls = fields.pairs("sysctls", log);
        let list = |key: &str, log: &mut _| match fields.get(key) {
            Some(field) => field
                .items(log)
                .iter()
                .filter_map(|item| item.string(log))
                .collect(),
            None => Vec::new(),
        };
        service.cap_add = list("cap_add", log);
        service.cap_drop = list("cap_drop", log);
        service.extra_hosts = match fields.get("extra_hosts") {
            Some(field) => self.extra_hosts(&field),
            None => Vec::new(),
        };
    }

    fn labels(&mut self, fields: &Fields<'_>) -> BTreeMap<String, String> {
        let labels = fields.pairs("labels", self.log);
        for name in labels.keys() {
            if name.starts_with("windlass.") || name.starts_with("com.docker.compose.") {
                let field = fields.get("labels");
                let problem = format!("has the label `{name}`, whose beginning is reserved");
                field
                    .into_iter()
                    .for_each(|field| field.reject(&problem, self.log));
            }
        }
        labels
    }

    fn build(&mut self, field: &Field<'_>) -> Option<Build> {
        let mut build = Build::default();
        if let Value::Scalar(_) = field.node.value {
            build.context = field.string(self.log)?;
            self.check_context(&build.context, field);
            return Some(build);
        }
        let fields = field.fields(&keys::BUILD, self.log)?;
        build.context = ".".into();
        if let Some(context) = fields.get("context") {
            build.context = context.string(self.log)?;
            self.check_context(&build.context, &context);
        }
        build.dockerfile = fields.string("dockerfile", self.log);
        build.target = fields.string("target", self.log);
        build.labels = fields.pairs("labels", self.log);
        let args = fields
            .get("args")
            .map(|args| args.pairs(self.log))
            .unwrap_or_default();
        build.args = self
            .fill(args)
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        Some(build)
    }

    fn check_context(&mut self, context: &str, field: &Field<'_>) {
        if context.contains("://") || context.starts_with("git@") {
            let hint = "clone it and give the folder";
            field.reject_with_hint(
                "is an address; windlass builds folders of this computer only",
                hint,
                self.log,
            );
        } else if context.is_empty() {
            field.reject("must be a folder, but is empty", self.log);
        }
    }

    fn healthcheck(&mut self, field: &Field<'_>) -> Option<Healthcheck> {
        let fields = field.fields(&keys::HEALTHCHECK, self.log)?;
        let mut check = Healthcheck {
            interval: fields.duration("interval", self.log),
            timeout: fields.duration("timeout", self.log),
            start_period: fields.duration("start_period", self.log),
            start_interval: fields.duration("start_interval", self.log),
            retries: fields
                .get("retries")
                .and_then(|r| r.number("a whole number", self.log)),
            test: Vec::new(),
        };
        if let Some(test) = fields.get("test") {
            check.test = self.health_test(&test)?;
        }
        if fields.flag("disable", self.log) {
            check.test = vec!["NONE".into()];
        }
        Some(check)
    }

    fn health_test(&mut self, field: &Field<'_>) -> Option<Vec<String>> {
        if let Value::Scalar(_) = field.node.value {
            return Some(vec!["CMD-SHELL".into(), field.string(self.log)?]);
        }
        let test = field.arguments(self.log)?;
        let problem = match (test.first().map(String::as_str), test.len()) {
            (Some("NONE"), 1) | (Some("CMD-SHELL"), 2) | (Some("CMD"), 2..) => return Some(test),
            (Some("CMD-SHELL"), _) => "begins with `CMD-SHELL`, so it needs one text after it",
            (Some("CMD"), _) => "begins with `CMD`, so it needs a command after it",
            _ => "must begin with `CMD`, `CMD-SHELL` or `NONE`",
        };
        field.reject(problem, self.log);
        None
    }

    /// `deploy.restart_policy` goes before `restart`.
    fn restart(&mut self, fields: &Fields<'_>) -> Restart {
        let own = fields
            .get("restart")
            .and_then(|restart| self.restart_word(&restart));
        let policy = fields.get("deploy").and_then(|deploy| {
            let node = deploy
                .node
                .get("restart_policy")
                .filter(|node| !node.is_null())?;
            let path = format!("{}.restart_policy", deploy.path);
            self.restart_policy(&Field { node, path })
        });
        policy.or(own).unwrap_or_default()
    }

    fn restart_word(&mut self, field: &Field<'_>) -> Option<Restart> {
        let text = field.text(self.log)?;
        let (word, times) = text
            .split_once(':')
            .map_or((text.as_str(), None), |(w, t)| (w, Some(t)));
        match (word, times.map(str::parse)) {
            ("no", None) => Some(Restart::No),
            ("always", None) => Some(Restart::Always),
            ("unless-stopped", None) => Some(Restart::UnlessStopped),
            ("on-failure", None) => Some(Restart::OnFailure { maximum: 0 }),
            ("on-failure", Some(Ok(maximum))) => Some(Restart::OnFailure { maximum }),
            _ => {
                let words = "`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`";
                field.reject(&format!("must be {words}, but is `{text}`"), self.log);
                None
            }
        }
    }

    fn dependencies(&mut self, field: &Field<'_>) -> BTreeMap<String, Dependency> {
        if let Value::List(_) = field.node.value {
            let names = field.items(self.log);
            let names = names.iter().filter_map(|item| item.string(self.log));
            return names.map(|name| (name, Dependency::Started)).collect();
        }
        let mut dependencies = BTreeMap::new();
        for (name, field) in field.members(self.log) {
            if field.node.is_null() {
                dependencies.insert(name.to_owned(), Dependency::Started);
                continue;
            }
            let Some(fields) = field.fields(&keys::DEPENDENCY, self.log) else {
                continue;
            };
            let words = [
                ("service_started", Dependency::Started),
                ("service_healthy", Dependency::Healthy),
                ("service_completed_successfully", Dependency::Completed),
            ];
            let Some(condition) = fields.get("condition") else {
                field.reject("needs `condition`", self.log);
                continue;
            };
            let condition = condition.choice(&words, self.log).unwrap_or_default();
            let required = fields
                .get("required")
                .and_then(|r| r.boolean(self.log))
                .unwrap_or(true);
            if required || !self.left_out.contains(name) {
                dependencies.insert(name.to_owned(), condition);
            }
        }
        dependencies
    }

    fn logging(&mut self, field: &Field<'_>) -> Option<(String, BTreeMap<String, String>)> {
        let fields = field.fields(&keys::LOGGING, self.log)?;
        let driver = fields.string("driver", self.log);
        let driver = driver.unwrap_or_else(|| "json-file".into());
        Some((driver, fields.pairs("options", self.log)))
    }
}
