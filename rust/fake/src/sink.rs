//! The writing end of a file that is kept in memory: its content appears when it is closed.

use std::sync::Mutex;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::lock;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::FsWriter;

type Publish = dyn Fn(String, Bytes) -> BoxFuture<'static, MicrosandboxResult<()>> + Send + Sync;

pub struct Sink {
    path: String,
    buffer: Mutex<Option<Vec<u8>>>,
    publish: Box<Publish>,
}

impl Sink {
    /// `publish` is given the path and the whole content, once.
    pub fn new(
        path: &str,
        publish: impl Fn(String, Bytes) -> BoxFuture<'static, MicrosandboxResult<()>> + Send + Sync + 'static,
    ) -> Self {
        Sink { path: path.into(), buffer: Mutex::new(Some(Vec::new())), publish: Box::new(publish) }
    }
}

impl FsWriter for Sink {
    fn write(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            match lock(&self.buffer).as_mut() {
                Some(buffer) => {
                    buffer.extend_from_slice(&data);
                    Ok(())
                }
                None => Err(MicrosandboxError::InvalidState(format!("the writer of {} is closed", self.path))),
            }
        })
    }
    fn close(&self) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            let buffer = lock(&self.buffer).take();
            match buffer {
                Some(buffer) => (self.publish)(self.path.clone(), buffer.into()).await,
                None => Ok(()),
            }
        })
    }
}
