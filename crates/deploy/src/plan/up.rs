//! up
use super::{Plan, Settings};
use crate::error::PlanError;
use crate::observe::Observed;
use windlass_compose::model::Project;
/// up
pub fn plan(_: &Project, _: &Observed, _: &Settings) -> Result<Plan, PlanError> {
    Ok(Plan::default())
}
