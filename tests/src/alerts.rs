//! The alerts of the chart: their rules, and the series that these select.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::checkout;

/// From the root of the checkout.
pub const RULES: &str = "charts/rowlock/alerts/rowlock.rules.yaml";

/// The group that needs an operator.
pub const OPERATOR_GROUP: &str = "rowlock-operator";

/// A rule file of Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct RuleFile {
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Group {
    pub name: String,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub alert: String,
    pub expr: String,
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// A metric in an expression, with its matchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Label, operator (`=`, `!=`, `=~` or `!~`) and value.
    pub matchers: Vec<(String, String, String)>,
}

impl RuleFile {
    /// The rules of the chart.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(checkout().join(RULES)).context(RULES)?;
        serde_yaml::from_str(&text).context(RULES)
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups.iter().flat_map(|group| &group.rules)
    }
}

impl Rule {
    /// The metrics of Rowlock in its expression.
    #[must_use]
    pub fn selectors(&self) -> Vec<Selector> {
        self.expr.match_indices("rowlock_").map(|(start, _)| selector(&self.expr[start..])).collect()
    }

    /// The labels by which it aggregates and joins.
    #[must_use]
    pub fn grouping_labels(&self) -> Vec<&str> {
        let lists = self.expr.match_indices(" (").filter_map(|(start, _)| {
            let keyword = self.expr[..start].rsplit([' ', '\n', '(']).next()?;
            let list = self.expr[start..].trim_start_matches(" (").split(')').next()?;
            matches!(keyword, "by" | "on").then_some(list)
        });
        lists.flat_map(|list| list.split(',').map(str::trim)).collect()
    }
}

/// The selector at the beginning of a text.
fn selector(text: &str) -> Selector {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (metric, rest) = text.split_at(end);
    let inside = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
    let matchers = inside.split(',').filter_map(|matcher| {
        let (label, value) = matcher.split_once('"')?;
        let name = label.trim_end_matches(['=', '!', '~']);
        let operator = &label[name.len()..];
        Some((name.trim().to_owned(), operator.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Selector { metric: metric.to_owned(), matchers: matchers.collect() }
}

/// Runs promtool, amtool or another program of the test packages with this standard input.
///
/// # Errors
/// If it is not installed or fails; then the error has its output.
pub fn run_tool(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(checkout());
    let output = crate::run_with_input(&mut command, input)
        .with_context(|| format!("{program} cannot be started: `tests/install.sh test` installs it"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout) + &text(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {printed}", arguments.join(" "));
    Ok(printed)
}

/// Lets promtool check a rule file (text).
///
/// # Errors
/// If it refuses the file or finds something.
pub fn check_rules(text: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let path = file.path().display().to_string();
    run_tool("promtool", &["check", "rules", "--lint=all", "--lint-fatal", &path], "").map(|_| ())
}

/// Lets promtool check the names and help texts of a page of metrics.
///
/// # Errors
/// If it finds something.
pub fn check_metrics(page: &str) -> Result<()> {
    run_tool("promtool", &["check", "metrics"], page).map(|_| ())
}
