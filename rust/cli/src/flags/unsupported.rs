//! Flags and verbs of the specification that this version does not implement. They are parsed and then refused with the
//! feature that they wait for, instead of "unexpected argument"; the help does not show them.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use microsandbox_core::backend::available_when as when;
use microsandbox_core::model::UnsupportedOption;

use crate::output::failure::Failure;

struct Flag {
    long: &'static str,
    short: Option<char>,
    takes_value: bool,
    when: &'static str,
}

const fn valued(long: &'static str, when: &'static str) -> Flag {
    Flag { long, short: None, takes_value: true, when }
}

const fn switch(long: &'static str, when: &'static str) -> Flag {
    Flag { long, short: None, takes_value: false, when }
}

const PROFILES: &str = "when deployment profiles land";
const SPARSE: &str = "when sparse configuration files land; write the flags instead";

const FLAGS: &[Flag] = &[
    valued("cpu-placement", when::PLACEMENT),
    valued("placement-profile", when::PLACEMENT),
    valued("mount-disk", when::DISK_IMAGES),
    valued("deployment-profile", PROFILES),
    valued("root-disk", when::ROOT_DISK),
    valued("vsock", when::VSOCK),
    Flag { long: "port", short: Some('p'), takes_value: true, when: when::NETWORK },
    switch("no-net", when::NETWORK),
    valued("net", when::NETWORK),
    valued("net-rule", when::NETWORK),
    valued("net-default", when::NETWORK),
    valued("net-default-egress", when::NETWORK),
    valued("net-default-ingress", when::NETWORK),
    switch("no-dns-rebind-protection", when::NETWORK),
    valued("dns-nameserver", when::NETWORK),
    valued("dns-query-timeout-ms", when::NETWORK),
    valued("net-ipv4-pool", when::NETWORK),
    valued("net-ipv6-pool", when::NETWORK),
    valued("net-egress-bandwidth", when::NETWORK),
    valued("net-egress-bandwidth-burst", when::NETWORK),
    valued("net-egress-ops", when::NETWORK),
    valued("net-egress-ops-burst", when::NETWORK),
    valued("net-ingress-bandwidth", when::NETWORK),
    valued("net-ingress-bandwidth-burst", when::NETWORK),
    valued("net-ingress-ops", when::NETWORK),
    valued("net-ingress-ops-burst", when::NETWORK),
    valued("max-connections", when::NETWORK),
    switch("trust-host-cas", when::NETWORK),
    switch("tls-intercept", when::NETWORK),
    valued("tls-intercept-port", when::NETWORK),
    valued("tls-bypass", when::NETWORK),
    switch("no-block-quic", when::NETWORK),
    valued("tls-intercept-ca-cert", when::NETWORK),
    valued("tls-intercept-ca-key", when::NETWORK),
    valued("tls-upstream-ca-cert", when::NETWORK),
    valued("tls-upstream-ca-cert-for", when::NETWORK),
    valued("tls-no-verify-upstream-for", when::NETWORK),
    valued("secret", when::SECRETS),
    valued("on-secret-violation", when::SECRETS),
    valued("from-snapshot", when::SNAPSHOTS),
    valued("conf", SPARSE),
    valued("net-conf", SPARSE),
    valued("resource-conf", SPARSE),
    valued("runtime-conf", SPARSE),
    valued("fs-conf", SPARSE),
    valued("secret-conf", SPARSE),
    valued("script-conf", SPARSE),
];

const UPDATE: &str = "msb is part of a Python package; update it with: pip install --upgrade microsandbox";

/// Verbs of the specification that are not implemented, and the feature that they wait for. Arguments are not parsed.
const VERBS: &[(&[&str], &str)] = &[
    (&["snapshot"], when::SNAPSHOTS),
    (&["snap"], when::SNAPSHOTS),
    (&["restore"], when::SNAPSHOTS),
    (&["fork"], when::SNAPSHOTS),
    (&["ssh"], "when SSH lands; for a terminal in a sandbox: msb exec -t"),
    (&["update"], UPDATE),
    (&["downgrade"], UPDATE),
    (&["self", "update"], UPDATE),
    (&["self", "downgrade"], UPDATE),
    (&["self", "uninstall"], "msb is part of a Python package; remove it with: pip uninstall microsandbox"),
];

/// The refusal of a verb that is not implemented.
pub fn verb(args: &[OsString]) -> Option<Failure> {
    let words: Vec<&str> =
        args.iter().skip(1).map_while(|word| word.to_str()).filter(|word| !word.starts_with('-')).collect();
    let (path, when) = VERBS.iter().find(|(path, _)| words.starts_with(path))?;
    Some(Failure::hinted(format!("msb {} is not supported", path.join(" ")), *when))
}

/// The unsupported flags that stand on the command line.
#[derive(Debug, Default, Clone)]
pub struct UnsupportedFlags {
    pub options: Vec<UnsupportedOption>,
}

impl Args for UnsupportedFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| {
            let action = if flag.takes_value { ArgAction::Append } else { ArgAction::SetTrue };
            let mut argument = Arg::new(flag.long).long(flag.long).action(action).hide(true);
            if let Some(short) = flag.short {
                argument = argument.short(short);
            }
            if flag.takes_value {
                argument = argument.num_args(1).value_parser(clap::builder::NonEmptyStringValueParser::new());
            }
            command.arg(argument)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for UnsupportedFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let written = |flag: &&Flag| matches.value_source(flag.long) == Some(clap::parser::ValueSource::CommandLine);
        let options = FLAGS
            .iter()
            .filter(written)
            .map(|flag| UnsupportedOption { feature: format!("--{}", flag.long), available_when: flag.when.to_owned() })
            .collect();
        Ok(UnsupportedFlags { options })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
