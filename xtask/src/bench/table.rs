//! A table in Markdown, aligned so that it can be read as text.

/// Rows of cells under a head; the first column holds names, the others figures.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with the titles of its columns.
    pub(super) fn new(titles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { rows: vec![titles.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row. Cells that are absent at its end are empty.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Returns the lines of the table.
    pub(super) fn to_markdown(&self) -> String {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..n_columns)
            .map(|column| {
                let widths = self.rows.iter().map(|row| cell(row, column).chars().count());
                widths.max().unwrap_or(0).max(3)
            })
            .collect();
        let mut text = String::new();
        for (i, row) in self.rows.iter().enumerate() {
            text.push('|');
            for (column, &width) in widths.iter().enumerate() {
                let cell = cell(row, column);
                text += &if column == 0 {
                    format!(" {cell:<width$} |")
                } else {
                    format!(" {cell:>width$} |")
                };
            }
            text.push('\n');
            if i == 0 {
                text.push('|');
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width - 1);
                    text += &if column == 0 {
                        format!(" -{dashes} |")
                    } else {
                        format!(" {dashes}: |")
                    };
                }
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_to_the_left_and_figures_to_the_right_under_their_titles() {
        let mut table = Table::new(["workload", "ns", "stopped"]);
        table.row(["json", "1.0 (0.9–1.1)", "7"]);
        table.row(["two-threads"]);
        let expected = "\
| workload    |            ns | stopped |
| ----------- | ------------: | ------: |
| json        | 1.0 (0.9–1.1) |       7 |
| two-threads |               |         |
";
        assert_eq!(table.to_markdown(), expected);
    }
}
