//! A provider as the command line registers it: its name, its options and how one is built from them.

use std::path::PathBuf;

use crate::{OptionSpec, OptionValues, Provider, Result};

/// What a provider is given besides its options.
#[derive(Clone, Debug)]
pub struct Context {
    /// The command line's state directory; a provider keeps its own files under `<state>/<driver>`.
    pub state: PathBuf,
    /// Where the binaries for hosts lie: `<binaries>/<arch>/<program>.gz`; `None` when none were found.
    pub binaries: Option<PathBuf>,
}

/// One row of the command line's table of drivers. Each provider crate has one as `DRIVER`.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// What `--driver` takes, and the prefix of its flags.
    pub name: &'static str,
    /// One line of help.
    pub summary: &'static str,
    /// Its options.
    pub options: &'static [OptionSpec],
    /// Builds the provider from resolved values (see [`crate::resolve`]); checks them, without touching anything outside.
    pub from_options: fn(&OptionValues, &Context) -> Result<Box<dyn Provider>>,
}

impl Driver {
    /// [`crate::resolve`] over this driver's options, then the provider built from the result.
    pub fn build(&self, given: &OptionValues, context: &Context) -> Result<Box<dyn Provider>> {
        (self.from_options)(&crate::resolve(self.name, self.options, given)?, context)
    }
}
