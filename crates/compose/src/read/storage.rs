//! The top-level `volumes` and `networks`.

use std::collections::BTreeMap;

use super::Reader;
use crate::field::{Field, Fields};
use crate::keys;
use crate::model::{NetworkDecl, VolumeDecl};
use crate::node::Value;

impl Reader<'_> {
    pub(super) fn volumes(&mut self, top: &Fields<'_>) -> BTreeMap<String, VolumeDecl> {
        let mut volumes = BTreeMap::new();
        for (key, field) in self.declared("volumes", top) {
            let decl = self.volume(key, &field);
            volumes.insert(key.to_owned(), decl);
        }
        volumes
    }

    pub(super) fn networks(&mut self, top: &Fields<'_>) -> BTreeMap<String, NetworkDecl> {
        let mut networks = BTreeMap::new();
        for (key, field) in self.declared("networks", top) {
            let decl = self.network(key, &field);
            networks.insert(key.to_owned(), decl);
        }
        networks
    }

    fn declared<'n>(&mut self, kind: &str, top: &Fields<'n>) -> Vec<(&'n str, Field<'n>)> {
        let members = top
            .get(kind)
            .map(|field| field.members(self.log))
            .unwrap_or_default();
        members
            .iter()
            .for_each(|(name, field)| self.check_name(name, field));
        members
    }

    fn volume(&mut self, key: &str, field: &Field<'_>) -> VolumeDecl {
        let mut decl = VolumeDecl {
            name: format!("{}_{key}", self.project),
            ..VolumeDecl::default()
        };
        if field.node.is_null() {
            return decl;
        }
        let Some(fields) = field.fields(&keys::VOLUME, self.log) else {
            return decl;
        };
        self.expect_driver(&fields, "local");
        (decl.name, decl.external) = self.name_of(key, &fields);
        decl.options = fields.pairs("driver_opts", self.log);
        decl.labels = fields.pairs("labels", self.log);
        decl
    }

    fn network(&mut self, key: &str, field: &Field<'_>) -> NetworkDecl {
        let mut decl = NetworkDecl {
            name: format!("{}_{key}", self.project),
            ..NetworkDecl::default()
        };
        if field.node.is_null() {
            return decl;
        }
        let Some(fields) = field.fields(&keys::NETWORK, self.log) else {
            return decl;
        };
        self.expect_driver(&fields, "bridge");
        (decl.name, decl.external) = self.name_of(key, &fields);
        decl.internal = fields.flag("internal", self.log);
        decl.labels = fields.pairs("labels", self.log);
        decl
    }

    fn expect_driver(&mut self, fields: &Fields<'_>, only: &str) {
        let Some(field) = fields.get("driver") else {
            return;
        };
        match field.string(self.log) {
            Some(driver) if driver != only && driver != "default" => {
                field.reject(
                    &format!("is `{driver}`, but windlass has `{only}` only"),
                    self.log,
                );
            }
            _ => {}
        }
    }

    /// The name on the engine, and whether it is made elsewhere. `external: {name: x}` is the old way to say both.
    fn name_of(&mut self, key: &str, fields: &Fields<'_>) -> (String, bool) {
        let name = fields.string("name", self.log);
        let Some(external) = fields.get("external") else {
            return (
                name.unwrap_or_else(|| format!("{}_{key}", self.project)),
                false,
            );
        };
        if let (Value::Map(_), Some(old)) = (&external.node.value, external.node.get("name")) {
            let path = format!("{}.name", external.path);
            let old = Field { node: old, path }.string(self.log);
            return (name.or(old).unwrap_or_else(|| key.to_owned()), true);
        }
        match external.boolean(self.log) {
            Some(true) => (name.unwrap_or_else(|| key.to_owned()), true),
            _ => (
                name.unwrap_or_else(|| format!("{}_{key}", self.project)),
                false,
            ),
        }
    }
}
