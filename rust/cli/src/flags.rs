//! Arguments that several verbs share, and the notations of values.
//!
//! | module | holds |
//! |---|---|
//! | `sandbox_flags` | a sandbox that does not exist yet: `run`, `create` |
//! | `mount`, `patch` | the parts of it that are mounts, and changes of its root file system |
//! | `image_source` | the IMAGE argument |
//! | `environment` | environment variables, also from files and from the environment of `msb` |
//! | `selection` | sandboxes by name and by label, and an action on each of them |
//! | `unsupported` | flags and verbs of the specification that this version refuses by name |
//! | `word` | words of a program inside, also those that are not UTF-8 |
//! | `duration`, `size`, `key_value`, `budget` | notations: `5m`, `512M`, `KEY=VALUE`, `memory=8G` |

pub mod budget;
pub mod duration;
pub mod environment;
pub mod image_source;
pub mod key_value;
pub mod mount;
pub mod patch;
pub mod sandbox_flags;
pub mod selection;
pub mod size;
pub mod unsupported;
pub mod word;
