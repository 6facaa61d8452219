//! Tables for people.

use crate::escape::word;

/// One line per row. Text is aligned left and numbers right, with two spaces between columns.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| word(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let is_number = |column: usize| {
        !rows.is_empty()
            && rows
                .iter()
                .filter_map(|row| row.get(column))
                .all(|cell| cell == "-" || cell.parse::<f64>().is_ok())
    };
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            if is_number(column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.iter().map(AsRef::as_ref).collect()));
    std::iter::once(line(header.to_vec())).chain(body).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_right_and_text_left() {
        let rows = [vec!["a".to_owned(), "7".to_owned()], vec!["long".to_owned(), "1234".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME     N\na        7\nlong  1234");
    }
}
