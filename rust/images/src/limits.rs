//! The bounds of an import, and the one way to raise them: the environment variable `MSB_IMAGE_LIMITS`, a list of
//! `name=value` with the names of [`ImageLimits`], e.g. `layer_bytes=20GiB,entries=2000000`.

use microsandbox_contract::ImageLimits;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

pub const VARIABLE: &str = "MSB_IMAGE_LIMITS";
/// Bytes that are copied at a time.
pub const CHUNK: usize = 1 << 20;
/// Bytes written between two looks at the free space.
const LOOK_EVERY: u64 = 16 << 20;

/// Whether a file that grows from `before` to `after` bytes is to be preceded by a look at the free space.
pub fn is_look_due(before: u64, after: u64) -> bool {
    after / LOOK_EVERY != before / LOOK_EVERY
}

/// The defaults, with what the environment says.
pub fn current() -> MicrosandboxResult<ImageLimits> {
    match std::env::var(VARIABLE) {
        Ok(text) => parse(&text).map_err(|why| MicrosandboxError::InvalidConfig(format!("{VARIABLE}: {why}"))),
        Err(std::env::VarError::NotPresent) => Ok(ImageLimits::default()),
        Err(error) => Err(MicrosandboxError::InvalidConfig(format!("{VARIABLE}: {error}"))),
    }
}

fn parse(text: &str) -> Result<ImageLimits, String> {
    let mut limits = ImageLimits::default();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = item.split_once('=').ok_or_else(|| format!("{item:?} is not name=value"))?;
        let amount = amount(value.trim()).filter(|amount| *amount > 0);
        let amount = amount.ok_or_else(|| format!("{value:?} is not a positive number (K, M, G or KiB, MiB, GiB)"))?;
        let field = match name.trim() {
            "layer_bytes" => &mut limits.layer_bytes,
            "file_bytes" => &mut limits.file_bytes,
            "total_bytes" => &mut limits.total_bytes,
            "entries" => &mut limits.entries,
            "ratio" => &mut limits.ratio,
            "pax_bytes" => &mut limits.pax_bytes,
            "zstd_window_bytes" => &mut limits.zstd_window_bytes,
            "path_depth" => {
                limits.path_depth = u32::try_from(amount).map_err(|_| format!("path_depth {amount} is too large"))?;
                continue;
            }
            other => return Err(format!("there is no limit named {other:?}")),
        };
        *field = amount;
    }
    Ok(limits)
}

/// `20`, `20K`, `20KiB`, …: powers of 1024.
fn amount(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].trim_end_matches("iB") {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    // hazard: I10
    #[test]
    fn each_limit_can_be_raised_by_name() {
        let limits = parse("layer_bytes=20GiB, entries=2M,path_depth=256,ratio=1000").unwrap();
        assert_eq!(
            (limits.layer_bytes, limits.entries, limits.path_depth, limits.ratio),
            (20 << 30, 2 << 20, 256, 1000)
        );
        assert_eq!(limits.file_bytes, ImageLimits::default().file_bytes);
        assert_eq!(parse("").unwrap().entries, ImageLimits::default().entries);
    }

    #[test]
    fn wrong_limits_are_named() {
        for text in
            ["layers=1", "entries", "entries=0", "entries=-1", "entries=1X", "entries=99999999999T", "path_depth=9G"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
