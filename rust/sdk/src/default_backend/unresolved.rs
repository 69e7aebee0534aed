//! The backend that stands for a failed resolution: every operation fails with the reason.

use std::sync::Arc;

use microsandbox_core::backend::{
    Agent, Backend, BackendKind, Files, ImageBackend, SandboxBackend, SharedBackend, VolumeBackend,
};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::SandboxConfig;

/// Kind cloud, so that nothing takes it for this machine.
#[derive(Clone)]
struct Unresolved {
    reason: Reason,
}

#[derive(Clone)]
enum Reason {
    InvalidConfig(String),
    Unsupported { feature: String, available_when: String },
}

pub(super) fn backend(error: &MicrosandboxError) -> SharedBackend {
    let reason = match error {
        MicrosandboxError::InvalidConfig(message) => Reason::InvalidConfig(message.clone()),
        MicrosandboxError::Unsupported { feature, available_when } => {
            Reason::Unsupported { feature: feature.clone(), available_when: available_when.clone() }
        }
        other => Reason::InvalidConfig(other.to_string()),
    };
    Arc::new(Unresolved { reason })
}

impl Unresolved {
    fn error(&self) -> MicrosandboxError {
        match &self.reason {
            Reason::InvalidConfig(message) => MicrosandboxError::InvalidConfig(message.clone()),
            Reason::Unsupported { feature, available_when } => MicrosandboxError::unsupported(feature, available_when),
        }
    }
}

impl Backend for Unresolved {
    fn kind(&self) -> BackendKind {
        BackendKind::Cloud
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self
    }
    fn images(&self) -> &dyn ImageBackend {
        self
    }
}

impl SandboxBackend for Unresolved {
    fn refusal(&self, _feature: &'static str, _available_when: &'static str) -> MicrosandboxError {
        self.error()
    }
    fn check_options(&self, _config: &SandboxConfig) -> MicrosandboxResult<()> {
        Err(self.error())
    }
    fn agent<'a>(&'a self, _name: &'a str) -> Box<dyn Agent + 'a> {
        Box::new(self.clone())
    }
}

impl Agent for Unresolved {
    fn refusal(&self, _feature: &'static str, _available_when: &'static str) -> MicrosandboxError {
        self.error()
    }
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a,
    {
        self
    }
}

impl VolumeBackend for Unresolved {
    fn refusal(&self, _feature: &'static str, _available_when: &'static str) -> MicrosandboxError {
        self.error()
    }
    fn files<'a>(&'a self, _name: &'a str) -> Box<dyn Files + 'a> {
        Box::new(self.clone())
    }
}

impl ImageBackend for Unresolved {
    fn refusal(&self, _feature: &'static str, _available_when: &'static str) -> MicrosandboxError {
        self.error()
    }
}

impl Files for Unresolved {
    fn lacks(&self, _call: &'static str) -> MicrosandboxError {
        self.error()
    }
}
