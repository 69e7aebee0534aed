//! What this home uses of the disk, by category.

use std::path::PathBuf;

use microsandbox_core::error::MicrosandboxResult;
use microsandbox_core::model::{Owners, StorageCategory, StorageItem, StorageUsage};
use microsandbox_home::{Home, blocking, disk_use};
use microsandbox_images as images;
use microsandbox_store::SandboxRow;

/// Entries of one tree that are looked at; beyond, a note says that there are more.
const COUNTED: usize = 200_000;
const NO_MEMORY: &str = "this product keeps no memory files";

pub async fn usage(home: &Home) -> MicrosandboxResult<StorageUsage> {
    let none = || StorageCategory { notes: vec![NO_MEMORY.into()], ..StorageCategory::default() };
    let mut usage = StorageUsage {
        images: images::usage(home, COUNTED).await?,
        sandboxes: sandboxes(home).await?,
        volumes: volumes(home).await?,
        branch_memory: none(),
        snapshot_memory: none(),
        ..StorageUsage::default()
    };
    let (host, runtime) = (home.cache_dir().join("host"), home.cache_dir().join("runtime"));
    let cached = blocking(move || Ok(disk_use::tree(&host, COUNTED).and(disk_use::tree(&runtime, COUNTED)))).await?;
    usage.notes.push(format!(
        "{} bytes more are the layers that every sandbox has and those of the image host",
        cached.allocated()
    ));
    Ok(usage)
}

async fn sandboxes(home: &Home) -> MicrosandboxResult<StorageCategory> {
    let mut found = Vec::new();
    let of_row = |row: SandboxRow| {
        let live = row.status.is_live();
        let reasons = if live { vec![format!("it is {}", row.status)] } else { Vec::new() };
        found.push((row.name.clone(), home.sandbox_dir(&row.name), reasons));
        Ok(())
    };
    home.store().await?.each_sandbox(of_row).await?;
    measure(found).await
}

async fn volumes(home: &Home) -> MicrosandboxResult<StorageCategory> {
    let store = home.store().await?;
    let mut found = Vec::new();
    for row in store.volumes(&Owners::All, None).await? {
        let holders = store.volume_holders(&row.name).await?;
        let reasons = holders.into_iter().map(|holder| format!("sandbox {holder}")).collect();
        found.push((row.name.clone(), home.config().volume_path(&row.name), reasons));
    }
    measure(found).await
}

/// Names, places, and what uses them.
async fn measure(found: Vec<(String, PathBuf, Vec<String>)>) -> MicrosandboxResult<StorageCategory> {
    blocking(move || {
        let mut category = StorageCategory { reclaimable_logical_bytes: Some(0), ..StorageCategory::default() };
        for (name, path, reasons) in found {
            let used = disk_use::tree(&path, COUNTED);
            if used.is_partial {
                let text =
                    format!("{name} has more than {COUNTED} entries or unreadable ones: its size is a part of it");
                category.notes.push(text);
            }
            category.add(StorageItem {
                name,
                path: path.display().to_string(),
                logical_bytes: used.content(),
                allocated_bytes: used.allocated(),
                in_use: !reasons.is_empty(),
                reclaimable: reasons.is_empty(),
                reasons,
            });
        }
        Ok(category)
    })
    .await
}
