//! Volumes.

use serde::{Deserialize, Serialize};

use super::*;
use crate::json::{null_when_no_entries, nullable};

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Volume {
    pub created_at: String,
    pub driver: String,
    #[serde(deserialize_with = "nullable", serialize_with = "null_when_no_entries")]
    pub labels: StringMap,
    pub mountpoint: String,
    pub name: String,
    #[serde(deserialize_with = "nullable", serialize_with = "null_when_no_entries")]
    pub options: StringMap,
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<VolumeUsage>,
}

/// How much a volume holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct VolumeUsage {
    pub size: i64,
    pub ref_count: i64,
}

/// The body of `POST /volumes/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct CreateVolume {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    #[serde(deserialize_with = "nullable")]
    pub driver_opts: StringMap,
    #[serde(deserialize_with = "nullable")]
    pub labels: StringMap,
}

/// The answer of `GET /volumes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct VolumeList {
    #[serde(deserialize_with = "nullable")]
    pub volumes: Vec<Volume>,
    pub warnings: Option<Vec<String>>,
}
