//! The order of services: what is depended on comes first; otherwise by name.

use std::collections::BTreeMap;

use windlass_compose::model::{Dependency, Project};

use crate::error::PlanError;

/// Names of all services, dependencies first.
pub(super) fn services(project: &Project) -> Result<Vec<&str>, PlanError> {
    let mut states = BTreeMap::new();
    let mut order = Vec::new();
    for name in project.services.keys() {
        visit(project, name, &mut states, &mut order, &mut Vec::new())?;
    }
    Ok(order)
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    Done,
}

fn visit<'a>(
    project: &'a Project,
    name: &'a str,
    states: &mut BTreeMap<&'a str, State>,
    order: &mut Vec<&'a str>,
    path: &mut Vec<&'a str>,
) -> Result<(), PlanError> {
    match states.get(name) {
        Some(State::Done) => return Ok(()),
        Some(State::Open) => {
            let from = path.iter().position(|p| *p == name).unwrap_or(0);
            let mut cycle = path[from..].to_vec();
            cycle.push(name);
            return Err(PlanError::Cycle(cycle.join(" → ")));
        }
        None => {}
    }
    let Some(service) = project.services.get(name) else {
        return Err(PlanError::Dependency {
            service: path.last().copied().unwrap_or_default().to_owned(),
            dependency: name.to_owned(),
        });
    };
    states.insert(name, State::Open);
    path.push(name);
    for dependency in service.depends_on.keys() {
        visit(project, dependency, states, order, path)?;
    }
    path.pop();
    states.insert(name, State::Done);
    order.push(name);
    Ok(())
}

/// Whether some service waits for the end of this one.
pub(super) fn is_awaited_to_complete(project: &Project, name: &str) -> bool {
    project
        .services
        .values()
        .any(|s| s.depends_on.get(name) == Some(&Dependency::Completed))
}

#[cfg(test)]
mod tests {
    use windlass_compose::model::Service;

    use super::*;

    fn project(edges: &[(&str, &[&str])]) -> Project {
        let mut project = Project::default();
        for (name, needs) in edges {
            let service = Service {
                depends_on: needs
                    .iter()
                    .map(|n| ((*n).to_owned(), Dependency::Started))
                    .collect(),
                ..Service::default()
            };
            project.services.insert((*name).to_owned(), service);
        }
        project
    }

    #[test]
    fn dependencies_come_first() {
        let p = project(&[("a", &["c"]), ("b", &[]), ("c", &["b"])]);
        assert_eq!(services(&p), Ok(vec!["b", "c", "a"]));
    }

    #[test]
    fn cycles_and_gaps_are_named() {
        let p = project(&[("a", &["b"]), ("b", &["a"])]);
        assert_eq!(services(&p), Err(PlanError::Cycle("a → b → a".to_owned())));
        let p = project(&[("a", &["x"])]);
        let e = services(&p).expect_err("gap").to_string();
        assert!(e.contains("`a`") && e.contains("`x`"), "{e}");
    }
}
