//! docs/tasks.md describes every state of a task.

use rowlock_queue::TaskState;

#[test]
fn the_page_of_tasks_names_every_state() {
    let path = rowlock_tests::checkout().join("docs/tasks.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut sorted = TaskState::ALL.map(TaskState::as_str);
    assert_eq!(states_in_rows(&page), sorted, "the table's first column");
    sorted.sort_unstable();
    assert_eq!(states_in_diagram(&page), sorted, "the state diagram");
}

/// The rows of a table whose first cell is one word in backticks.
fn states_in_rows(page: &str) -> Vec<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    cells.filter_map(|cell| cell.trim().strip_prefix('`')?.strip_suffix('`')).collect()
}

/// Both ends of the arrows of a mermaid `stateDiagram`, sorted; `[*]` is where tasks come from and go to.
fn states_in_diagram(page: &str) -> Vec<&str> {
    let block = page.split("```mermaid").find(|block| block.trim_start().starts_with("stateDiagram"));
    let diagram = block.and_then(|block| block.split("```").next()).expect("the page has a state diagram");
    let arrows = diagram.lines().filter_map(|line| line.split_once("-->"));
    let ends = arrows.flat_map(|(from, to)| [from, to.split(':').next().unwrap_or(to)]);
    let mut states: Vec<&str> = ends.map(str::trim).filter(|state| *state != "[*]").collect();
    states.sort_unstable();
    states.dedup();
    states
}

#[test]
fn states_are_read_from_rows_and_arrows() {
    let page = "| state | x |\n|---|---|\n| `dead` | y |\n\
                ```mermaid\nstateDiagram-v2\n  [*] --> dead: failed\n```\n";
    assert_eq!(states_in_rows(page), ["dead"]);
    assert_eq!(states_in_diagram(page), ["dead"]);
}
