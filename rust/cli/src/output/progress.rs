//! Progress of long operations on standard error: on a terminal only, and never with `--quiet`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use microsandbox_core::backend::{ProgressFn, PullProgressFn};
use microsandbox_core::model::{ImageProgress, PullEvent};

use crate::output::units::human;
use crate::terminal::console::{Console, printable};

const FRAME: Duration = Duration::from_millis(100);

/// One line on the terminal, erased on drop.
pub struct Progress {
    bar: ProgressBar,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar(console: &Console, quiet: bool) -> ProgressBar {
    let shown = console.err_is_terminal && !quiet;
    ProgressBar::with_draw_target(None, if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() })
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file and parse; an invalid template would show the default bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// An operation of unknown length.
pub fn working(console: &Console, quiet: bool, message: String) -> Progress {
    // Configured completely before the first frame: each setter of a drawn bar draws again.
    let message = printable(&message).replace('\n', " ");
    let bar = bar(console, quiet).with_style(style("{spinner} {msg} {elapsed}")).with_message(message);
    bar.enable_steady_tick(FRAME);
    Progress { bar }
}

/// A download: bytes so far, of the total.
pub fn fetching(console: &Console, quiet: bool, message: &'static str) -> (Progress, impl Fn(u64, u64) + Send + Sync) {
    let bar = bar(console, quiet);
    bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}").progress_chars("=> "));
    bar.set_message(message);
    let shown = bar.clone();
    let report = move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
    };
    (Progress { bar }, report)
}

/// An import: number of the layer, bytes of it so far.
pub fn importing(console: &Console, quiet: bool) -> (Progress, ProgressFn) {
    let bar = bar(console, quiet);
    bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}").progress_chars("=> "));
    bar.set_message("reading the archive");
    let shown = bar.clone();
    let report = move |progress: ImageProgress| {
        shown.set_message(format!("{} layer {} of {}", progress.phase, progress.layer_index + 1, progress.layer_count));
        shown.set_length(progress.total_bytes);
        shown.set_position(progress.completed_bytes);
    };
    (Progress { bar }, Arc::new(report))
}

/// A pull, after which other work may follow: what it fetches is said in a line that stays, how far it is in one that does not.
pub fn pulling(console: &Console, quiet: bool, message: String) -> (Progress, PullProgressFn) {
    let spinner = style("{spinner} {msg} {elapsed}");
    let message = printable(&message).replace('\n', " ");
    let bar = bar(console, quiet).with_style(spinner).with_message(message);
    bar.enable_steady_tick(FRAME);
    let (shown, console) = (bar.clone(), console.share());
    // Of each layer, the bytes that have come.
    let layers: Mutex<BTreeMap<usize, u64>> = Mutex::default();
    let report = move |event: PullEvent| match event {
        PullEvent::Resolved { reference, layer_count, total_download_bytes, .. } => {
            let total = total_download_bytes.unwrap_or(0);
            if total == 0 {
                return;
            }
            if !quiet {
                let layers = if layer_count == 1 { "1 layer".to_owned() } else { format!("{layer_count} layers") };
                let text = format!("pulling {reference}: {layers}, {} to download", human(total));
                shown.suspend(|| console.note(&text));
            }
            shown.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}").progress_chars("=> "));
            shown.set_message("downloading");
            shown.set_length(total);
        }
        PullEvent::LayerDownloadProgress { layer_index, downloaded_bytes, .. }
        | PullEvent::LayerDownloadComplete { layer_index, downloaded_bytes, .. } => {
            let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
            layers.insert(layer_index, downloaded_bytes);
            shown.set_position(layers.values().sum());
        }
        PullEvent::LayerMaterializeStarted { layer_index, .. } => {
            shown.set_message(format!("unpacking layer {}", layer_index + 1));
        }
        PullEvent::Complete { .. } => {
            shown.set_style(style("{spinner} {msg} {elapsed}"));
            shown.set_message("pulled");
        }
        PullEvent::Resolving { .. }
        | PullEvent::LayerMaterializeProgress { .. }
        | PullEvent::LayerMaterializeComplete { .. } => {}
    };
    (Progress { bar }, Arc::new(report))
}
