//! What is deployed, as readers see it.

use std::collections::HashMap;

use microfaas_control::admin::{FunctionDescription, ModuleInfo};

use crate::call::nanoseconds;
use crate::function::FunctionInfo;
use crate::node::Shared;
use crate::seat::WorkerState;

/// What readers see, all of it from one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) by_name: HashMap<String, u32>,
    /// In the order of their numbers.
    pub(crate) functions: Vec<FunctionInfo>,
    /// In the order of their names. In how many workers they are loaded is filled in by [`with_stock`](Self::with_stock).
    pub(crate) modules: Vec<ModuleInfo>,
    /// Of the module of the same place: what workers load.
    pub(crate) parts: Vec<Vec<u32>>,
    /// Whose a number is or was that submissions carry, of all that there are. A name keeps its numbers.
    pub(crate) owners: Vec<String>,
}

impl Catalog {
    /// The modules, with how many of the workers that serve have them loaded.
    pub(crate) fn with_stock(&self, shared: &Shared) -> impl Iterator<Item = ModuleInfo> {
        let serving: Vec<bool> =
            shared.seats.iter().map(|seat| seat.info().state == WorkerState::Serving).collect();
        let workers = serving.iter().filter(|serves| **serves).count();
        self.modules.iter().zip(&self.parts).map(move |(module, parts)| {
            let loaded_in = shared.stock.loaded_in(parts, |worker| serving.get(worker) == Some(&true));
            ModuleInfo { loaded_in, workers, ..module.clone() }
        })
    }

    pub(crate) fn describe(&self, shared: &Shared, name: &str) -> Option<FunctionDescription> {
        let info = self.functions.iter().find(|info| info.name == name)?;
        let module = self.with_stock(shared).find(|module| module.functions.iter().any(|of| of == name))?;
        Some(FunctionDescription {
            name: info.name.clone(),
            id: info.id,
            deadline_ns: Some(nanoseconds(info.deadline)).filter(|&ns| ns != u64::MAX),
            idempotent: info.idempotent,
            concurrency: info.concurrency,
            limits: info.limits,
            module,
            banned: None,
        })
    }
}
