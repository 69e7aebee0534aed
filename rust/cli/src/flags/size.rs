//! Notation of sizes on the command line.
//!
//! No library: `bytesize` reads `512M` as 512,000,000 bytes, where every container tool means 2^20; `parse-size`
//! refuses `.5G`, and it accepts `6i`, `9eG` and `1_ 2`, so that a typing error becomes the memory of a sandbox.

/// Mebibytes: `512M`, `1G`, `1.5GiB`; a number without a unit is MiB.
pub fn parse_mib(text: &str) -> Result<u32, String> {
    let refuse = || format!("{text:?} is not a size; examples: 512M, 2G, 1.5GiB");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let scale = match unit.as_str() {
        "" | "m" | "mb" | "mib" => 1.0,
        "g" | "gb" | "gib" => 1024.0,
        "t" | "tb" | "tib" => 1024.0 * 1024.0,
        _ => return Err(refuse()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(refuse());
    }
    let mib = digits.parse::<f64>().map_err(|_| refuse())? * scale;
    if mib < 1.0 || mib > f64::from(u32::MAX) || mib.fract() != 0.0 {
        return Err(format!("{text:?} must be a whole number of MiB, from 1 to {}", u32::MAX));
    }
    Ok(mib as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_mebibytes() {
        assert_eq!(parse_mib("512M"), Ok(512));
        assert_eq!(parse_mib("1G"), Ok(1024));
        assert_eq!(parse_mib("1.5GiB"), Ok(1536));
        assert_eq!(parse_mib("256"), Ok(256));
        for text in ["1", "1m", "1mb", "1MB", "1MiB"] {
            assert_eq!(parse_mib(text), Ok(1), "{text:?}");
        }
        assert_eq!(parse_mib(".5G"), Ok(512));
        assert_eq!(parse_mib("4095T"), Ok(4095 << 20));
        for text in [
            "", "M", "0", "0.3M", "-1G", "1K", "4096T", "999999T", "1E", "12X", "12 M", "6i", "9eG", "1e9", "1M1",
            "1.2.3G", "inf", "nan",
        ] {
            assert!(parse_mib(text).is_err(), "{text:?}");
        }
    }
}
