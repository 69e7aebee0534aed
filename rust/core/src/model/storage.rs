//! What uses how much of the disk.

use serde::Serialize;

/// Everything that this product keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StorageUsage {
    pub images: StorageCategory,
    pub snapshots: StorageCategory,
    pub sandboxes: StorageCategory,
    pub volumes: StorageCategory,
    pub branch_memory: StorageCategory,
    pub snapshot_memory: StorageCategory,
    pub notes: Vec<String>,
}

/// All things of one kind. A layer that several images share counts once in the sums.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StorageCategory {
    pub count: u64,
    pub in_use: u64,
    pub logical_bytes: u64,
    pub allocated_bytes: u64,
    pub reclaimable_logical_bytes: Option<u64>,
    pub items: Vec<StorageItem>,
    pub notes: Vec<String>,
}

/// One thing on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StorageItem {
    pub name: String,
    pub path: String,
    pub logical_bytes: u64,
    pub allocated_bytes: u64,
    pub in_use: bool,
    pub reclaimable: bool,
    /// What uses it.
    pub reasons: Vec<String>,
}

impl StorageCategory {
    /// Adds an item and its sizes.
    pub fn add(&mut self, item: StorageItem) {
        self.count += 1;
        self.in_use += u64::from(item.in_use);
        self.logical_bytes += item.logical_bytes;
        self.allocated_bytes += item.allocated_bytes;
        if item.reclaimable {
            *self.reclaimable_logical_bytes.get_or_insert(0) += item.logical_bytes;
        }
        self.items.push(item);
    }
}
