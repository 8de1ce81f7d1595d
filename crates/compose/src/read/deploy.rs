//! `deploy`: how many, where, with what resources; and the older keys that mean the same.

use super::Reader;
use crate::field::{Field, Fields};
use crate::keys;
use crate::model::{Constraint, Deploy, Mode, Order, Resources, Restart, Update};

#[derive(Clone, Copy)]
enum Shape {
    Global,
    Replicated,
    Job,
}

impl Reader<'_> {
    pub(super) fn deploy(&mut self, service: &Fields<'_>) -> Deploy {
        let mut deploy = Deploy::default();
        let scale = service
            .get("scale")
            .and_then(|scale| scale.number::<u32>("a whole number", self.log));
        let fields = service
            .get("deploy")
            .and_then(|field| field.fields(&keys::DEPLOY, self.log));
        let Some(fields) = fields else {
            deploy.mode = Mode::Replicated(scale.unwrap_or(1));
            return deploy;
        };
        deploy.mode = self.mode(&fields, scale, service);
        if let Some(placement) = fields.get("placement") {
            deploy.constraints = self.constraints(&placement);
        }
        if let Some(update) = fields.get("update_config") {
            deploy.update = self.update(&update).unwrap_or_default();
        }
        deploy
    }

    fn mode(&mut self, fields: &Fields<'_>, scale: Option<u32>, service: &Fields<'_>) -> Mode {
        let shapes = [
            ("replicated", Shape::Replicated),
            ("global", Shape::Global),
            ("replicated-job", Shape::Job),
            ("global-job", Shape::Job),
        ];
        let mode = fields.get("mode");
        let shape = mode
            .as_ref()
            .and_then(|mode| mode.choice(&shapes, self.log));
        let replicas = fields.get("replicas");
        let number = replicas
            .as_ref()
            .and_then(|field| field.number::<u32>("a whole number", self.log));
        match (shape.unwrap_or(Shape::Replicated), number, scale) {
            (Shape::Global, None, None) => return Mode::Global,
            (Shape::Global, ..) => {
                let field = replicas.or_else(|| service.get("scale"));
                let problem = "makes no sense with `mode: global`, which has one on each machine";
                field
                    .into_iter()
                    .for_each(|field| field.reject(problem, self.log));
            }
            (Shape::Job, ..) => {
                let problem = "is Compose's, but windlass does not have jobs yet";
                mode.into_iter()
                    .for_each(|mode| mode.reject(problem, self.log));
            }
            (Shape::Replicated, Some(number), Some(scale)) if number != scale => {
                let problem = "differs from `scale`; give one of them";
                replicas
                    .into_iter()
                    .for_each(|field| field.reject(problem, self.log));
            }
            (Shape::Replicated, number, scale) => {
                return Mode::Replicated(number.or(scale).unwrap_or(1));
            }
        }
        Mode::default()
    }

    fn constraints(&mut self, placement: &Field<'_>) -> Vec<Constraint> {
        let Some(fields) = placement.fields(&keys::PLACEMENT, self.log) else {
            return Vec::new();
        };
        let Some(list) = fields.get("constraints") else {
            return Vec::new();
        };
        let mut constraints = Vec::new();
        for item in list.items(self.log) {
            let Some(text) = item.string(self.log) else {
                continue;
            };
            match parse_constraint(&text) {
                Ok(constraint) => constraints.push(constraint),
                Err(problem) => {
                    let hint =
                        "write it like `node.labels.fleet == web` or `node.hostname != web-1`";
                    item.reject_with_hint(&problem, hint, self.log);
                }
            }
        }
        constraints
    }

    fn update(&mut self, field: &Field<'_>) -> Option<Update> {
        let fields = field.fields(&keys::UPDATE, self.log)?;
        let orders = [
            ("stop-first", Order::StopFirst),
            ("start-first", Order::StartFirst),
        ];
        let order = fields
            .get("order")
            .and_then(|order| order.choice(&orders, self.log));
        let parallelism = fields.get("parallelism").map(|field| {
            let number = field.number::<u32>("a whole number", self.log).unwrap_or(1);
            if number == 0 {
                let hint = "for all at once give the number of replicas";
                field.reject_with_hint("must be at least 1, but is 0", hint, self.log);
            }
            number.max(1)
        });
        if let Some(action) = fields.get("failure_action") {
            let known = [
                ("pause", "pause"),
                ("continue", "continue"),
                ("rollback", "rollback"),
            ];
            let word = action.choice(&known, self.log).unwrap_or("pause");
            if word != "pause" {
                let problem = format!("is `{word}`, which windlass does not have yet");
                let hint = "leave it out or say `pause`: a rollout stops at the first replica that does not become healthy";
                action.reject_with_hint(&problem, hint, self.log);
            }
        }
        Some(Update {
            order: order.unwrap_or_default(),
            parallelism: parallelism.unwrap_or(1),
        })
    }

    pub(super) fn restart_policy(&mut self, field: &Field<'_>) -> Option<Restart> {
        let fields = field.fields(&keys::RESTART_POLICY, self.log)?;
        let attempts = fields.get("max_attempts");
        let maximum = attempts
            .as_ref()
            .and_then(|field| field.number::<u32>("a whole number", self.log));
        let words = [
            ("none", Restart::No),
            ("any", Restart::Always),
            ("on-failure", Restart::OnFailure { maximum: 0 }),
        ];
        let choices: Vec<(&str, usize)> = words
            .iter()
            .enumerate()
            .map(|(at, (word, _))| (*word, at))
            .collect();
        let chosen = match fields.get("condition") {
            Some(condition) => condition.choice(&choices, self.log)?,
            None => 1,
        };
        match (&words.get(chosen)?.1, maximum) {
            (Restart::OnFailure { .. }, maximum) => Some(Restart::OnFailure {
                maximum: maximum.unwrap_or(0),
            }),
            (policy, None) => Some(policy.clone()),
            (policy, Some(_)) => {
                let problem = "is there for `condition: on-failure` only";
                attempts
                    .into_iter()
                    .for_each(|field| field.reject(problem, self.log));
                Some(policy.clone())
            }
        }
    }

    pub(super) fn resources(&mut self, service: &Fields<'_>) -> Resources {
        let resources = service.get("deploy").and_then(|deploy| {
            let node = deploy
                .node
                .get("resources")
                .filter(|node| !node.is_null())?;
            let path = format!("{}.resources", deploy.path);
            Field { node, path }.fields(&keys::RESOURCES, self.log)
        });
        let part = |name: &str| resources.as_ref().and_then(|resources| resources.get(name));
        let limits = part("limits").and_then(|limits| limits.fields(&keys::LIMITS, self.log));
        let reserved =
            part("reservations").and_then(|field| field.fields(&keys::RESERVATIONS, self.log));
        let cpus = [service.get("cpus"), pick(&limits, "cpus")].map(|f| self.cpus(f?));
        let memory =
            [service.get("mem_limit"), pick(&limits, "memory")].map(|f| f?.bytes(self.log));
        let pids = [service.get("pids_limit"), pick(&limits, "pids")].map(|f| self.pids(f?));
        let kept =
            [service.get("mem_reservation"), pick(&reserved, "memory")].map(|f| f?.bytes(self.log));
        Resources {
            cpus: self.agree(cpus, "cpus", service),
            memory_bytes: self.agree(memory, "mem_limit", service),
            pids: self.agree(pids, "pids_limit", service).flatten(),
            memory_reservation_bytes: self.agree(kept, "mem_reservation", service),
        }
    }

    fn agree<T: PartialEq + Copy>(
        &mut self,
        values: [Option<T>; 2],
        key: &str,
        service: &Fields<'_>,
    ) -> Option<T> {
        if let [Some(own), Some(other)] = values
            && own != other
        {
            let problem = "differs from what `deploy.resources` says; give one of them";
            service
                .get(key)
                .into_iter()
                .for_each(|field| field.reject(problem, self.log));
        }
        values[1].or(values[0])
    }

    fn cpus(&mut self, field: Field<'_>) -> Option<f64> {
        let what = "a number of processors like `0.5`";
        let cpus = field.number::<f64>(what, self.log)?;
        if !(cpus.is_finite() && cpus > 0.0) {
            field.reject(&format!("must be {what}, but is {cpus}"), self.log);
            return None;
        }
        Some(cpus)
    }

    /// -1 and 0 mean without limit.
    fn pids(&mut self, field: Field<'_>) -> Option<Option<u64>> {
        let pids = field.number::<i64>("a whole number", self.log)?;
        Some(u64::try_from(pids).ok().filter(|pids| *pids > 0))
    }
}

fn parse_constraint(text: &str) -> Result<Constraint, String> {
    let (key, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((key, value)), None) => (key.trim(), true, value.trim()),
        (None, Some((key, value))) => (key.trim(), false, value.trim()),
        _ => return Err(format!("must compare with `==` or `!=`, but is `{text}`")),
    };
    if value.is_empty() {
        return Err(format!("compares with nothing: `{text}`"));
    }
    let label = key
        .strip_prefix("node.labels.")
        .is_some_and(|label| !label.is_empty());
    if key != "node.hostname" && !label {
        return Err(format!("asks for `{key}`, which windlass does not have"));
    }
    Ok(Constraint {
        key: key.to_owned(),
        equal,
        value: value.to_owned(),
    })
}

fn pick<'a>(place: &Option<Fields<'a>>, key: &str) -> Option<Field<'a>> {
    place.as_ref()?.get(key)
}
