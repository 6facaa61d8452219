//! The scaling decisions of the operator beside those of KEDA with HPA, of Knative and of an oracle, on
//! simulated loads.
//!
//! Modules in reading order: the loads ([`families`]), their replay ([`replays`]), what it measured
//! ([`scores`]), the goals ([`goals`]) and the table of all families ([`listing`]).

mod families;
mod goals;
mod listing;
mod replays;
mod scores;

use anyhow::{Context, Result, bail};

use crate::args::ScalingArgs;
use crate::table::Table;
use families::Family;
use replays::{Replays, laws};
pub(crate) use scores::Scored;

/// Prints a line per family and a row per goal. The exit code is 1 if a goal is missed.
pub(crate) fn run(args: &ScalingArgs) -> Result<()> {
    let families = chosen(&args.only)?;
    if args.list {
        return listing::print_families(&families, args.first_seed);
    }
    let peers = match &args.peers {
        Some(path) => scores::read(path)?,
        None => Vec::new(),
    };
    let laws = laws(args.no_oracle);
    let seeds = args.first_seed..args.first_seed + args.seeds;
    let scored = Replays { families, seeds, laws, peers }.run();
    listing::print_scores(&scored)?;
    let rows = goals::rows(&scored);
    let missed: Vec<String> = rows.iter().filter(|row| row.is_missed()).map(|row| row.name.clone()).collect();
    let mut table = Table::new("scaling", args.is_complete())?.with_families(&scored);
    table.add(rows)?;
    table.print()?;
    if !missed.is_empty() {
        bail!("goals missed: {}", missed.join("; "));
    }
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<Family>> {
    let all = families::all();
    if only.is_empty() {
        return Ok(all);
    }
    only.iter()
        .map(|name| {
            let found = all.iter().find(|family| family.name == name).copied();
            found.with_context(|| format!("there is no family {name:?}; --list has all names"))
        })
        .collect()
}
