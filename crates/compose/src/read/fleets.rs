//! `x-fleets`.

use std::collections::BTreeMap;

use super::Reader;
use crate::field::{Field, Fields};
use crate::keys;
use crate::model::{Fleet, Scaling};
use crate::node::Value;

/// Room for the number that makes a machine's name of it.
const LONGEST_NAME: usize = 50;

impl Reader<'_> {
    pub(super) fn fleets(&mut self, top: &Fields<'_>) -> BTreeMap<String, Fleet> {
        let members = top
            .get("x-fleets")
            .map(|field| field.members(self.log))
            .unwrap_or_default();
        let mut fleets = BTreeMap::new();
        for (name, field) in members {
            self.check_fleet_name(name, &field);
            let fleet = match field.node.is_null() {
                true => one_machine(),
                false => self.fleet(&field).unwrap_or_else(one_machine),
            };
            fleets.insert(name.to_owned(), fleet);
        }
        fleets
    }

    fn check_fleet_name(&mut self, name: &str, field: &Field<'_>) {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let edges = !name.starts_with('-') && !name.ends_with('-');
        if name.is_empty() || name.len() > LONGEST_NAME || !edges || !name.chars().all(good) {
            let problem = format!(
                "is not a valid name: machines are named by it, so it takes lower-case letters, digits and `-`, at most {LONGEST_NAME}"
            );
            field.reject(&problem, self.log);
        }
    }

    fn fleet(&mut self, field: &Field<'_>) -> Option<Fleet> {
        let fields = field.fields(&keys::FLEET, self.log)?;
        let scaling = self.scaling(&fields);
        let (min, max) = self.size(&fields, scaling.is_some());
        Some(Fleet {
            provider: fields.string("provider", self.log),
            options: fields
                .get("options")
                .map(|field| self.options(&field))
                .unwrap_or_default(),
            min,
            max,
            scaling,
            labels: fields.pairs("labels", self.log),
        })
    }

    /// `count`, or `min` and `max`.
    fn size(&mut self, fields: &Fields<'_>, scales: bool) -> (u32, u32) {
        let mut number = |key: &str| {
            let field = fields.get(key)?;
            let number = field.number::<u32>("a whole number", self.log)?;
            Some((number, field))
        };
        let (count, min, max) = (number("count"), number("min"), number("max"));
        match (count, min, max) {
            (Some((count, _)), None, None) => (count, count),
            (Some((_, field)), ..) => {
                field.reject("makes no sense together with `min` and `max`", self.log);
                (1, 1)
            }
            (None, None, None) => (1, 1),
            (None, Some((min, at)), Some((max, _))) => {
                if min > max {
                    at.reject(
                        &format!("must not be more than `max`, but {min} is more than {max}"),
                        self.log,
                    );
                }
                if min == 0 {
                    at.reject(
                        "must be at least 1: the ingress runs on these machines",
                        self.log,
                    );
                }
                if min < max && !scales && fields.get("target").is_none() {
                    let hint = "add `target: { cpu: 60 }`, or give `count`";
                    at.reject_with_hint(
                        "differs from `max`, but nothing says when to scale",
                        hint,
                        self.log,
                    );
                }
                (min, max.max(min))
            }
            (None, Some((number, field)), None) | (None, None, Some((number, field))) => {
                field.reject_with_hint(
                    "needs the other one of `min` and `max`",
                    "for a fixed number give `count`",
                    self.log,
                );
                (number, number)
            }
        }
    }

    fn scaling(&mut self, fields: &Fields<'_>) -> Option<Scaling> {
        let mut tuning = |key: &str| fields.duration(key, self.log);
        let scaling = Scaling {
            target_cpu_percent: 0.0,
            warm_up: tuning("warm_up"),
            scale_out_cooldown: tuning("scale_out_cooldown"),
            scale_in_cooldown: tuning("scale_in_cooldown"),
            stabilisation_window: tuning("stabilisation_window"),
            interval: tuning("interval"),
        };
        let Some(target) = fields.get("target") else {
            if scaling != Scaling::default() {
                let message = format!("`{}` says how to scale, but not at what load", fields.path);
                self.log
                    .error_with_hint(fields.mark, message, "add `target: { cpu: 60 }`");
            }
            return None;
        };
        if let Some(count) = fields.get("count") {
            let hint = "give `min` and `max` instead";
            count.reject_with_hint("makes no sense together with `target`", hint, self.log);
        }
        let inner = target.fields(&keys::TARGET, self.log)?;
        let Some(cpu) = inner.get("cpu") else {
            target.reject("needs `cpu`, in per cent", self.log);
            return None;
        };
        let what = "a number of per cent from 1 to 100";
        let target_cpu_percent = cpu.number::<f64>(what, self.log)?;
        if !(1.0..=100.0).contains(&target_cpu_percent) {
            cpu.reject(
                &format!("must be {what}, but is {target_cpu_percent}"),
                self.log,
            );
            return None;
        }
        Some(Scaling {
            target_cpu_percent,
            ..scaling
        })
    }

    /// Values as they would stand on the command line; a list is joined by commas.
    fn options(&mut self, field: &Field<'_>) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        for (name, field) in field.members(self.log) {
            let value = match &field.node.value {
                _ if field.node.is_null() => String::new(),
                Value::List(_) => {
                    let items = field.items(self.log);
                    let items: Vec<String> = items
                        .iter()
                        .filter_map(|item| item.text(self.log))
                        .collect();
                    items.join(",")
                }
                _ => field.text(self.log).unwrap_or_default(),
            };
            options.insert(name.to_owned(), value);
        }
        options
    }
}

fn one_machine() -> Fleet {
    Fleet {
        min: 1,
        max: 1,
        ..Fleet::default()
    }
}
