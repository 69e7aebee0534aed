//! The dialect `flat`: the options that its create request lacks, in the order in which they are refused, and programs over
//! HTTP.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use microsandbox_wire::create::{EnvVar, Rlimit};
use microsandbox_wire::flat::{CloudCreateSandboxRequest, ExecRequest, ExecResponse};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    ExecExit, ExecOptions, ExecOutput, ImageSource, PullPolicy, SandboxConfig, SecurityProfile, StdinSource,
};

/// `available_when` of every call on files.
pub const FS: &str = "when cloud guest fs lands";
pub const EXEC: &str = "when cloud exec lands";
pub const VOLUMES: &str = "when cloud volumes ship";
pub const METRICS: &str = "when cloud metrics land";

/// One row of the table of refusals: whether it applies, the feature, `available_when`.
type Check = (fn(&SandboxConfig) -> bool, &'static str, &'static str);

/// Whether one of the options that no backend of this build supports was given.
fn given(config: &SandboxConfig, names: &[&str]) -> bool {
    config.unsupported.iter().any(|option| names.contains(&option.feature.as_str()))
}

/// In this order; the first that applies is the error. Options that the contract does not mention follow in [`FURTHER`].
const REFUSED: [Check; 13] = [
    (|c| !c.spec.mounts.is_empty() || given(c, &["create(volumes=)"]), "mounts", VOLUMES),
    (|c| !c.patches.is_empty(), "patches", VOLUMES),
    (|c| !c.spec.rlimits.is_empty(), "rlimits", "when rlimits land on the cloud API"),
    (|c| c.spec.runtime.cmd.is_some(), "cmd", "when cmd lands on the cloud API"),
    (|c| c.replace_existing, ".replace()", "when cloud sandbox replace semantics land"),
    (|c| c.spec.init.is_some(), "init", "when cloud init wrapper lands"),
    (|c| c.spec.pull_policy != PullPolicy::IfMissing, "pull_policy", "when cloud pull policy lands"),
    (
        |c| c.registry.auth.is_some() || c.registry.anonymous || given(c, &["create(registry_auth=)"]),
        "registry_auth",
        "when cloud registry auth lands",
    ),
    (
        |c| c.registry.insecure || given(c, &["create(registry_insecure=)"]),
        "insecure registries",
        "when cloud insecure-registry support lands",
    ),
    (
        |c| !c.registry.ca_certs.is_empty() || given(c, &["create(registry_ca_certs=)"]),
        "ca_certs",
        "when cloud custom CA certs land",
    ),
    (
        |c| {
            let names = [
                "create(ports=)",
                "create(network=)",
                "create(secrets=)",
                "create(on_secret_violation=)",
                "create(secret_violation_action=)",
                "create(intercept_tls=)",
            ];
            c.no_network || given(c, &names)
        },
        "network policy / ports / secrets",
        "when cloud networking ships",
    ),
    (|c| matches!(c.spec.image, ImageSource::Bind { .. }), "image-from-host-dir", VOLUMES),
    (|c| matches!(c.spec.image, ImageSource::DiskImage { .. }), "disk-image rootfs", "never on cloud"),
];

/// Options that the table of the contract does not name and its request does not carry.
const FURTHER: [Check; 2] = [
    (|c| !c.spec.labels.is_empty(), "labels", "in the dialect spec"),
    (|c| c.spec.security_profile != SecurityProfile::Default, "security_profile", "in the dialect spec"),
];

pub fn check(config: &SandboxConfig) -> MicrosandboxResult<()> {
    for (fires, feature, when) in REFUSED.iter().chain(&FURTHER) {
        if fires(config) {
            return Err(MicrosandboxError::unsupported(*feature, *when));
        }
    }
    Ok(())
}

/// The request, or the first option that cannot be carried.
pub fn create(config: &SandboxConfig) -> MicrosandboxResult<CloudCreateSandboxRequest> {
    check(config)?;
    // The other options are refused as in the dialect `spec`, except the host name, which this request carries.
    let mut rest = config.clone();
    let hostname = rest.spec.runtime.hostname.take();
    let spec = super::spec::create(&rest)?;
    let image = match spec.image {
        microsandbox_wire::create::Image::Oci { reference } => reference,
        _ => return Err(MicrosandboxError::unsupported("disk-image rootfs", "never on cloud")),
    };
    Ok(CloudCreateSandboxRequest {
        name: spec.name,
        image,
        vcpus: spec.resources.vcpus,
        memory_mib: spec.resources.memory_mib,
        env: spec.env.into_iter().map(|var| (var.key, var.value)).collect(),
        ephemeral: spec.lifecycle.ephemeral,
        workdir: spec.runtime.workdir,
        shell: spec.runtime.shell,
        entrypoint: spec.runtime.entrypoint,
        hostname,
        user: spec.runtime.user,
        log_level: spec.runtime.log_level,
        scripts: spec.runtime.scripts,
        max_duration_secs: spec.lifecycle.max_duration_secs,
        idle_timeout_secs: spec.lifecycle.idle_timeout_secs,
    })
}

/// A program as a request.
pub fn exec_request(cmd: String, options: &ExecOptions) -> MicrosandboxResult<ExecRequest> {
    if options.tty || options.detachable {
        let feature = if options.tty { "exec(tty=)" } else { "exec_detached" };
        return Err(MicrosandboxError::unsupported(feature, EXEC));
    }
    let stdin = match &options.stdin {
        StdinSource::Null => None,
        StdinSource::Bytes(data) => Some(STANDARD.encode(data)),
        StdinSource::Pipe => return Err(MicrosandboxError::unsupported("exec(stdin=Stdin.pipe())", EXEC)),
    };
    Ok(ExecRequest {
        cmd,
        args: options.args.clone(),
        env: options.env.iter().map(|(key, value)| EnvVar { key: key.clone(), value: value.clone() }).collect(),
        cwd: options.cwd.clone(),
        user: options.user.clone(),
        stdin,
        timeout_secs: options.timeout.map(|timeout| timeout.as_secs_f64()),
        rlimits: options
            .rlimits
            .iter()
            .map(|limit| Rlimit { resource: limit.resource.clone(), soft: limit.soft, hard: limit.hard })
            .collect(),
        max_output_bytes: options.max_output_bytes,
    })
}

/// The output of a program, from its response.
pub fn exec_output(response: ExecResponse, timeout: Option<Duration>) -> MicrosandboxResult<ExecOutput> {
    let bytes = |text: &str| {
        STANDARD.decode(text).map(bytes::Bytes::from).map_err(|_error| {
            MicrosandboxError::Custom("the response of the service to exec contains output that is not base64".into())
        })
    };
    let output = ExecOutput {
        exit: ExecExit {
            code: response.exit_code,
            signal: response.signal,
            oom_killed: response.oom_killed,
            timed_out: response.timed_out,
            drained: true,
            descendants: 0,
            duration: microsandbox_core::seconds::duration(response.duration_ms / 1000.0),
        },
        stdout: bytes(&response.stdout)?,
        stderr: bytes(&response.stderr)?,
        stdout_total: response.stdout_total,
        stderr_total: response.stderr_total,
    };
    match timeout {
        Some(timeout) if output.exit.timed_out => {
            Err(MicrosandboxError::ExecTimeout { secs: timeout.as_secs_f64(), output: Some(Box::new(output)) })
        }
        _ => Ok(output),
    }
}
