//! Changing a sandbox that exists.

use microsandbox_core::model::{self, Modification};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::convert::{Cpus, Env, Flag, Mib, ModificationPolicy, StrMap, Text, Texts, keywords};

keywords! {
    /// What of `modify` this build has.
    pub struct ModifyKeywords {
        cpus: Cpus,
        max_cpus: Cpus,
        memory: Mib,
        max_memory: Mib,
        env: Env,
        env_rm: Texts,
        labels: StrMap,
        labels_rm: Texts,
        workdir: Text,
        policy: ModificationPolicy,
        dry_run: Flag,
    }
}

impl ModifyKeywords {
    pub fn request(self) -> Modification {
        let policy = self.policy.as_ref().map(|policy| policy.0.as_str());
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
            policy: model::ModificationPolicy::ALL
                .into_iter()
                .find(|known| Some(known.as_str()) == policy)
                .unwrap_or_default(),
            dry_run: self.dry_run.is_some_and(|flag| flag.0),
        }
    }
}

/// What came of it, as plain values; the Python layer makes members of enums of them.
pub struct Plan(pub model::ModificationPlan);

impl<'py> IntoPyObject<'py> for Plan {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let plan = self.0;
        let dict = PyDict::new(py);
        dict.set_item("sandbox", plan.sandbox)?;
        dict.set_item("status", plan.status.as_str().to_lowercase())?;
        dict.set_item("applied", plan.applied)?;
        dict.set_item("policy", plan.policy.as_str())?;
        let changes = PyList::empty(py);
        for change in plan.changes {
            let (kind, disposition) = (change.change.as_str(), change.disposition.as_str());
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
        let told = |said: Vec<model::ModificationConflict>| {
            said.into_iter().map(|said| (said.field, said.message)).collect::<Vec<_>>()
        };
        dict.set_item("conflicts", told(plan.conflicts))?;
        dict.set_item("warnings", told(plan.warnings))?;
        let resized = plan.resized.into_iter().map(|r| (r.resource, r.requested, r.actual, r.enforced));
        dict.set_item("resize_status", resized.collect::<Vec<_>>())?;
        Ok(dict)
    }
}
