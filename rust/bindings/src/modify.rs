//! Changing a sandbox that exists.

use microsandbox_core::model::{self, Modification};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arguments::{Cpus, Env, Flag, Mib, StrMap, Texts, Word, Words, keywords};
use crate::enums::Member;

keywords! {
    /// What of `modify` this build has.
    pub struct ModifyKeywords {
        cpus: Cpus,
        max_cpus: Cpus,
        memory: Mib,
        max_memory: Mib,
        env: Env,
        env_rm: Words,
        labels: StrMap,
        labels_rm: Texts,
        workdir: Word,
        policy: Member<model::ModificationPolicy>,
        dry_run: Flag,
    }
}

impl ModifyKeywords {
    pub fn request(self) -> Modification {
        Modification {
            cpus: self.cpus.map(|cpus| cpus.0),
            max_cpus: self.max_cpus.map(|cpus| cpus.0),
            memory_mib: self.memory.map(|memory| memory.0),
            max_memory_mib: self.max_memory.map(|memory| memory.0),
            env: self.env.map(|env| env.0.into_iter().collect()).unwrap_or_default(),
            env_rm: self.env_rm.map(|texts| texts.0).unwrap_or_default(),
            labels: self.labels.map(|map| map.0).unwrap_or_default(),
            labels_rm: self.labels_rm.map(|texts| texts.0).unwrap_or_default(),
            workdir: self.workdir.map(|text| text.0),
            policy: self.policy.map(|policy| policy.0).unwrap_or_default(),
            dry_run: self.dry_run.is_some_and(|flag| flag.0),
        }
    }
}

/// What came of it; the Python layer makes the typed dictionaries of it.
pub struct Plan(pub model::ModificationPlan);

impl<'py> IntoPyObject<'py> for Plan {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let plan = self.0;
        let dict = PyDict::new(py);
        dict.set_item("sandbox", plan.sandbox)?;
        dict.set_item("status", Member(plan.status))?;
        dict.set_item("applied", plan.applied)?;
        dict.set_item("policy", Member(plan.policy))?;
        let changes = PyList::empty(py);
        for change in plan.changes {
            let (kind, disposition) = (Member(change.change), Member(change.disposition));
            changes.append((
                change.field,
                change.name,
                kind,
                disposition,
                change.before,
                change.after,
                change.reason,
            ))?;
        }
        dict.set_item("changes", changes)?;
        let pairs = |found: Vec<model::ModificationConflict>| {
            found.into_iter().map(|found| (found.field, found.message)).collect::<Vec<_>>()
        };
        dict.set_item("conflicts", pairs(plan.conflicts))?;
        dict.set_item("warnings", pairs(plan.warnings))?;
        let resized = plan.resized.into_iter().map(|r| (r.resource, r.requested, r.actual, r.enforced));
        dict.set_item("resize_status", resized.collect::<Vec<_>>())?;
        Ok(dict)
    }
}
