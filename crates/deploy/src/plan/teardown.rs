//! down
use super::{Plan, Volumes};
use crate::observe::Observed;
/// down
pub fn plan_down(_: &str, _: &Observed, _: Volumes) -> Plan {
    Plan::default()
}
