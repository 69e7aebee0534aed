//! `NAME=LIMIT` of `--budget` and `--key-budget`.

use microsandbox_core::config::BudgetName;

use super::size::parse_mib;

/// A budget and its limit; sizes are in MiB.
pub fn parse_budget(text: &str) -> Result<(BudgetName, u64), String> {
    let names = || BudgetName::ALL.map(BudgetName::as_str).join(", ");
    let (name, limit) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=LIMIT; names are {}", names()))?;
    let name = BudgetName::parse(name).ok_or_else(|| format!("there is no budget {name:?}; names are {}", names()))?;
    let limit = match name {
        BudgetName::Memory | BudgetName::Disk => u64::from(parse_mib(limit)?),
        BudgetName::Sandboxes | BudgetName::Volumes | BudgetName::Cpus | BudgetName::Inodes => {
            limit.parse().map_err(|_| format!("{limit:?} is not a number"))?
        }
    };
    Ok((name, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mebibytes_and_the_rest_numbers() {
        assert_eq!(parse_budget("memory=2G"), Ok((BudgetName::Memory, 2048)));
        assert_eq!(parse_budget("inodes=1000000"), Ok((BudgetName::Inodes, 1_000_000)));
        for text in ["memory", "memory=", "cpus=2G", "cpu=2", "disk=x", "volumes=-1"] {
            assert!(parse_budget(text).is_err(), "{text}");
        }
    }
}
