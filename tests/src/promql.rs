//! The names in an expression of Prometheus: as much of the language as dashboards need.

use std::collections::BTreeSet;

/// Prefixes of the metrics that Rowlock's processes export.
const METRICS: [&str; 2] = ["rowlock_", "process_"];

/// Words before a list of labels.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// `metric{label="value"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matcher {
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    /// As it is written, with its escapes.
    pub value: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    /// What is between double quotes.
    Text(&'a str),
    Sign(char),
}

/// Numbers and durations are left out.
fn tokens(expression: &str) -> Vec<Token<'_>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            let is_number = first.is_ascii_digit();
            let is_part = |c: char| is_word(c) || (is_number && c == '.');
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            if !is_number {
                found.push(Token::Name(&rest[..length]));
            }
            length
        } else if first == '"' {
            let text = &rest[1..];
            let length = end_of_text(text);
            found.push(Token::Text(&text[..length]));
            rest.len().min(length + 2)
        } else {
            if !first.is_whitespace() {
                found.push(Token::Sign(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

/// Where the closing quote is.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    let end = text.find(|c: char| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    end.unwrap_or(text.len())
}

/// All selectors of Rowlock's metrics, in order.
#[must_use]
pub fn selectors(expression: &str) -> Vec<Selector> {
    let tokens = tokens(expression);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Name(name) = token else { continue };
        if METRICS.iter().any(|prefix| name.starts_with(prefix)) {
            found.push(Selector { metric: (*name).to_owned(), matchers: matchers(&tokens[at + 1..]) });
        }
    }
    found
}

/// The matchers at the start, between braces.
fn matchers(tokens: &[Token<'_>]) -> Vec<Matcher> {
    let mut found: Vec<Matcher> = Vec::new();
    if tokens.first() != Some(&Token::Sign('{')) {
        return found;
    }
    for token in &tokens[1..] {
        match token {
            Token::Sign('}') => break,
            Token::Sign(',') => {}
            Token::Name(label) => found.push(Matcher {
                label: (*label).to_owned(),
                operator: String::new(),
                value: String::new(),
            }),
            Token::Sign(sign) => {
                if let Some(last) = found.last_mut() {
                    last.operator.push(*sign);
                }
            }
            Token::Text(value) => {
                if let Some(last) = found.last_mut() {
                    (*value).clone_into(&mut last.value);
                }
            }
        }
    }
    found
}

/// The labels that the expression groups or joins by.
#[must_use]
pub fn grouping_labels(expression: &str) -> BTreeSet<String> {
    let tokens = tokens(expression);
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Name(word) = token else { continue };
        if !GROUPINGS.contains(word) || tokens.get(at + 1) != Some(&Token::Sign('(')) {
            continue;
        }
        for token in tokens[at + 2..].iter().take_while(|token| **token != Token::Sign(')')) {
            if let Token::Name(label) = token {
                found.insert((*label).to_owned());
            }
        }
    }
    found
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = self.matchers.iter().map(|one| format!("{}{}\"{}\"", one.label, one.operator, one.value));
        write!(f, "{}{{{}}}", self.metric, each.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_grouping_labels_are_found() {
        let expression = r#"topk(10, sum by (namespace, queue) (rate(rowlock_a_total{x=~"$y", z!="q}\""}[5m]))
            / on (queue) group_left() rowlock_b > 0.5 or on () label_replace(process_c, "t", ""))"#;
        let found: Vec<String> = selectors(expression).iter().map(Selector::to_string).collect();
        assert_eq!(
            found,
            ["rowlock_a_total{x=~\"$y\",z!=\"q}\\\"\"}", "rowlock_b{}", "process_c{}"],
            "{expression}"
        );
        assert_eq!(grouping_labels(expression), BTreeSet::from(["namespace", "queue"].map(str::to_owned)));
    }
}
