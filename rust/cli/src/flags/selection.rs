//! The sandboxes that a verb acts on, and the action on each of them.

use std::collections::HashSet;
use std::future::Future;

use clap::Args;
use futures::StreamExt;
use microsandbox_core::backend::ListQuery;
use microsandbox_core::{MicrosandboxResult, Sandbox, SandboxHandle};

use crate::flags::key_value::parse_pair;
use crate::invocation::Invocation;
use crate::output::failure::{Failure, Outcome};

/// Entries of one page of the list, and concurrent operations.
const PAGE: u32 = 100;
const CONCURRENT: usize = 8;

/// Names and labels.
#[derive(Debug, Args)]
pub struct Selection {
    /// Names of sandboxes.
    #[arg(value_name = "NAME", required_unless_present = "label")]
    names: Vec<String>,
    /// Also sandboxes with this label; if repeated, all labels must match.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Do not print the names.
    #[arg(short, long)]
    quiet: bool,
}

impl Selection {
    /// Every name once: the given names in their order, then those found by label.
    async fn resolve(&self, call: &Invocation) -> Outcome<Vec<String>> {
        let labelled = if self.label.is_empty() { Vec::new() } else { every(call, &self.label).await? };
        let names = self.names.iter().map(String::as_str).chain(labelled.iter().map(SandboxHandle::name));
        let mut seen = HashSet::new();
        Ok(names.filter(|name| seen.insert(*name)).map(str::to_owned).collect())
    }

    /// Without printed names: the caller prints the results.
    pub fn silent(self) -> Selection {
        Selection { quiet: true, ..self }
    }

    /// The only name, for verbs that act on a job of one sandbox.
    pub fn only(&self) -> Outcome<&str> {
        match self.names.as_slice() {
            [name] if self.label.is_empty() => Ok(name),
            _ => Err(Failure::Usage("--job needs the name of exactly one sandbox, and no --label".into())),
        }
    }

    /// Runs `action` on each sandbox, several concurrently, and prints the names in order. A failure is reported, and
    /// the other sandboxes are still acted on.
    pub async fn each<F>(&self, call: &Invocation, action: impl Fn(SandboxHandle) -> F) -> Outcome<()>
    where
        F: Future<Output = MicrosandboxResult<Option<String>>>,
    {
        let names = self.resolve(call).await?;
        let action = &action;
        let mut results = futures::stream::iter(&names)
            .map(|name| async move {
                let result = match Sandbox::get(&call.backend, name).await {
                    Ok(handle) => action(handle).await,
                    Err(error) => Err(error),
                };
                (name, result)
            })
            .buffered(CONCURRENT);
        let mut failed = false;
        while let Some((name, result)) = results.next().await {
            match result {
                Ok(_) if self.quiet => {}
                Ok(text) => call.console.line(text.as_deref().unwrap_or(name))?,
                Err(error) => {
                    failed = true;
                    call.console.note(&Failure::Core(error).report().unwrap_or_default());
                }
            }
        }
        if failed { Err(Failure::Reported) } else { Ok(()) }
    }
}

/// Every sandbox that has all of `labels`, newest first.
pub async fn every(call: &Invocation, labels: &[(String, String)]) -> Outcome<Vec<SandboxHandle>> {
    let mut query = ListQuery { limit: Some(PAGE), labels: labels.iter().cloned().collect(), ..ListQuery::default() };
    let mut found = Vec::new();
    let mut cursors = HashSet::new();
    loop {
        let page = Sandbox::list(&call.backend, query.clone()).await?;
        found.extend(page.sandboxes);
        match page.next_cursor {
            Some(cursor) if !cursors.insert(cursor.clone()) => {
                return Err(Failure::message(
                    "list sandboxes: the service repeats a cursor, so the list would not end",
                ));
            }
            Some(cursor) => query.cursor = Some(cursor),
            None => return Ok(found),
        }
    }
}
