//! Sizes as people write them.

/// Mebibytes: `512M`, `1G`, `1.5GiB`; a bare number is MiB already.
pub fn parse_mib(text: &str) -> Result<u32, String> {
    let refuse = || format!("{text:?} is no size; write one like 512M or 2G");
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
        return Err(format!("{text:?} is no whole number of MiB of at least one"));
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
        for text in ["", "M", "0", "0.3M", "-1G", "1K", "1e9", "999999T", "12 M"] {
            assert!(parse_mib(text).is_err(), "{text:?}");
        }
    }
}
