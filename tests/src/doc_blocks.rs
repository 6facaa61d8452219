//! The fenced code blocks of a page of the documentation.
#![expect(clippy::panic, reason = "a page is wrong where it stands")]

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sh,
    /// Commands for a cluster: `sh cluster`.
    Cluster,
    Sql,
    Output,
    Yaml,
    Text,
}

/// One block.
#[derive(Debug)]
pub struct Block {
    /// Page and line, for errors.
    pub place: String,
    pub kind: Kind,
    pub text: String,
}

const FENCE: &str = "```";

/// All blocks of a page, in order.
///
/// # Panics
///
/// If a block has no known tag, or output has no command before it.
#[must_use]
pub fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(tag) = line.strip_prefix(FENCE) else { continue };
        let place = format!("{page}:{}", number + 1);
        let kind = match tag {
            "sh" => Kind::Sh,
            "sh cluster" => Kind::Cluster,
            "sql" => Kind::Sql,
            "output" => Kind::Output,
            "yaml" => Kind::Yaml,
            "text" | "mermaid" => Kind::Text,
            _ => panic!("{place}: {tag:?} must be sh, sh cluster, sql, output, yaml, text or mermaid"),
        };
        let printed =
            blocks.last().is_some_and(|last| matches!(last.kind, Kind::Sh | Kind::Cluster | Kind::Sql));
        assert!(kind != Kind::Output || printed, "{place}: there is no command before this output");
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != FENCE);
        let text = inside.flat_map(|line| [line, "\n"]).collect();
        blocks.push(Block { place, kind, text });
    }
    blocks
}

/// The first expected line that was not printed in its order.
#[must_use]
pub fn missing<'a>(expected: &'a str, printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines();
    expected.lines().find(|line| !printed.by_ref().any(|found| matches(line, found)))
}

/// `…` matches any text.
fn matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some((_, behind)) = rest.split_once(piece) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[test]
fn output_is_compared_line_by_line_with_gaps() {
    let printed = "one\ntask      42\nstate     done\n";
    assert_eq!(missing("task      …\nstate     done\n", printed), None);
    assert_eq!(missing("state     done\ntask      …\n", printed), Some("task      …"));
    assert_eq!(missing("state     …ne\n", printed), None);
    assert_eq!(missing("state     …no\n", printed), Some("state     …no"));
    assert_eq!(missing("stat\n", printed), Some("stat"));
}

#[test]
#[should_panic(expected = "page.md:2: \"\" must be")]
fn a_block_without_a_tag_is_refused() {
    let _ = blocks("page.md", "words\n```\nmake love\n```\n");
}
