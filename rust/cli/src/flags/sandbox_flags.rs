//! The configuration of a new sandbox: the flags that `run` and `create` share.

use std::time::Duration;

use clap::{Args, ValueEnum};
use microsandbox_core::model::{
    InitConfig, Isolation, LogLevel, PullPolicy, Rlimit, SandboxConfig, SandboxSpec, SecurityProfile,
};
use microsandbox_local::LocalBackend;

use crate::flags::duration::parse_duration;
use crate::flags::environment::EnvFlags;
use crate::flags::image_source::parse_image;
use crate::flags::key_value::{parse_pair, parse_rlimit, parse_script, read_script};
use crate::flags::mount::MountFlags;
use crate::flags::patch::PatchFlags;
use crate::flags::size::parse_mib;
use crate::flags::unsupported::UnsupportedFlags;
use crate::flags::word::{parsed, word};
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};

/// Flags of a sandbox that does not exist yet.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub struct SandboxFlags {
    /// Name of the sandbox: letters, digits, `.`, `-`, `_`.
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// Virtual CPUs, 1 to 255 [default: 1].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    cpus: Option<u8>,
    /// Upper limit for a later change of --cpus [default: the value of --cpus].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    max_cpus: Option<u8>,
    /// Memory, like 512M or 2G [default: 512M].
    #[arg(short, long, value_name = "SIZE", value_parser = parse_mib)]
    memory: Option<u32>,
    /// Upper limit for a later change of --memory [default: the value of --memory].
    #[arg(long, value_name = "SIZE", value_parser = parse_mib)]
    max_memory: Option<u32>,
    /// Policy of transparent huge pages.
    #[arg(long, value_name = "POLICY", value_parser = ["always", "madvise", "never"])]
    thp: Option<String>,
    #[command(flatten)]
    env: EnvFlags,
    /// Working directory of programs [default: that of the image, else /].
    #[arg(short, long, value_name = "DIR", value_parser = word())]
    workdir: Option<String>,
    /// User of programs: name, uid or uid:gid [default: that of the image, else root].
    #[arg(short, long, value_name = "USER", value_parser = word())]
    user: Option<String>,
    /// Shell that runs scripts [default: /bin/sh].
    #[arg(long, value_name = "PATH", value_parser = word())]
    shell: Option<String>,
    /// Host name in the sandbox [default: derived from the sandbox's name].
    #[arg(short = 'H', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Program that replaces the entrypoint of the image (one word; arguments follow `--`).
    #[arg(long, value_name = "PROGRAM", value_parser = word())]
    entrypoint: Option<String>,
    /// Init system that becomes PID 1: a path in the sandbox, or `auto` for that of the image.
    #[arg(long, value_name = "PATH|auto", value_parser = word())]
    init: Option<String>,
    /// Argument of the init system; may be repeated.
    #[arg(long, value_name = "ARG", requires = "init", allow_hyphen_values = true, value_parser = word())]
    init_arg: Vec<String>,
    /// Environment variable of the init system; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parsed(parse_pair), requires = "init")]
    init_env: Vec<(String, String)>,
    /// Resource limit of every program, like nofile=1024 or cpu=10:20; may be repeated.
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_rlimit)]
    rlimit: Vec<Rlimit>,
    /// Label, which other verbs select by; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Install a script NAME with the text BODY in the sandbox; \n, \t, \r, \0 and \\ are decoded.
    #[arg(long, value_name = "NAME=BODY", value_parser = parse_script)]
    script: Vec<(String, String)>,
    /// As --script, without decoding.
    #[arg(long, value_name = "NAME=BODY", value_parser = parse_pair)]
    script_raw: Vec<(String, String)>,
    /// As --script, with the text of a file of this machine.
    #[arg(long, value_name = "NAME:PATH", value_parser = read_script)]
    script_path: Vec<(String, String)>,
    /// Stop the sandbox when it has run for this time, like 30s, 5m or 1h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_duration: Option<Duration>,
    /// Stop the sandbox after this time without activity.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    idle_timeout: Option<Duration>,
    /// Stop and remove an existing sandbox of the same name first.
    #[arg(long)]
    replace: bool,
    /// As --replace, with this grace period for the old sandbox; 0 kills it [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    replace_with_timeout: Option<Duration>,
    /// When to pull the image.
    #[arg(long, value_name = "WHEN", value_enum)]
    pull: Option<PullWhen>,
    /// Required isolation; auto selects the strongest kind that works on this machine.
    #[arg(long, value_name = "KIND", value_enum)]
    isolation: Option<IsolationKind>,
    /// The same as --isolation microvm: fail where microVMs do not work.
    #[arg(long, conflicts_with = "isolation")]
    require_microvm: bool,
    /// Privileges of programs in the sandbox.
    #[arg(long, value_name = "PROFILE", value_enum)]
    security: Option<SecurityKind>,
    /// Log level of the sandbox's runtime process (msb-runtime).
    #[arg(long, value_name = "LEVEL", value_enum)]
    log_level: Option<LevelName>,
    #[command(flatten)]
    pub mounts: MountFlags,
    #[command(flatten)]
    patches: PatchFlags,
    /// Print no remarks and no progress.
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    unsupported: UnsupportedFlags,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PullWhen {
    Always,
    IfMissing,
    Never,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum IsolationKind {
    Auto,
    Microvm,
    Container,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SecurityKind {
    Default,
    Restricted,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelName {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl SandboxFlags {
    /// The request for a sandbox `name` from `image`. These flags take precedence over the configuration file, which
    /// takes precedence over the built-in defaults.
    pub fn config(&self, call: &Invocation, image: &str, name: String) -> Outcome<SandboxConfig> {
        let mut spec = SandboxSpec { name, image: parse_image(image)?, ..configured(call) };
        self.put_resources(&mut spec)?;
        self.put_runtime(&mut spec);
        spec.env = self.env.variables(&call.console)?;
        spec.labels = self.label.iter().cloned().collect();
        spec.rlimits = self.rlimit.clone();
        spec.init = self.init.clone().map(|cmd| InitConfig {
            cmd,
            args: self.init_arg.clone(),
            env: self.init_env.iter().cloned().collect(),
        });
        spec.lifecycle.max_duration_secs = self.max_duration.map(|time| time.as_secs_f64());
        spec.lifecycle.idle_timeout_secs = self.idle_timeout.map(|time| time.as_secs_f64());
        spec.isolation = self.demanded_isolation();
        spec.pull_policy = match self.pull {
            Some(PullWhen::Always) => PullPolicy::Always,
            Some(PullWhen::IfMissing) | None => PullPolicy::IfMissing,
            Some(PullWhen::Never) => PullPolicy::Never,
        };
        spec.security_profile = match self.security {
            Some(SecurityKind::Restricted) => SecurityProfile::Restricted,
            Some(SecurityKind::Default) | None => SecurityProfile::Default,
        };
        Ok(SandboxConfig {
            spec,
            replace_existing: self.replace || self.replace_with_timeout.is_some(),
            replace_timeout: self.replace_with_timeout.map(|time| time.as_secs_f64()),
            patches: self.patches.patches()?,
            unsupported: self.unsupported.options.clone(),
            ..SandboxConfig::default()
        })
    }

    /// Whether a sandbox of the same name is to be replaced, not reused.
    pub fn replaces(&self) -> bool {
        self.replace || self.replace_with_timeout.is_some()
    }

    fn demanded_isolation(&self) -> Isolation {
        match self.isolation {
            _ if self.require_microvm => Isolation::Microvm,
            Some(IsolationKind::Microvm) => Isolation::Microvm,
            Some(IsolationKind::Container) => Isolation::Container,
            Some(IsolationKind::Auto) | None => Isolation::Auto,
        }
    }

    fn put_resources(&self, spec: &mut SandboxSpec) -> Outcome<()> {
        let resources = &mut spec.resources;
        resources.cpus = self.cpus.unwrap_or(resources.cpus);
        resources.memory_mib = self.memory.unwrap_or(resources.memory_mib);
        resources.max_cpus = self.max_cpus.unwrap_or(resources.cpus);
        resources.max_memory_mib = self.max_memory.unwrap_or(resources.memory_mib);
        resources.thp = self.thp.clone().or(resources.thp.take());
        if resources.max_cpus < resources.cpus || resources.max_memory_mib < resources.memory_mib {
            return Err(Failure::Usage("--max-cpus and --max-memory must not be less than --cpus and --memory".into()));
        }
        Ok(())
    }

    fn put_runtime(&self, spec: &mut SandboxSpec) {
        let runtime = &mut spec.runtime;
        runtime.hostname = self.hostname.clone();
        runtime.workdir = self.workdir.clone().or(runtime.workdir.take());
        runtime.shell = self.shell.clone().or(runtime.shell.take());
        runtime.user = self.user.clone();
        runtime.entrypoint = self.entrypoint.clone().map(|program| vec![program]);
        let scripts = [&self.script, &self.script_raw, &self.script_path];
        runtime.scripts = scripts.into_iter().flatten().cloned().collect();
        runtime.log_level = self.log_level.map(|level| match level {
            LevelName::Trace => LogLevel::Trace,
            LevelName::Debug => LogLevel::Debug,
            LevelName::Info => LogLevel::Info,
            LevelName::Warn => LogLevel::Warn,
            LevelName::Error => LogLevel::Error,
        });
    }
}

/// `sandbox_defaults` of the configuration file, where the backend has one.
fn configured(call: &Invocation) -> SandboxSpec {
    let mut spec = SandboxSpec::default();
    if let Some(local) = LocalBackend::of(&call.backend) {
        let defaults = &local.config().sandbox_defaults;
        spec.resources.cpus = defaults.cpus;
        spec.resources.memory_mib = defaults.memory_mib;
        spec.runtime.shell = Some(defaults.shell.clone());
        spec.runtime.workdir = defaults.workdir.clone();
        spec.metrics.sample_interval_ms = defaults.metrics_sample_interval_ms;
        spec.metrics.disabled = defaults.disable_metrics_sample;
    }
    spec
}
