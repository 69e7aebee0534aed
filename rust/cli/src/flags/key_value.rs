//! `KEY=VALUE` arguments.

use std::os::unix::ffi::OsStrExt as _;

use microsandbox_core::model::{EnvVar, Rlimit};
use microsandbox_core::names;

/// Splits at the first `=`; the key must not be empty.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} must be KEY=VALUE")),
    }
}

/// An environment variable. A name alone copies the variable of this process. The error contains no value.
pub fn parse_env(text: &str) -> Result<EnvVar, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, value.to_owned()),
        None => (text, of_this_process(text)?),
    };
    if key.is_empty() {
        return Err("the name of the variable is empty: it must be KEY=VALUE or KEY".into());
    }
    Ok(EnvVar { key: key.to_owned(), value })
}

fn of_this_process(key: &str) -> Result<String, String> {
    let value = std::env::var_os(names::to_os(key));
    let value = value.ok_or_else(|| format!("{key} is not set in this shell: set it, or write {key}=VALUE"))?;
    Ok(names::to_text(value.as_bytes()).into_owned())
}

/// `nofile=1024` or `nofile=1024:4096` (soft, hard); `unlimited` is accepted as a number.
pub fn parse_rlimit(text: &str) -> Result<Rlimit, String> {
    let refuse = || format!("{text:?} must be NAME=SOFT[:HARD], like nofile=1024:4096");
    let (resource, values) = text.split_once('=').ok_or_else(refuse)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |value: &str| match value {
        "unlimited" => Ok(u64::MAX),
        _ => value.parse::<u64>().map_err(|_| refuse()),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    let resource = resource.to_ascii_lowercase();
    if resource.is_empty() || soft > hard {
        return Err(refuse());
    }
    Ok(Rlimit { resource, soft, hard })
}

/// `NAME=BODY` with escapes decoded: `\n`, `\t`, `\r`, `\\`, `\0`.
pub fn parse_script(text: &str) -> Result<(String, String), String> {
    let (name, body) = parse_pair(text)?;
    let mut decoded = String::with_capacity(body.len());
    let mut characters = body.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            decoded.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => decoded.push('\n'),
            Some('t') => decoded.push('\t'),
            Some('r') => decoded.push('\r'),
            Some('0') => decoded.push('\0'),
            Some('\\') => decoded.push('\\'),
            // Any other escape is kept unchanged, for the shell that runs the script.
            Some(other) => decoded.extend(['\\', other]),
            None => decoded.push('\\'),
        }
    }
    Ok((name, decoded))
}

/// `NAME:PATH`; the body is the text of that file.
pub fn read_script(text: &str) -> Result<(String, String), String> {
    let (name, path) =
        text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or(format!("{text:?} must be NAME:PATH"))?;
    let body = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok((name.to_owned(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_contain_equal_signs() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_pair("a="), Ok(("a".into(), String::new())));
        assert!(parse_pair("=b").is_err());
        assert!(parse_pair("a").is_err());
    }

    #[test]
    fn a_name_alone_copies_the_variable_of_this_process() {
        assert_eq!(parse_env("PATH").unwrap().value, std::env::var("PATH").unwrap());
        assert!(parse_env("MSB_NOT_SET_HERE").unwrap_err().contains("not set"));
        assert!(parse_env("").is_err());
        assert!(!parse_env("=secret").unwrap_err().contains("secret"));
    }

    #[test]
    fn limits_have_a_soft_and_a_hard_value() {
        let limit = parse_rlimit("NOFILE=1:unlimited").unwrap();
        assert_eq!((limit.resource.as_str(), limit.soft, limit.hard), ("nofile", 1, u64::MAX));
        assert_eq!(parse_rlimit("cpu=5").map(|l| (l.soft, l.hard)), Ok((5, 5)));
        for text in ["nofile", "nofile=", "=1", "nofile=2:1", "nofile=-1", "nofile=a"] {
            assert!(parse_rlimit(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn script_escapes_are_decoded() {
        assert_eq!(parse_script(r"hi=a\nb\\n\x").unwrap().1, "a\nb\\n\\x");
    }
}
