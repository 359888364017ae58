//! Making room: which module is unloaded where the limits are passed, or would be.

use microfaas_control::{Load, ToNode};
use microfaas_sys::clock::cycles;

use super::{Module, Modules};
use crate::function::Target;

impl Modules {
    /// Unloads the module that was used least recently of those that may go, where there is no room: for what is to be loaded, or for what is. `is_in_use` says whether
    /// a call of a function number is suspended or waits. Returns what to tell the node.
    #[cold]
    pub fn evict(&mut self, request: Option<&Load>, is_in_use: impl Fn(u32) -> bool) -> Option<ToNode> {
        let (count, bytes) = request.map_or((0, 0), |request| {
            let known = self.find_module(request.module).map_or(0, |module| module.bytes);
            (1, known.max(request.image_bytes))
        });
        if self.room.fits(count, bytes) {
            self.crowded = false;
            return None;
        }
        let newest = if request.is_none() { self.newest } else { None };
        let may_go = |(number, module): &(&u32, &Module)| {
            module.instance.is_some() && !module.stays && !module.is_pinned && Some(**number) != newest
        };
        let (mut oldest, mut is_any_busy) = (None, false);
        let now = cycles();
        for (number, module) in self.known.iter().filter(may_go) {
            if module.functions.iter().any(|&function| is_in_use(function)) {
                is_any_busy = true;
                continue;
            }
            let age = self.age(module, now);
            if oldest.is_none_or(|(_, least)| age > least) {
                oldest = Some((*number, age));
            }
        }
        let Some((number, _)) = oldest else {
            self.crowded = is_any_busy;
            return None;
        };
        let (functions, instance, bytes) = {
            let module = self.known.get_mut(&number)?;
            (module.functions.clone(), module.instance.take()?, module.bytes)
        };
        for function in functions {
            self.set(function, Target::Cold(number));
        }
        let stayed_bytes = self.drop_instance(instance, bytes);
        if let Some(module) = self.known.get_mut(&number) {
            module.is_pinned = stayed_bytes > 0;
        }
        Some(ToNode::Evicted { module: number, stayed_bytes })
    }

    /// Cycles since the latest use.
    fn age(&self, module: &Module, now: u64) -> u64 {
        let rows = module.functions.iter().filter_map(|&f| self.targets.get(f as usize)?.loaded());
        rows.map(|function| now.wrapping_sub(function.used)).min().unwrap_or(u64::MAX)
    }
}
