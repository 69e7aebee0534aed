//! `--timings`: the duration of each step of a boot.

use microsandbox_core::model::{BootSide, BootStep};

use crate::output::tables::table;

/// A table of steps in milliseconds; `None` if this process booted no sandbox.
pub fn page(steps: &[BootStep]) -> Option<String> {
    let total = steps.last()?.at_us;
    let mut before = 0;
    let rows = steps.iter().map(|step| {
        let took = step.at_us.saturating_sub(before);
        before = step.at_us;
        let side = match step.side {
            BootSide::Sdk => "sdk",
            BootSide::Runtime => "runtime",
        };
        vec![side.to_owned(), step.step.clone(), millis(took), millis(step.at_us)]
    });
    let rows: Vec<_> = rows.chain([vec!["total".to_owned(), String::new(), millis(total), millis(total)]]).collect();
    Some(table(&["SIDE", "STEP", "TOOK MS", "AT MS"], rows))
}

fn millis(micros: u64) -> String {
    format!("{:>9.3}", micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(side: BootSide, step: &str, at_us: u64) -> BootStep {
        BootStep { side, step: step.into(), at_us }
    }

    #[test]
    fn each_step_has_its_own_duration() {
        assert_eq!(page(&[]), None);
        let steps = [step(BootSide::Sdk, "spawn", 1500), step(BootSide::Runtime, "mount overlay", 2750)];
        let expected = "\
SIDE      STEP            TOOK MS     AT MS
sdk       spawn               1.500       1.500
runtime   mount overlay       1.250       2.750
total                         2.750       2.750
";
        assert_eq!(page(&steps).unwrap(), expected);
    }
}
