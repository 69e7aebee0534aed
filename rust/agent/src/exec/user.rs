//! User strings and the account files, without libc's name service.
//!
//! Accepted: `name`, `uid`, `uid:gid`, `uid:group`, `name:group`, `name:gid`. The whole string must fit, or it is an
//! error; 4294967295 (which `setresuid` reads as "keep") is never a user. As with other container tools a uid that
//! `/etc/passwd` does not list belongs to group 0.

use std::cell::RefCell;
use std::io::Read;
use std::time::Duration;

use microsandbox_protocol::names;
use rustix::fs::{Mode, OFlags};

use crate::files::root::Root;
use crate::machine::init::realtime_ns;

use super::failure::{Failure, FailureKind, quote};

/// Larger account files are read up to here.
const MAX_FILE: u64 = 4 << 20;
/// The kernel's NGROUPS_MAX.
const MAX_GROUPS: usize = 65_536;

/// Whom a session runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
    pub home: String,
    /// Absent for a uid without an entry.
    pub name: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Who<'a> {
    Id(u32),
    Name(&'a str),
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves `text` with the account files beneath `root`.
pub fn resolve(root: &Root, text: &str) -> Result<Account, Failure> {
    FILES.with_borrow_mut(|[passwd, group]| {
        passwd.refresh(root, "/etc/passwd");
        group.refresh(root, "/etc/group");
        resolve_in(text, &passwd.text, &group.text)
    })
}

thread_local! {
    /// The account files as they were last read: on the file system of a virtual machine a look is cheap and a read is not.
    static FILES: RefCell<[AccountFile; 2]> = const { RefCell::new([AccountFile::new(), AccountFile::new()]) };
}

/// One account file.
struct AccountFile {
    text: String,
    /// What it looked like when it was read; absent where it has to be read again in any case.
    stamp: Option<Stamp>,
}

/// Device, inode, size, and the times of the last change of content and of attributes, in nanoseconds.
type Stamp = (u64, u64, i64, i128, i128);

/// A file that was changed this recently may be changed again without its times telling.
const SETTLED: Duration = Duration::from_secs(2);

impl AccountFile {
    const fn new() -> AccountFile {
        AccountFile { text: String::new(), stamp: None }
    }

    fn refresh(&mut self, root: &Root, path: &str) {
        let now = stamp(root, path);
        if now.is_some() && now == self.stamp {
            return;
        }
        self.text = read(root, path);
        self.stamp = now.filter(|now| i128::from(realtime_ns()) - now.3.max(now.4) > SETTLED.as_nanos() as i128);
    }
}

fn stamp(root: &Root, path: &str) -> Option<Stamp> {
    let file = root.open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let at = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let changed = at(stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    Some((stat.st_dev, stat.st_ino, stat.st_size, changed, at(stat.st_ctime as i64, stat.st_ctime_nsec as i64)))
}

fn read(root: &Root, path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = root.open_regular(path) {
        // A file that cannot be read to its end counts as what was read: names missing from it are reported.
        let _ = std::fs::File::from(file).take(MAX_FILE).read_to_end(&mut bytes);
    }
    names::to_text(&bytes).into_owned()
}

fn resolve_in(text: &str, passwd: &str, group: &str) -> Result<Account, Failure> {
    let (user, group_part) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = parse_part(user, text)?;
    let group_part = group_part.map(|part| parse_part(part, text)).transpose()?;
    let entry = passwd.lines().filter_map(passwd_entry).find(|entry| match user {
        Who::Id(uid) => entry.uid == uid,
        Who::Name(name) => entry.name == name,
    });
    let uid = match (&user, &entry) {
        (Who::Id(uid), _) => *uid,
        (Who::Name(_), Some(entry)) => entry.uid,
        (Who::Name(name), None) => return Err(unknown("user", name, "/etc/passwd")),
    };
    let name = entry.as_ref().map(|entry| entry.name);
    let gid = match group_part {
        Some(Who::Id(gid)) => gid,
        Some(Who::Name(wanted)) => group_id(group, wanted).ok_or_else(|| unknown("group", wanted, "/etc/group"))?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    // An explicit group stands alone, as with `docker run --user u:g`.
    let groups = match (group_part.is_some(), name) {
        (false, Some(name)) => supplementary(group, name, gid),
        _ => vec![gid],
    };
    let home = match &entry {
        Some(entry) if entry.home.starts_with('/') => entry.home.to_owned(),
        _ if uid == 0 => "/root".to_owned(),
        _ => "/".to_owned(),
    };
    Ok(Account { uid, gid, groups, home, name: name.map(str::to_owned) })
}

fn parse_part<'a>(part: &'a str, whole: &str) -> Result<Who<'a>, Failure> {
    let bad = || {
        let text = format!("user {} is not a name, uid, uid:gid or name:group", quote(whole));
        Failure::new(FailureKind::UserSetupFailed, "user", text)
    };
    if part.is_empty() || part.len() > 256 || part.starts_with(['-', '+']) {
        return Err(bad());
    }
    if part.bytes().all(|b| b.is_ascii_digit()) {
        return match part.parse::<u32>() {
            Ok(id) if id != u32::MAX => Ok(Who::Id(id)),
            _ => Err(bad()),
        };
    }
    if part.chars().any(|c| c == ':' || c == '/' || c.is_control() || c.is_whitespace()) {
        return Err(bad());
    }
    Ok(Who::Name(part))
}

fn unknown(what: &str, name: &str, file: &str) -> Failure {
    Failure::new(
        FailureKind::UserSetupFailed,
        "user",
        format!("{what} {} is not in {file} of the sandbox", quote(name)),
    )
}

fn passwd_entry(line: &str) -> Option<PasswdEntry<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1).unwrap_or("");
    Some(PasswdEntry { name, uid, gid, home })
}

fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = id(fields.nth(1)?)?;
    Some((name, gid, fields.next().unwrap_or("")))
}

fn group_id(group: &str, wanted: &str) -> Option<u32> {
    group.lines().filter_map(group_line).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid)
}

fn supplementary(group: &str, user: &str, primary: u32) -> Vec<u32> {
    let mut groups = vec![primary];
    for (_, gid, members) in group.lines().filter_map(group_line) {
        if groups.len() < MAX_GROUPS && members.split(',').any(|member| member == user) && !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\nbroken line\nbin:x:2:3::/bin:/x\ndup:x:2:9::/d:\n12x:x:77:78::/h:";
    const GROUP: &str = "root:x:0:\nwheel:x:10:bin,root\naudio:x:29:root,bin\nbad:x:y:bin\n";

    fn ids(text: &str) -> (u32, u32, Vec<u32>) {
        let account = resolve_in(text, PASSWD, GROUP).unwrap();
        (account.uid, account.gid, account.groups)
    }

    #[test]
    fn every_accepted_form_resolves() {
        assert_eq!(ids("root"), (0, 0, vec![0, 10, 29]));
        assert_eq!(ids("bin"), (2, 3, vec![3, 10, 29]));
        assert_eq!(ids("2"), (2, 3, vec![3, 10, 29]));
        assert_eq!(ids("2:7"), (2, 7, vec![7]));
        assert_eq!(ids("bin:wheel"), (2, 10, vec![10]));
        assert_eq!(ids("bin:29"), (2, 29, vec![29]));
        assert_eq!(ids("1234"), (1234, 0, vec![0]));
        assert_eq!(ids("12x"), (77, 78, vec![78]));
        assert_eq!(ids("4294967294").0, 4_294_967_294);
    }

    // hazard: A5
    #[test]
    fn strings_that_are_not_users_are_refused() {
        let bad = [
            "",
            ":",
            "0:",
            ":0",
            "0:0:0",
            "1e3",
            "-1",
            "+1",
            "4294967295",
            "4294967296",
            "root\n",
            " root",
            "root:nobody",
            "0:-1",
            "root/x",
            "99999999999999999999",
            "nobody",
            "bin:4294967295",
            "\u{0}",
            "0\u{0}",
        ];
        for text in bad {
            let failure = resolve_in(text, PASSWD, GROUP).unwrap_err();
            assert_eq!(failure.kind, FailureKind::UserSetupFailed, "{text:?}");
            assert!(!failure.message.contains('\n'), "control characters are escaped: {:?}", failure.message);
        }
    }
}
