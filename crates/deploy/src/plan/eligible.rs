//! Which machines qualify for a service: by its constraints, or because there is only one choice.

use windlass_compose::model::{Constraint, Mode, Project, Service};
use windlass_machine::MachineName;

use super::fleets::{Site, Sites};
use crate::error::PlanError;

/// Machines that qualify for a service, by fleet ordinal and name.
pub(super) fn eligible(
    project: &Project,
    name: &str,
    service: &Service,
    sites: &Sites<'_>,
) -> Result<Vec<MachineName>, PlanError> {
    let constraints = &service.deploy.constraints;
    let mut found: Vec<&Site<'_>> = if constraints.is_empty() {
        unconstrained(project, name, sites)?
    } else {
        constrained(name, constraints, sites)?
    };
    found.sort_by_key(|s| (s.slot.clone(), s.name.clone()));
    let none_for_some = matches!(service.deploy.mode, Mode::Replicated(n) if n > 0);
    if found.is_empty() && (none_for_some || project.fleets.is_empty()) {
        return Err(PlanError::NoMachine {
            service: name.to_owned(),
        });
    }
    Ok(found.into_iter().map(|s| s.name.clone()).collect())
}

fn unconstrained<'s, 'a>(
    project: &Project,
    name: &str,
    sites: &'s Sites<'a>,
) -> Result<Vec<&'s Site<'a>>, PlanError> {
    let ambiguous = |choices: Vec<String>, example: String| PlanError::Ambiguous {
        service: name.to_owned(),
        choices: choices.join(", "),
        example,
    };
    let mut fleets = project.fleets.keys();
    match (fleets.next(), fleets.next()) {
        (Some(fleet), None) => Ok(sites
            .staying()
            .filter(|s| s.ours && s.fleet() == Some(fleet))
            .collect()),
        (Some(first), Some(_)) => Err(ambiguous(
            project
                .fleets
                .keys()
                .map(|f| format!("fleet {f}"))
                .collect(),
            format!("node.labels.fleet == {first}"),
        )),
        (None, _) => {
            let found: Vec<&Site<'_>> = sites.staying().filter(|s| !s.ours).collect();
            match found.as_slice() {
                [first, _, ..] => Err(ambiguous(
                    found
                        .iter()
                        .map(|s| format!("machine {}", s.name))
                        .collect(),
                    format!("node.hostname == {}", first.name),
                )),
                _ => Ok(found),
            }
        }
    }
}

fn constrained<'s, 'a>(
    name: &str,
    constraints: &[Constraint],
    sites: &'s Sites<'a>,
) -> Result<Vec<&'s Site<'a>>, PlanError> {
    let mut found = Vec::new();
    for site in sites.staying() {
        let mut meets = true;
        for constraint in constraints {
            let value = match constraint.key.strip_prefix("node.labels.") {
                Some(label) => site.labels.get(label).map(String::as_str),
                None if constraint.key == "node.hostname" => Some(site.name.as_str()),
                None => {
                    return Err(PlanError::Constraint {
                        service: name.to_owned(),
                        key: constraint.key.clone(),
                    });
                }
            };
            meets &= (value == Some(constraint.value.as_str())) == constraint.equal;
        }
        if meets {
            found.push(site);
        }
    }
    if found.is_empty() {
        return Err(no_match(name, constraints, sites));
    }
    Ok(found)
}

fn no_match(name: &str, constraints: &[Constraint], sites: &Sites<'_>) -> PlanError {
    let text: Vec<String> = constraints
        .iter()
        .map(|c| {
            let sign = if c.equal { "==" } else { "!=" };
            format!("{} {sign} {}", c.key, c.value)
        })
        .collect();
    let choices: Vec<String> = sites
        .staying()
        .map(|s| match s.fleet() {
            Some(fleet) => format!("{} (fleet {fleet})", s.name),
            None => s.name.to_string(),
        })
        .collect();
    PlanError::NoMatch {
        service: name.to_owned(),
        constraint: text.join(", "),
        choices: if choices.is_empty() {
            "no machines".to_owned()
        } else {
            choices.join(", ")
        },
    }
}
