//! The mounts of a new sandbox as flags: `SRC:DEST[:OPTS]`.

use clap::Args;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::model::{Mount, MountOptions, MountPolicy, VolumeConfig};

use crate::flags::size::parse_mib;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};

/// Flags of mounts; each may be repeated.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Mounts")]
pub struct MountFlags {
    /// Mount a volume (a name; created if missing) or a host path (with a slash). OPTS, separated by commas: ro, rw,
    /// noexec, nosuid, nodev.
    #[arg(short = 'v', long, value_name = "SRC:DEST[:OPTS]")]
    volume: Vec<String>,
    /// Mount a host directory.
    #[arg(long, value_name = "PATH:DEST[:OPTS]")]
    mount_dir: Vec<String>,
    /// Mount a host file.
    #[arg(long, value_name = "PATH:DEST[:OPTS]")]
    mount_file: Vec<String>,
    /// Mount a volume; created if missing.
    #[arg(long, value_name = "NAME:DEST[:OPTS]")]
    mount_named: Vec<String>,
    /// Mount a tmpfs [default SIZE: half of the sandbox's memory].
    #[arg(long, value_name = "DEST[:SIZE[:OPTS]]")]
    tmpfs: Vec<String>,
}

impl MountFlags {
    /// Parents before children. Missing volumes are created.
    pub async fn mounts(&self, call: &Invocation) -> Outcome<Vec<Mount>> {
        let mut mounts = Vec::new();
        for text in &self.volume {
            let (source, guest, options) = parts(text)?;
            mounts.push(if source.contains('/') || source.starts_with('.') {
                bind(source, guest, options)?
            } else {
                named(source, guest, options)
            });
        }
        for text in self.mount_dir.iter().chain(&self.mount_file) {
            let (source, guest, options) = parts(text)?;
            mounts.push(bind(source, guest, options)?);
        }
        for text in &self.mount_named {
            let (source, guest, options) = parts(text)?;
            mounts.push(named(source, guest, options));
        }
        for text in &self.tmpfs {
            mounts.push(tmpfs(text)?);
        }
        for mount in &mounts {
            if let Mount::Named { name, .. } = mount {
                ensure(call, name).await?;
            }
        }
        mounts.sort_by_key(|mount| mount.guest().split('/').filter(|part| !part.is_empty()).count());
        Ok(mounts)
    }
}

async fn ensure(call: &Invocation, name: &str) -> Outcome<()> {
    let config = VolumeConfig { name: name.into(), ..VolumeConfig::default() };
    match call.backend.volumes().get(name).await {
        Err(MicrosandboxError::VolumeNotFound(_)) => match call.backend.volumes().create(config).await {
            Ok(_) | Err(MicrosandboxError::VolumeAlreadyExists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        },
        other => Ok(other.map(drop)?),
    }
}

fn parts(text: &str) -> Outcome<(&str, String, MountOptions)> {
    let mut words = text.splitn(3, ':');
    match (words.next(), words.next(), words.next()) {
        (Some(source), Some(guest), options) if !source.is_empty() && !guest.is_empty() => {
            Ok((source, guest.to_owned(), parse_options(options.unwrap_or_default())?))
        }
        _ => Err(Failure::Usage(format!("{text:?} is not a mount; write SRC:DEST[:OPTS]"))),
    }
}

fn parse_options(text: &str) -> Outcome<MountOptions> {
    let mut options = MountOptions::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => options.readonly = true,
            "rw" => options.readonly = false,
            "noexec" => options.noexec = true,
            "nosuid" => options.nosuid = true,
            "nodev" => options.nodev = true,
            other => {
                return Err(Failure::Usage(format!(
                    "{other:?} is not a mount option; the options are ro, rw, noexec, nosuid, nodev"
                )));
            }
        }
    }
    Ok(options)
}

fn bind(source: &str, guest: String, options: MountOptions) -> Outcome<Mount> {
    let host = std::path::absolute(source)
        .map_err(|error| Failure::message(format!("cannot use {source} as a mount source: {error}")))?;
    let host = host.to_string_lossy().into_owned();
    Ok(Mount::Bind { host, guest, options, policy: MountPolicy::default(), quota_mib: None })
}

fn named(name: &str, guest: String, options: MountOptions) -> Mount {
    Mount::Named { name: name.into(), guest, options, policy: MountPolicy::default() }
}

fn tmpfs(text: &str) -> Outcome<Mount> {
    let mut words = text.splitn(3, ':');
    let guest = words.next().unwrap_or_default().to_owned();
    let size_mib = match words.next().filter(|size| !size.is_empty()) {
        None => None,
        Some(size) => Some(u64::from(parse_mib(size).map_err(Failure::Usage)?)),
    };
    Ok(Mount::Tmpfs { guest, size_mib, options: parse_options(words.next().unwrap_or_default())? })
}
