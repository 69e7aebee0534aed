//! Which image of an index is meant: operating system, architecture, variant.

use super::document::Platform;
use super::plan::architecture;
use microsandbox_core::model::ImageInfo;

/// Longest list of platforms in an error.
const MAX_NAMED: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Wanted {
    pub fn this_machine() -> Wanted {
        Wanted { os: "linux".into(), architecture: architecture().into(), variant: None }
    }

    /// `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Result<Wanted, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        match parts.as_slice() {
            [os, architecture, rest @ ..] if rest.len() <= 1 && parts.iter().all(plain) => Ok(Wanted {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: rest.first().map(|variant| (*variant).to_owned()),
            }),
            _ => Err(format!("{text:?} is not a platform: write os/architecture or os/architecture/variant")),
        }
    }

    /// Whether an image is for this platform, whatever its variant unless one is demanded.
    pub fn is(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        (self.os.as_str(), self.architecture.as_str()) == (os, architecture)
            && self.variant.as_deref().is_none_or(|wanted| variant.unwrap_or(default_variant(architecture)) == wanted)
    }

    /// How well an image fits; the smallest is taken. `None`: not at all.
    pub fn rank(&self, platform: &Platform) -> Option<u32> {
        let variant = platform.variant.as_deref().filter(|variant| !variant.is_empty());
        if !self.is(&platform.os, &platform.architecture, variant) {
            return None;
        }
        // What every machine of the architecture can run comes before what only some can.
        let given = variant.unwrap_or(default_variant(&platform.architecture));
        Some(if given == default_variant(&platform.architecture) { 0 } else { 1 })
    }

    /// Whether a recorded image is for this platform; one that does not say is.
    pub fn fits(&self, info: &ImageInfo) -> bool {
        let matches = |own: &str, recorded: &Option<String>| recorded.as_deref().is_none_or(|recorded| recorded == own);
        matches(&self.os, &info.os) && matches(&self.architecture, &info.architecture)
    }

    pub fn describe(&self) -> String {
        named(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// What an absent variant means (the specification's platform table, as other tools read it).
fn default_variant(architecture: &str) -> &'static str {
    match architecture {
        "arm64" => "v8",
        "arm" => "v7",
        _ => "v1",
    }
}

/// A platform as people write it, cut to what fits in an error.
pub fn named(os: &str, architecture: &str, variant: Option<&str>) -> String {
    let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{os}/{architecture}{variant}").chars().take(64).collect()
}

/// The platforms that there are, each once.
#[derive(Debug, Default)]
pub struct Others(Vec<String>);

impl Others {
    pub fn note(&mut self, os: &str, architecture: &str, variant: Option<&str>) {
        // Attestations have the platform `unknown`, which no machine has.
        let name = named(os, architecture, variant);
        if os != "unknown" && self.0.len() < MAX_NAMED && !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    /// `for linux/arm64, linux/riscv64`; empty where there are none.
    pub fn list(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("for {}", self.0.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(str::to_owned) }
    }

    #[test]
    fn what_every_machine_can_run_comes_first() {
        let wanted = Wanted::parse("linux/amd64").unwrap();
        assert_eq!(wanted.rank(&platform("linux", "amd64", None)), Some(0));
        assert_eq!(wanted.rank(&platform("linux", "amd64", Some("v3"))), Some(1));
        assert_eq!(wanted.rank(&platform("linux", "arm64", None)), None);
        assert_eq!(wanted.rank(&platform("windows", "amd64", None)), None);
        let old = Wanted::parse("linux/arm/v6").unwrap();
        assert_eq!(old.rank(&platform("linux", "arm", Some("v6"))), Some(1));
        assert_eq!(old.rank(&platform("linux", "arm", None)), None);
        assert_eq!(Wanted::parse("linux/arm64/v8").unwrap().rank(&platform("linux", "arm64", None)), Some(0));
    }

    #[test]
    fn a_platform_has_two_or_three_parts() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d", "linux/a b"] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
        assert_eq!(Wanted::this_machine().describe(), format!("linux/{}", architecture()));
    }
}
