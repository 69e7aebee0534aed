//! Lists in messages: an element of one byte on the wire takes a hundred bytes in memory, so a frame of 4 MiB that its
//! sender fills with empty elements is refused while it is decoded, not afterwards.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Most memory that one decoded list takes.
pub const LIST_MEMORY: usize = 16 << 20;

/// Memory that an element holds beyond its own size.
pub(super) trait Weigh {
    fn held(&self) -> usize;
}

impl Weigh for String {
    fn held(&self) -> usize {
        self.capacity()
    }
}

/// For `deserialize_with`: a list that takes at most [`LIST_MEMORY`].
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Weigh,
{
    deserializer.deserialize_seq(Elements(PhantomData))
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Weigh> Visitor<'de> for Elements<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        let mut taken = 0;
        while let Some(element) = elements.next_element::<T>()? {
            taken += size_of::<T>() + element.held();
            if taken > LIST_MEMORY {
                return Err(A::Error::custom(format!("a list that takes more than {LIST_MEMORY} bytes of memory")));
            }
            list.push(element);
        }
        Ok(list)
    }
}
