//! Environment variables of programs: `--env` and `--env-file`.
//!
//! Arguments of a process are visible to every user of the machine. A name alone, and a file, keep a value out of them.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use microsandbox_core::model::EnvVar;
use microsandbox_core::names;
use microsandbox_core::validate::ENV_TOTAL;

use crate::flags::key_value::parse_env;
use crate::flags::word::parsed;
use crate::output::failure::{Failure, Outcome};
use crate::terminal::console::{Console, Input};

/// The flags.
#[derive(Debug, Args)]
pub struct EnvFlags {
    /// Environment variable; may be repeated. KEY alone copies the variable of this shell, which keeps its value out of the
    /// list of processes.
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parsed(parse_env))]
    env: Vec<EnvVar>,
    /// File of environment variables, one a line: KEY=VALUE, KEY to copy a variable of this shell, or a comment after #.
    /// `-` is standard input. May be repeated; --env takes precedence.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl EnvFlags {
    /// The variables of the files, then those of `--env`; each key once, with its last value.
    pub fn variables(&self, console: &Console) -> Outcome<Vec<EnvVar>> {
        let mut variables = Vec::new();
        for path in &self.env_file {
            variables.extend(read(path, console)?);
        }
        variables.extend(self.env.iter().cloned());
        Ok(last_of_each(variables))
    }
}

/// Each key once, where it stands last.
fn last_of_each(variables: Vec<EnvVar>) -> Vec<EnvVar> {
    let mut seen = HashSet::new();
    let last = variables.into_iter().rev().filter(|variable| seen.insert(variable.key.clone()));
    let mut kept: Vec<EnvVar> = last.collect();
    kept.reverse();
    kept
}

fn read(path: &Path, console: &Console) -> Outcome<Vec<EnvVar>> {
    let shown = path.display();
    let text = content(path, console)
        .map_err(|error| Failure::message(format!("--env-file {shown}: cannot read the file: {error}")))?;
    if text.len() > ENV_TOTAL {
        return Err(Failure::hinted(
            format!("--env-file {shown}: the file is larger than {ENV_TOTAL} bytes (sandbox.env_total)"),
            "all variables of a sandbox together have this limit; give larger data as a file of the sandbox",
        ));
    }
    parse(&text).map_err(|(line, why)| Failure::message(format!("--env-file {shown}: line {line}: {why}")))
}

/// One byte more than the limit shows that there is more.
fn content(path: &Path, console: &Console) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    let most = ENV_TOTAL as u64 + 1;
    match (path.as_os_str().as_bytes(), &console.input) {
        (b"-", _) if console.in_is_terminal => return Err(io::Error::other("standard input is a terminal")),
        (b"-", Input::Host) => io::stdin().lock().take(most).read_to_end(&mut data)?,
        (b"-", Input::Bytes(bytes)) => bytes.as_ref().take(most).read_to_end(&mut data)?,
        _ => std::fs::File::open(path)?.take(most).read_to_end(&mut data)?,
    };
    Ok(data)
}

/// The format of `docker run --env-file`: no quoting, no expansion. The error never contains a value.
fn parse(text: &[u8]) -> Result<Vec<EnvVar>, (usize, String)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut variables = Vec::new();
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let at = |why: String| (number + 1, why);
        let key = line.split(|&byte| byte == b'=').next().unwrap_or_default();
        if key.iter().any(u8::is_ascii_whitespace) {
            return Err(at("the name of the variable contains a space".into()));
        }
        variables.push(parse_env(&names::to_text(line)).map_err(at)?);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[u8]) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|variable| (variable.key, variable.value)).collect()
    }

    #[test]
    fn a_file_has_a_variable_a_line_and_takes_values_as_they_are() {
        let text = b"\xef\xbb\xbfA=1\r\n# a comment\n\n  B= two = 2 \nC=\"q\"\nD=\n";
        let expected = [("A", "1"), ("B", " two = 2 "), ("C", "\"q\""), ("D", "")];
        assert_eq!(pairs(text), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let path = std::env::var("PATH").unwrap();
        assert_eq!(pairs(b"PATH"), [("PATH".to_owned(), path)]);
    }

    #[test]
    fn of_many_variables_each_key_is_kept_where_it_is_last() {
        let variable = |key: usize, value: &str| EnvVar { key: key.to_string(), value: value.into() };
        // About as many as a file of the largest size holds.
        let first = (0..200_000).map(|key| variable(key, "first"));
        let kept =
            last_of_each(first.chain([variable(7, "second"), variable(3, "second"), variable(7, "third")]).collect());
        assert_eq!(kept.len(), 200_000);
        let [.., before, three, seven] = kept.as_slice() else { panic!("three at least") };
        assert_eq!((&before.key[..], &before.value[..]), ("199999", "first"));
        assert_eq!((&three.key[..], &three.value[..]), ("3", "second"));
        assert_eq!((&seven.key[..], &seven.value[..]), ("7", "third"));
    }

    #[test]
    fn the_error_of_a_line_names_the_line_and_no_value() {
        for (text, line) in [(&b"A=1\nB C=secret"[..], 2), (b"=secret", 1), (b"\nMSB_NOT_SET_HERE", 2)] {
            let (number, why) = parse(text).unwrap_err();
            assert!(number == line && !why.contains("secret"), "{number} {why}");
        }
    }
}
