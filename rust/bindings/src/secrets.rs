//! What `create` takes for secrets: checked, then refused by name.

use pyo3::prelude::*;

use crate::arguments::{count_of, dataclass, newtype};
use crate::enums::{Member, ViolationAction};

newtype!(
    /// How many there are, each checked.
    Secrets(usize) = |object| count_of(object, "SecretEntry")
);
newtype!(
    /// `ViolationAction` or `ViolationPolicy`; checked only.
    Violation(()) = |object| match object.extract::<Member<ViolationAction>>() {
        Ok(_) => Ok(()),
        Err(error) => dataclass(object, "ViolationPolicy").map_err(|_| error),
    }
);
