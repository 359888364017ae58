//! What an attached host knows of the node's functions: names with numbers of the host's own, which stay, and what each stands for in the node now.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use microfaas_control::attach::Function;

use crate::FunctionInfo;
use crate::catalog::Catalog;
use crate::names::{Entry, NAMES_MAX};
use crate::node::Shared;

/// See the module. It outlives connections, and so do the handles of the host's callers.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    /// Of every name that the host has ever been told of.
    numbers: HashMap<String, u32>,
    /// The table that is being received.
    rows: Vec<Function>,
}

impl Mirror {
    /// Takes a part of the node's table. When it is whole, it is what holds.
    ///
    /// # Errors
    /// Where the node tells of more functions than there can be.
    pub(crate) fn receive(
        &mut self,
        shared: &Shared,
        first: bool,
        last: bool,
        part: Vec<Function>,
    ) -> io::Result<()> {
        if first {
            self.rows.clear();
        }
        self.rows.extend(part);
        if last {
            let rows = std::mem::take(&mut self.rows);
            self.show(shared, &rows)?;
        }
        Ok(())
    }

    /// Makes callers see this table.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(crate) fn show(&mut self, shared: &Shared, rows: &[Function]) -> io::Result<()> {
        let mut catalog = Catalog::default();
        let mut entries = vec![None; self.numbers.len()];
        for row in rows {
            let next = self.numbers.len();
            let number =
                *self.numbers.entry(row.name.clone()).or_insert(u32::try_from(next).unwrap_or(u32::MAX));
            if number as usize >= NAMES_MAX {
                return Err(io::Error::other(format!("the node tells of more than {NAMES_MAX} functions")));
            }
            entries.resize(self.numbers.len(), None);
            entries[number as usize] = Some(Entry {
                function: row.id,
                deadline_ns: row.deadline_ns,
                concurrency: row.concurrency,
                is_lazy: row.is_lazy,
                is_idempotent: row.idempotent,
            });
            catalog.by_name.insert(row.name.clone(), number);
            catalog.functions.push(info(number, row));
        }
        catalog.functions.sort_by_key(|info| info.id);
        shared.names.publish(&entries);
        shared.catalog.store(Arc::new(catalog));
        Ok(())
    }
}

fn info(id: u32, row: &Function) -> FunctionInfo {
    let deadline =
        if row.deadline_ns == u64::MAX { Duration::MAX } else { Duration::from_nanos(row.deadline_ns) };
    FunctionInfo {
        id,
        name: row.name.clone(),
        module: row.module.clone().into(),
        deadline,
        idempotent: row.idempotent,
        limits: row.limits,
        concurrency: row.concurrency,
    }
}
